from __future__ import annotations

import layouts
import numpy as np
import pytest
from damage import peak, refused
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.models.pretrained.torch7 import Torch7Object, read_torch7, torch7_layers


def small_torch7() -> bytes:
    layer = ("nn.Linear", {"weight": np.ones((2, 3)), "bias": np.zeros(2, np.float32), "train": True, "name": "a"})
    writer = layouts.Torch7Writer()
    writer.value(("nn.Sequential", {"modules": [layer], "gradInput": None}))
    return bytes(writer.content)


SMALL_TORCH7 = small_torch7()


def test_torch7_values_are_plain_data() -> None:
    writer = layouts.Torch7Writer()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer.value({"a": 1, "b": [True, None, "text"], "c": array, "d": ("nn.Tanh", {"x": 0.5})})
    value = read_torch7(bytes(writer.content))
    assert value["a"] == 1.0
    assert value["b"] == {1.0: True, 2.0: None, 3.0: "text"}
    np.testing.assert_array_equal(value["c"], array)
    assert value["d"] == Torch7Object("nn.Tanh", {"x": 0.5})


def test_torch7_values_may_be_shared_and_hold_themselves() -> None:
    writer = layouts.Torch7Writer()
    writer.reference(3)
    writer.int(2)
    writer.value("self")
    writer.int(3)
    writer.int(1)  # the first reference: this table
    writer.value("module")
    writer.value(("nn.Sequential", {}))
    value = read_torch7(bytes(writer.content))
    assert value["self"] is value


def test_torch7_tensors_are_views_with_strides() -> None:
    writer = layouts.Torch7Writer()
    writer.begin("torch.DoubleTensor")
    writer.int(2)
    writer.long(2, 3, 1, 2, 2)  # transposed, from the second element
    writer.begin("torch.DoubleStorage")
    writer.long(7)
    writer.content += np.arange(7.0).tobytes()
    np.testing.assert_array_equal(read_torch7(bytes(writer.content)), [[1, 3, 5], [2, 4, 6]])


def test_torch7_cut_at_any_byte_is_refused() -> None:
    assert torch7_layers(SMALL_TORCH7)["1"][0].shape == (2, 3)
    for length in range(len(SMALL_TORCH7)):
        with pytest.raises(ValueError, match="it ends before"):
            torch7_layers(SMALL_TORCH7[:length])


@given(at=st.integers(0, len(SMALL_TORCH7) - 1), byte=st.integers(0, 255))
def test_torch7_with_a_wrong_byte_is_read_or_refused(at: int, byte: int) -> None:
    damaged = bytearray(SMALL_TORCH7)
    damaged[at] = byte
    refused(torch7_layers, bytes(damaged))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    refused(torch7_layers, content)


def torch7_lies() -> dict[str, bytes]:
    def header(name: str) -> layouts.Torch7Writer:
        writer = layouts.Torch7Writer()
        writer.begin(name)
        return writer

    storage = header("torch.FloatStorage")
    storage.long(1 << 60)
    tensor = header("torch.FloatTensor")
    tensor.int(1 << 30)
    stretched = header("torch.FloatTensor")  # a terabyte, all of it the same element
    stretched.int(2)
    stretched.long(1 << 20, 1 << 20, 0, 0, 1)
    stretched.begin("torch.FloatStorage")
    stretched.long(1)
    stretched.content += bytes(4)
    text = b"\x02\0\0\0\xff\xff\xff\x7fabc"
    table = b"\x03\0\0\0\x01\0\0\0\xff\xff\xff\x7f"
    deep = b"".join(b"\x03\0\0\0" + i.to_bytes(4, "little") + b"\x01\0\0\0\x05\0\0\0\0\0\0\0" for i in range(5000))
    lies = {"storage": storage.content, "tensor": tensor.content, "stretched": stretched.content}
    return {**{name: bytes(content) for name, content in lies.items()}, "text": text, "table": table, "deep": deep}


@pytest.mark.parametrize("name", torch7_lies())
def test_lengths_in_torch7_are_not_believed(name: str) -> None:
    content = torch7_lies()[name]
    assert peak(lambda: read_torch7(content)) < 10_000_000
