"""A reader of MATLAB files of version 5 ("MAT-File Format", MathWorks) as arrays, text, cells and structures.

scipy.io.loadmat reads these too, but a damaged file can crash the process in it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_HEADER = 128
_MOST_BYTES = 1 << 30  # most bytes of a decompressed variable; VGG-Face's layers have 580 million
_MOST_RATIO = 64  # most of a decompressed variable to the file; weights hardly shrink
_LEAST_BYTES = 1 << 20  # allowed for any variable
_MOST_DIMENSIONS = 32
_MOST_SIZE = 1 << 40
_DEPTH = 50  # most nested cells; a network has about five

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
_CELL, _STRUCTURE, _CHARACTERS = 1, 2, 4
_NUMERIC = range(6, 16)


def read_matlab5(content: bytes, wanted: set[str]) -> dict[str, Any]:
    """The variables of a file by name.

    Args:
        content: the whole file.
        wanted: the names of the variables to read; others are passed over.

    Returns:
        Each an array, a str, a list (a cell array, in MATLAB's order), a dict (a structure) or a list of these (an
        array of structures); None for what is none of them.

    Raises:
        ValueError: it ends early, or is something else.
    """
    if not content.startswith(b"MATLAB 5.0") or content[126:_HEADER] != b"IM":
        raise ValueError("it is no MATLAB file of version 5 with the least significant bytes first")
    variables = {}
    most = min(_MOST_BYTES, max(_LEAST_BYTES, _MOST_RATIO * len(content)))
    for matrix in _matrices(_elements(memoryview(content)[_HEADER:]), most):
        parts = _elements(matrix)
        kind, sizes, name = _start(parts)
        if name in wanted:
            variables[name] = _value(kind, sizes, parts, 0)
    return variables


def _matrices(elements: Iterator[tuple[int, memoryview]], most: int) -> Iterator[memoryview]:
    """Yield the variables of a file, decompressed, with at most `most` bytes each."""
    for kind, element in elements:
        if kind == _MATRIX:
            yield element
        elif kind == _COMPRESSED:
            yield from (inner for kind, inner in _elements(_decompressed(element, most)) if kind == _MATRIX)


def _decompressed(content: memoryview, most: int) -> memoryview:
    decompressor = zlib.decompressobj()
    try:
        whole = decompressor.decompress(content, most)
    except zlib.error as error:
        raise ValueError("one of its variables cannot be decompressed") from error
    if not decompressor.eof:
        raise ValueError("one of its variables ends early or is too large")
    return memoryview(whole)


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and bytes of each element of a sequence."""
    at = 0
    while at < len(content):
        kind = int.from_bytes(content[at : at + 4], "little")
        if kind >> 16:  # a small element: its length and its bytes share the eight of a tag
            kind, length, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            length, start = int.from_bytes(content[at + 4 : at + 8], "little"), at + 8
            end = start + length if kind == _COMPRESSED else start + (length + 7) // 8 * 8
        if start + length > min(end, len(content)):
            raise ValueError("it ends before its elements do")
        yield kind, content[start : start + length]
        at = end


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise ValueError("one of its arrays ends early")
    return part


def _start(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, list[int], str]:
    """The beginning of an array: its class (the lowest byte of its flags), sizes and name."""
    kind = int.from_bytes(_next(parts)[1][:1], "little")
    sizes = _numbers(*_next(parts))[: _MOST_DIMENSIONS + 1].tolist()
    if len(sizes) > _MOST_DIMENSIONS or not all(isinstance(size, int) and 0 <= size <= _MOST_SIZE for size in sizes):
        raise ValueError("one of its arrays has no sizes")
    return kind, sizes, bytes(_next(parts)[1]).decode("latin-1")


def _value(kind: int, sizes: list[int], parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError(f"its cells are nested more than {_DEPTH} deep")
    if kind in _NUMERIC:
        numbers = _numbers(*_next(parts))
        if len(numbers) != math.prod(sizes):
            raise ValueError(f"an array of {sizes[:8]} has {len(numbers)} values")
        return numbers.reshape(sizes, order="F")
    if kind == _CHARACTERS:
        encoding, text = _next(parts)
        return bytes(text).decode(_TEXTS.get(encoding, "latin-1"), "replace")
    if kind == _CELL:
        return [_inner(parts, depth) for _ in range(math.prod(sizes))]
    if kind == _STRUCTURE:
        names = _field_names(parts)
        made = [{name: _inner(parts, depth) for name in names} for _ in range(math.prod(sizes) if names else 0)]
        return made[0] if len(made) == 1 else made
    return None


def _inner(parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
    kind, element = _next(parts)
    if kind != _MATRIX:
        raise ValueError("one of its cells holds no array")
    if not element:  # how an empty array may be written
        return np.empty((0, 0))
    inner = _elements(element)
    array, sizes, _ = _start(inner)
    return _value(array, sizes, inner, depth + 1)


def _field_names(parts: Iterator[tuple[int, memoryview]]) -> list[str]:
    length = int.from_bytes(_next(parts)[1], "little")
    names = bytes(_next(parts)[1])
    if not 0 < length <= 64:
        raise ValueError("one of its structures has no names")
    return [names[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), length)]


def _numbers(kind: int, content: memoryview) -> np.ndarray:
    """The numbers of an element, in the stored type, which may be smaller than the array's."""
    if kind not in _NUMBERS:
        raise ValueError(f"it has numbers of the unknown type {kind}")
    return np.frombuffer(content, _NUMBERS[kind])
