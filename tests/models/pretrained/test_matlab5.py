from __future__ import annotations

import io
import zlib
from functools import cache

import numpy as np
import pytest
from damage import peak, refused
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from facedan_cli.models.pretrained import matlab5
from facedan_cli.models.pretrained.matlab5 import read_matlab5


@cache
def matlab(compressed: bool) -> bytes:
    cells = np.empty((1, 6), object)
    cells[0] = [np.arange(6.0).reshape(2, 3), "text", {"inner": "β"}, np.float32(1), np.uint8([1, 2]), np.zeros((0, 3))]
    file = io.BytesIO()
    numbers = np.array([(1,), (2,)], [("x", object)])
    savemat(file, {"other": 1.0, "a": {"cells": cells, "numbers": numbers}}, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_values_are_plain_data_and_only_what_is_wanted_is_read(compressed: bool) -> None:
    content = matlab(compressed)
    value = read_matlab5(content, {"a", "nothing"})
    assert value.keys() == {"a"}
    cells, numbers = value["a"]["cells"], value["a"]["numbers"]
    np.testing.assert_array_equal(cells[0], np.arange(6.0).reshape(2, 3))
    assert cells[1:3] == ["text", {"inner": "β"}]
    assert [cell.dtype for cell in cells[3:5]] == [np.float32, np.uint8]
    assert cells[5].size == 0
    assert [row["x"].item() for row in numbers] == [1, 2]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_cut_at_any_byte_is_refused(compressed: bool) -> None:
    content = matlab(compressed)
    whole = [length for length in range(len(content)) if not refused(read_matlab5, content[:length], {"a"})]
    assert all(not read_matlab5(content[:length], {"a"}) for length in whole)
    assert len(whole) <= 2  # after the header, and after the variable that comes first


@given(compressed=st.booleans(), place=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_matlab_file_with_a_wrong_byte_is_read_or_refused(compressed: bool, place: float, byte: int) -> None:
    damaged = bytearray(matlab(compressed))
    damaged[int(place * len(damaged))] = byte
    refused(read_matlab5, bytes(damaged), {"a"})


def test_a_variable_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab5, "_MOST_BYTES", 1000)
    packed = zlib.compress(bytes(1_000_000))
    content = matlab(True)[:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    assert peak(lambda: read_matlab5(content, {"a"})) < 100_000


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    refused(read_matlab5, matlab(False)[:128] + content, {"a"})
