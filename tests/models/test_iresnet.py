from __future__ import annotations

import pytest
import torch
from functional import State, assert_same, conv, norm, prelu, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models import iresnet
from facedan_cli.models.dropout import BatchDropout

BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published(state: State, x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """The network as arcface_torch's iresnet.py has it, from a state dict."""
    x = prelu(state, "prelu", norm(state, "bn1", conv(state, "conv1", x, padding=1)))
    for stage, depth in enumerate(blocks, start=1):
        for number in range(depth):
            block, stride = f"layer{stage}.{number}", 2 if number == 0 else 1
            y = conv(state, f"{block}.conv1", norm(state, f"{block}.bn1", x), padding=1)
            y = prelu(state, f"{block}.prelu", norm(state, f"{block}.bn2", y))
            y = norm(state, f"{block}.bn3", conv(state, f"{block}.conv2", y, stride, padding=1))
            if number == 0:
                x = norm(state, f"{block}.downsample.1", conv(state, f"{block}.downsample.0", x, stride))
            x = x + y
    x = norm(state, "bn2", x).flatten(1)
    return norm(state, "features", F.linear(x, state["fc.weight"], state["fc.bias"]))


def published_names(blocks: tuple[int, ...]) -> set[str]:
    norms, convolutions, slopes = {"bn1", "bn2", "features"}, {"conv1"}, {"prelu"}
    for stage, depth in enumerate(blocks, start=1):
        for number in range(depth):
            block = f"layer{stage}.{number}"
            norms |= {f"{block}.bn{i}" for i in (1, 2, 3)} | ({f"{block}.downsample.1"} if number == 0 else set())
            convolutions |= {f"{block}.conv1", f"{block}.conv2"} | ({f"{block}.downsample.0"} if number == 0 else set())
            slopes.add(f"{block}.prelu")
    names = {f"{norm}.{kind}" for norm in norms for kind in STATISTICS}
    return names | {f"{name}.weight" for name in convolutions | slopes} | {"fc.weight", "fc.bias"}


def test_it_computes_what_the_published_network_computes() -> None:
    network = iresnet.iresnet18()
    state = randomise(network)
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        assert_same(network(images), published(state, images, BLOCKS["iresnet18"]))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("iresnet18", 24_025_600),
        ("iresnet34", 34_139_328),
        ("iresnet50", 43_590_848),
        ("iresnet100", 65_156_160),
        ("iresnet200", 118_833_920),
    ],
)
def test_names_and_numbers_of_parameters_are_the_publishers(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = getattr(iresnet, name)()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert set(network.state_dict()) == published_names(BLOCKS[name])


def test_it_starts_and_trains_as_the_publisher_does() -> None:
    torch.manual_seed(0)
    network = iresnet.iresnet18()
    deviations = [module.weight.std().item() for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(abs(deviation - 0.1) < 0.01 for deviation in deviations)
    assert torch.equal(network.features.weight, torch.ones(512))
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == [
        "features.weight"
    ]
    assert isinstance(network.dropout, BatchDropout)
