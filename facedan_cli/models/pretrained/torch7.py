"""A reader of Torch7's serialisation (binary, longs of 64 bits, as in VGG_FACE.t7) as plain data.

The layout is that of torch7's File.lua, Tensor.c and Storage.c. Nothing in a file is run: Lua functions are refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)
_FUNCTIONS = (6, 7, 8)
_DEPTH = 100  # most nested tables; a network has about ten
_ELEMENTS = {
    "Byte": "<u1",
    "Char": "<i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Half": "<f2",
    "Float": "<f4",
    "Double": "<f8",
    "Cuda": "<f4",
    "CudaHalf": "<f2",
    "CudaDouble": "<f8",
}
_STORAGES = {f"torch.{name}Storage": np.dtype(element) for name, element in _ELEMENTS.items()}
_TENSORS = {f"torch.{name}Tensor" for name in _ELEMENTS}


@dataclass
class Torch7Object:
    """An object of a Lua class, such as nn.Linear.

    Args:
        name: name of the class.
        fields: its fields by name.
    """

    name: str
    fields: dict[Any, Any] = field(default_factory=dict)


def read_torch7(content: bytes) -> Any:
    """The value that `torch.save(path, value)` wrote.

    Args:
        content: the whole file.

    Returns:
        None, a float, a str, a bool, a dict (a Lua table), an array (a tensor or storage) or a `Torch7Object`.

    Raises:
        ValueError: it ends early, holds Lua functions, or is something else.
    """
    return _Reader(content).value()


def torch7_layers(content: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each module of a saved nn.Sequential that has both, in order, by position.

    Raises:
        ValueError: as `read_torch7`.
    """
    return {str(position): arrays for position, arrays in enumerate(_modules(read_torch7(content), set()), start=1)}


def _modules(module: Any, seen: set[int], depth: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if depth > _DEPTH:  # by references objects can hold each other deeper than they were read
        raise ValueError(f"its modules are nested more than {_DEPTH} deep")
    if not isinstance(module, Torch7Object) or id(module) in seen:
        return
    seen.add(id(module))
    weight, bias = module.fields.get("weight"), module.fields.get("bias")
    if isinstance(weight, np.ndarray) and isinstance(bias, np.ndarray):
        yield weight, bias
    inner = module.fields.get("modules")
    if isinstance(inner, dict):
        for position in range(1, len(inner) + 1):
            yield from _modules(inner.get(position), seen, depth + 1)


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0
        self._seen: dict[int, Any] = {}  # objects by their numbers in the file, for later references

    def value(self, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise ValueError(f"its tables are nested more than {_DEPTH} deep")
        kind = self._int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return struct.unpack("<d", self._take(8))[0]
        if kind == _STRING:
            return self._text()
        if kind == _BOOLEAN:
            return self._int() != 0
        if kind in _FUNCTIONS:
            raise ValueError("it holds Lua functions, which are code")
        if kind not in {_TABLE, _OBJECT}:
            raise ValueError(f"it has a value of the unknown kind {kind}")
        number = self._int()
        if number in self._seen:
            return self._seen[number]
        return self._table(number, depth) if kind == _TABLE else self._object(number, depth)

    def _table(self, number: int, depth: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self._seen[number] = table  # before its values are read: one of them may be the table itself
        for _ in range(self._int()):
            key, value = self.value(depth + 1), self.value(depth + 1)
            if not isinstance(key, str | float):
                raise ValueError("one of its tables has a key that is neither text nor a number")
            table[key] = value
        return table

    def _object(self, number: int, depth: int) -> Any:
        name = self._text()
        if name.startswith("V "):  # the version of the class; files from before there were versions lack it
            name = self._text()
        if name in _STORAGES:
            self._seen[number] = self._storage(_STORAGES[name])
        elif name in _TENSORS:
            self._seen[number] = self._tensor(depth)
        else:
            self._seen[number] = made = Torch7Object(name)
            fields = self.value(depth + 1)
            if not isinstance(fields, dict):
                raise ValueError(f"its object of the class {name[:40]!r} is not made of fields")
            made.fields = fields
        return self._seen[number]

    def _storage(self, element: np.dtype[Any]) -> np.ndarray:
        return np.frombuffer(self._take(self._long() * element.itemsize), element)

    def _tensor(self, depth: int) -> np.ndarray:
        dimensions = self._int()
        sizes, strides = self._longs(dimensions), self._longs(dimensions)
        offset = self._long() - 1
        storage = self.value(depth + 1)
        if storage is None or not sizes or 0 in sizes:
            return np.empty(0, np.float32)
        if not isinstance(storage, np.ndarray) or storage.ndim != 1:
            raise ValueError("one of its tensors has no storage")
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        inside = min(sizes) > 0 and min(strides) >= 0 and 0 <= offset <= last < len(storage)
        if not inside or math.prod(sizes) > len(storage):
            raise ValueError("one of its tensors reaches beyond its storage")
        in_bytes = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], sizes, in_bytes, writeable=False)

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._content) - self._at:
            raise ValueError("it ends before its values do")
        self._at += count
        return self._content[self._at - count : self._at]

    def _int(self) -> int:
        return int.from_bytes(self._take(4), "little", signed=True)

    def _long(self) -> int:
        return int.from_bytes(self._take(8), "little", signed=True)

    def _longs(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}q", self._take(8 * count)))

    def _text(self) -> str:
        return bytes(self._take(self._int())).decode("latin-1")
