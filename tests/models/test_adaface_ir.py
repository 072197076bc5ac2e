from __future__ import annotations

import pytest
import torch
from functional import State, assert_same, conv, norm, prelu, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models import adaface_ir
from facedan_cli.models.dropout import set_batch_rows

UNITS = {"ir18": (2, 2, 2, 2), "ir34": (3, 4, 6, 3), "ir50": (3, 4, 14, 3), "ir101": (3, 13, 30, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def strides_and_changes(units: tuple[int, ...]) -> list[tuple[int, bool]]:
    """Of each unit its stride, and whether its width is another than the one before."""
    return [(2, stage > 0) if unit == 0 else (1, False) for stage, depth in enumerate(units) for unit in range(depth)]


def published(state: State, x: Tensor, units: tuple[int, ...]) -> Tensor:
    """The network as AdaFace's net.py has it, from a state dict, before the feature is divided by its norm."""
    x = prelu(state, "input_layer.2", norm(state, "input_layer.1", conv(state, "input_layer.0", x, padding=1)))
    for number, (stride, changes) in enumerate(strides_and_changes(units)):
        inner, shortcut = f"body.{number}.res_layer", f"body.{number}.shortcut_layer"
        y = conv(state, f"{inner}.1", norm(state, f"{inner}.0", x), padding=1)
        y = prelu(state, f"{inner}.3", norm(state, f"{inner}.2", y))
        y = norm(state, f"{inner}.5", conv(state, f"{inner}.4", y, stride, padding=1))
        if changes:
            x = norm(state, f"{shortcut}.1", conv(state, f"{shortcut}.0", x, stride))
        else:
            x = x[:, :, ::stride, ::stride]
        x = x + y
    x = norm(state, "output_layer.0", x).flatten(1)
    return norm(state, "output_layer.4", F.linear(x, state["output_layer.3.weight"], state["output_layer.3.bias"]))


def published_names(units: tuple[int, ...]) -> set[str]:
    norms, others = {"input_layer.1", "output_layer.0"}, {"input_layer.0", "input_layer.2"}
    for number, (_, changes) in enumerate(strides_and_changes(units)):
        unit = f"body.{number}"
        norms |= {f"{unit}.res_layer.{place}" for place in (0, 2, 5)}
        others |= {f"{unit}.res_layer.{place}" for place in (1, 3, 4)}
        if changes:
            norms.add(f"{unit}.shortcut_layer.1")
            others.add(f"{unit}.shortcut_layer.0")
    names = {f"{norm}.{kind}" for norm in norms for kind in STATISTICS} | {f"{name}.weight" for name in others}
    names |= {f"output_layer.4.{kind}" for kind in STATISTICS[2:]}  # without scale and shift
    return names | {"output_layer.3.weight", "output_layer.3.bias"}


def test_it_computes_what_the_published_network_computes() -> None:
    network = adaface_ir.ir18()
    state = randomise(network)
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        features = network(images)
    assert_same(features, published(state, images, UNITS["ir18"]))
    assert features.norm(dim=1).std() > 0  # not normalised: the norm says how good an image is


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ir18", 24_020_352), ("ir34", 34_134_080), ("ir50", 43_585_600), ("ir101", 65_150_912)],
)
def test_names_and_numbers_of_parameters_are_the_publishers(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = getattr(adaface_ir, name)()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert set(network.state_dict()) == published_names(UNITS[name])


def test_dropout_is_that_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    network = adaface_ir.ir18().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()  # only dropout is under test
    images = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        whole = network(images)
        assert not torch.equal(network(images), whole)
        torch.manual_seed(1)
        whole, parts = network(images), []
        for row in (0, 1):
            set_batch_rows(network.modules(), torch.tensor([row]), 2)
            torch.manual_seed(1)
            parts.append(network(images[row : row + 1]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())
