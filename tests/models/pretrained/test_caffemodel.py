from __future__ import annotations

import layouts
import numpy as np
import pytest
from damage import peak, refused
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.models.pretrained.caffemodel import caffemodel_layers

SMALL_CAFFE = {
    style: layouts.caffemodel({"a": (np.ones((2, 3, 1, 1), np.float32), np.zeros(2, np.float32))}, style)
    for style in ("old", "new", "double", "unpacked")
}


@pytest.mark.parametrize("style", SMALL_CAFFE)
def test_a_caffemodel_cut_at_any_byte_is_refused_or_lacks_the_layer(style: str) -> None:
    content = SMALL_CAFFE[style]
    assert caffemodel_layers(content)["a"][0].size == 6
    ends = 0
    for length in range(len(content)):
        try:
            found = caffemodel_layers(content[:length])
        except ValueError:
            continue
        assert set(found) <= {"a"}
        ends += 1
    assert ends <= 3  # between fields, which is where a message may end


@given(style=st.sampled_from(list(SMALL_CAFFE)), place=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_caffemodel_with_a_wrong_byte_is_read_or_refused(style: str, place: float, byte: int) -> None:
    damaged = bytearray(SMALL_CAFFE[style])
    damaged[int(place * len(damaged))] = byte
    refused(caffemodel_layers, bytes(damaged))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    refused(caffemodel_layers, content)


CAFFE_LIES = {
    "length": layouts.varint(100 << 3 | 2) + layouts.varint(1 << 60) + b"abc",
    "shape": layouts.message(100, layouts.message(7, layouts.message(7, layouts.message(1, layouts.varint(1 << 60))))),
    "number": b"\xff" * 12,
    "group": layouts.varint(1 << 3 | 3),
}


@pytest.mark.parametrize("name", CAFFE_LIES)
def test_lengths_in_a_caffemodel_are_not_believed(name: str) -> None:
    assert peak(lambda: caffemodel_layers(CAFFE_LIES[name])) < 10_000_000
