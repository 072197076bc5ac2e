"""Layers as functions of a state dict, to write a published network down a second time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = Mapping[str, Tensor]


def randomise(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights, statistics, slopes and shifts as training leaves them, no two alike; the state dict, in double."""
    torch.manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.normal_(0, 0.3)
        elif tensor.ndim > 1:
            nn.init.kaiming_normal_(tensor)
    return network.double().eval().state_dict()


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """Batch normalisation by the running statistics, by its formula; scale and shift where there are any."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance = state[f"{name}.running_mean"].view(shape), state[f"{name}.running_var"].view(shape)
    x = (x - mean) / (variance + 1e-5).sqrt()
    if f"{name}.weight" in state:
        x = x * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)
    return x


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """A convolution, with a bias where there is one."""
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding, groups=groups)


def prelu(state: State, name: str, x: Tensor) -> Tensor:
    """PReLU by its definition."""
    return x.clamp_min(0) + state[f"{name}.weight"][:, None, None] * x.clamp_max(0)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the size of the features, which are not all alike."""
    assert actual.shape == expected.shape
    assert expected.std(dim=0).min() > 0
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
