from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from facedan_cli.alignment.mtcnn_pooling import MaxPool


@given(st.sampled_from([2, 3]), st.integers(3, 20), st.integers(3, 20), st.booleans())
def test_maxima_are_those_of_pytorch(size: int, height: int, width: int, channels_last: bool) -> None:
    inputs = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(0))
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    untouched = inputs.clone()
    assert torch.equal(MaxPool(size)(inputs), nn.MaxPool2d(size, 2, ceil_mode=True)(inputs))
    assert torch.equal(inputs, untouched)


@pytest.mark.parametrize("size", [2, 3])
def test_channels_stay_last(size: int) -> None:
    inputs = torch.randn(2, 5, 25, 46).contiguous(memory_format=torch.channels_last)
    assert MaxPool(size)(inputs).is_contiguous(memory_format=torch.channels_last)
