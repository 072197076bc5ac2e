"""A reader of the weights in a .caffemodel, for those of Caffe's protocol buffers (caffe.proto) that hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_MOST_DIMENSIONS, _MOST_SIZE = 32, 1 << 40  # Caffe's own limit is 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class _Message:
    """The fields of a layer message with its name and its blobs."""

    name: int
    blobs: int


# NetParameter's fields that hold layers: `layers` (V1LayerParameter, until 2015) and `layer` (LayerParameter).
_LAYERS = {2: _Message(name=4, blobs=6), 100: _Message(name=1, blobs=7)}


def caffemodel_layers(content: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer that has both, by name, in order, in Caffe's shapes (outputs first).

    Args:
        content: the whole file, a NetParameter.

    Raises:
        ValueError: it ends early or is something else.
    """
    layers = {}
    for field, value in _fields(memoryview(content)):
        if field in _LAYERS and isinstance(value, memoryview):
            name, blobs = _layer(value, _LAYERS[field])
            if len(blobs) == 2:
                layers[name] = (blobs[0], blobs[1])
    return layers


def _layer(content: memoryview, message: _Message) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for field, value in _fields(content):
        if field == message.name and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif field == message.blobs and isinstance(value, memoryview):
            blobs.append(_blob(value))
    return name, blobs


def _blob(content: memoryview) -> np.ndarray:
    """The array of a BlobProto: data (5) or double_data (8), in the shape (7) or, in older files, four sizes (1-4)."""
    old_shape = [0, 0, 0, 0]
    shape: list[int] | None = None
    floats, doubles = bytearray(), bytearray()  # repeated fields may come in several pieces
    for field, value in _fields(content):
        if field in range(1, 5) and isinstance(value, int):
            old_shape[field - 1] = value
        elif isinstance(value, memoryview):
            if field == 7:
                shape = _shape(value)
            elif field == 5:
                floats += value
            elif field == 8:
                doubles += value
    data, element = (doubles, np.dtype("<f8")) if doubles else (floats, np.dtype("<f4"))
    sizes = old_shape if shape is None else shape
    if len(sizes) > _MOST_DIMENSIONS or max(sizes, default=0) > _MOST_SIZE:
        raise ValueError("a blob has a shape that no array has")
    if math.prod(sizes) * element.itemsize != len(data):
        raise ValueError(f"a blob of shape {tuple(sizes)[:8]} has {len(data) // element.itemsize} values")
    return np.frombuffer(data, element).reshape(sizes)


def _shape(content: memoryview) -> list[int]:
    """The sizes (1) of a BlobShape, packed or one by one."""
    sizes: list[int] = []
    for field, value in _fields(content):
        if field != 1:
            continue
        if isinstance(value, int):
            sizes.append(value)
            continue
        at = 0
        while at < len(value):
            size, at = _varint(value, at)
            sizes.append(size)
            if len(sizes) > _MOST_DIMENSIONS:
                break
    return sizes


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: numbers as int, others as bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(content, at)
            yield field, value
            continue
        if wire == _BYTES:
            length, at = _varint(content, at)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"it has a field of the unknown wire type {wire}")
        if length > len(content) - at:
            raise ValueError("it ends before its fields do")
        yield field, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number, least significant group first, and the offset of its end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise ValueError("it ends before its fields do")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number of more than ten bytes")
