"""Tensors of a file of torch.save that holds other objects too, such as a checkpoint of Lightning.

Nothing of those objects is made, imported or called: what a pickle names, beside tensors and dictionaries, is read as
an empty object.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

_Kind = TypeVar("_Kind")
_TYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class _Stored(NamedTuple):
    """The storage of tensors: its entry in the archive, and its type."""

    entry: str
    dtype: torch.dtype


class _Described(NamedTuple):
    """A tensor before its numbers are read; nothing of it has been checked."""

    storage: Any
    offset: Any
    sizes: Any
    strides: Any


class _Inert:
    """A placeholder for all other objects that a pickle names, which accepts everything and does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def _nothing(self, *_: object) -> None:
        pass

    __call__ = __setstate__ = __setitem__ = append = extend = add = _nothing


class _Unpickler(pickle._Unpickler):
    """Makes plain values, dictionaries, descriptions of tensors, and `_Inert`s.

    It is the one in Python, whose memo is a dict: that in C takes as much memory as a number in the file says.
    """

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
        }
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return known.get((module, name), type("Inert", (_Inert,), {}))  # of its own: a pickle may set its attributes

    def persistent_load(self, pid: Any) -> _Stored | None:
        """A storage: ("storage", its type, the number of its entry, the device, its elements)."""
        if not isinstance(pid, tuple) or len(pid) != 5 or not isinstance(pid[1], torch.dtype):
            return None
        return _Stored(str(pid[2]), pid[1])

    def _tensor(self, storage: Any, offset: Any, sizes: Any, strides: Any, *_: object) -> _Described:
        return _Described(storage, offset, sizes, strides)

    def _parameter(self, data: Any, *_: object) -> Any:
        return data


def pickled_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a zip archive of torch.save to which dictionaries alone lead, by name as `named` gives them.

    Raises:
        ValueError: it is no such archive, or a tensor reaches beyond its numbers.
        Exception: of any type, for a damaged pickle.
    """
    with zipfile.ZipFile(path) as archive:
        entries = set(archive.namelist())
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is not what torch.save writes")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers have their bytes in the other order")
        found = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        numbers: dict[_Stored, Tensor] = {}
        tensors = {}
        for name, described in named(found, _Described):
            storage = described.storage
            if not isinstance(storage, _Stored):
                raise ValueError("one of its tensors has no numbers")
            if storage not in numbers:
                content = bytearray(archive.read(f"{root}data/{storage.entry}"))
                numbers[storage] = torch.frombuffer(content, dtype=storage.dtype) if content else torch.empty(0)
            tensors[name] = _view(numbers[storage], described)
        return tensors


def named(found: object, kind: type[_Kind]) -> Iterator[tuple[str, _Kind]]:
    """Values of a kind to which dictionaries alone lead, by all keys on the way, joined by dots.

    Args:
        found: a dictionary that may hold others, or itself; each is looked into once. Else it has no values.
        kind: type of the values.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", found)]
    while waiting:
        prefix, inner = waiting.pop()
        if not isinstance(inner, dict) or id(inner) in seen:
            continue
        seen.add(id(inner))
        for key, value in dict.items(inner):  # a pickle may give an OrderedDict an attribute `items`
            if isinstance(key, str) and isinstance(value, kind):
                yield prefix + key, value
            elif isinstance(key, str):
                waiting.append((f"{prefix}{key}.", value))


def _view(numbers: Tensor, described: _Described) -> Tensor:
    _, offset, sizes, strides = described
    if any(type(number) is not int or number < 0 for number in (offset, *sizes, *strides)):
        raise ValueError("one of its tensors has a shape that no tensor has")
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 in sizes:
        return numbers[:0]
    if last >= len(numbers) or math.prod(sizes) > len(numbers):
        raise ValueError("one of its tensors reaches beyond its numbers")
    return numbers.as_strided(sizes, strides, offset)
