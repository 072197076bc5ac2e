from __future__ import annotations

import torch
from functional import State, assert_same, conv, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models.dlib_resnet import dlib_resnet

# dnn_face_recognition_ex.cpp's anet_type from the image on: levels 4 to 0.
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
DOWN = (3, 7, 10, 13)


def published(state: State, x: Tensor) -> Tensor:
    """The network as dlib's example has it, from a state dict."""

    def scaled(name: str, x: Tensor) -> Tensor:
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    x = F.max_pool2d(scaled("scale1", conv(state, "conv1", x, stride=2)).relu(), 3, stride=2)
    for number, width in enumerate(WIDTHS):
        block = f"blocks.{number}"
        y = conv(state, f"{block}.conv1", x, *((2, 0) if number in DOWN else (1, 1)))
        y = scaled(f"{block}.scale2", conv(state, f"{block}.conv2", scaled(f"{block}.scale1", y).relu(), padding=1))
        if number in DOWN:
            x = F.avg_pool2d(x, 2)
        total = x.new_zeros(len(x), width, max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3]))
        for term in (x, y):  # what one lacks of the other's size is zero
            total[:, : term.shape[1], : term.shape[2], : term.shape[3]] += term
        x = total.relu()
    return x.mean((2, 3)) @ state["fc.weight"].T


def test_it_computes_what_the_published_network_computes() -> None:
    network = dlib_resnet()
    state = randomise(network)
    images = torch.randn(2, 3, 150, 150, dtype=torch.float64)
    with torch.no_grad():
        assert_same(network(images), published(state, images))
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_614_592


def test_random_weights_give_signals_of_even_strength_through_the_depth() -> None:
    torch.manual_seed(0)
    network, spreads = dlib_resnet(), []
    for block in network.blocks:
        block.register_forward_hook(lambda _, __, out: spreads.append(out.std().item()))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(2):  # after the first step blocks are more than their shortcuts
        optimizer.zero_grad()
        network(torch.randn(2, 3, 150, 150)).square().sum().backward()
        optimizer.step()
    assert max(spreads) / min(spreads) < 30
    scales = [parameter for name, parameter in network.named_parameters() if name.endswith("scale2.weight")]
    assert len(scales) == 14
    assert all(scale.abs().max() > 0 for scale in scales)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 29
