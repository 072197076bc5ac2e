from __future__ import annotations

import copy

import normalised
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models.backbone import Backbone
from facedan_cli.models.batch_norm import Moments, batch_norms, batch_statistics, set_statistics, statistics_of


def body(seed: int = 0) -> nn.Module:
    """With running statistics and weights that are not the initial ones; no dropout."""
    torch.manual_seed(seed)
    made = normalised.body()
    made[7].p = 0.0  # type: ignore[index, assignment]
    for layer in batch_norms(made).values():
        for value in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
            assert value is not None
            value.data.uniform_(0.5, 2)
    return made


def images(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def by_hand(layer: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both domains by the formula with the source's statistics, in float64."""
    over = [0, *range(2, source.dim())]
    mean, variance = source.double().mean(over, keepdim=True), source.double().var(over, keepdim=True, correction=0)
    shape = mean.shape
    weight, bias = layer.weight.double().view(shape), layer.bias.double().view(shape)  # type: ignore[operator, union-attr]
    return tuple((x.double() - mean) / (variance + layer.eps).sqrt() * weight + bias for x in (source, target))  # type: ignore


def test_source_rows_alone_give_the_statistics() -> None:
    layer = batch_norms(body())["4"]
    x = torch.randn(7, 6, 3, 3) * 3 + 1
    with batch_statistics(4, 7):
        y = layer(x)
    expected = torch.cat(by_hand(layer, x[:4], x[4:]))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_running_statistics_follow_as_those_of_the_source_alone_would() -> None:
    one, other = body(), body()
    x = images(9)
    with batch_statistics(5, 9):
        together = one(x)
    alone = other(x[:5])
    torch.testing.assert_close(together[:5], alone, rtol=1e-4, atol=1e-5)
    for path, layer in batch_norms(one).items():
        for value, reference in zip(layer.buffers(), batch_norms(other)[path].buffers(), strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_through_the_statistics() -> None:
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def normalised_by_source(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with batch_statistics(4, 6, follow=False):
            return F.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5)

    assert torch.autograd.gradcheck(normalised_by_source, (x, weight, bias))


def test_all_rows_are_ordinary_batch_normalisation() -> None:
    one, other, x = body(), body(), images(6)
    with batch_statistics(6, 6):
        assert torch.equal(one(x), other(x))
    with batch_statistics(6, 6, follow=False):
        before = copy.deepcopy(one.state_dict())
        torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-5)
    counted = {key for key in before if key.endswith("num_batches_tracked")}
    assert all(torch.equal(before[key], value) for key, value in one.state_dict().items() if key not in counted)


def test_layers_in_evaluation_mode_keep_their_statistics() -> None:
    network, x = body().eval(), images(6)
    expected = network(x)
    with batch_statistics(3, 6):
        assert torch.equal(network(x), expected)


def test_half_precision_has_statistics_of_full_precision() -> None:
    x = (torch.randn(8, 6, 3, 3) * 4 + 20).to(torch.bfloat16)
    layer = batch_norms(body())["4"]
    with batch_statistics(5, 8):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    expected = torch.cat(by_hand(layer, x[:5], x[5:]))
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)


def test_one_value_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="no variance"), batch_statistics(1, 3):
        batch_norms(body())["9"](torch.randn(3, 8))


def slow_reference(network: nn.Module, x: Tensor) -> None:
    """Layer by layer: all images through the layers before it, which have their new statistics already."""
    for layer in batch_norms(network).values():
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].double()))
        with torch.no_grad():
            network.eval()(x)
        hook.remove()
        over = [0, *range(2, seen[0].dim())]
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(seen[0].mean(over))
        layer.running_var.copy_(seen[0].var(over))


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of running statistics, in standard deviations and as a ratio of variances."""
    worst = 0.0
    for path, layer in batch_norms(one).items():
        reference = batch_norms(other)[path]
        scale = reference.running_var.sqrt()  # type: ignore[union-attr]
        moved = ((layer.running_mean - reference.running_mean) / scale).abs().max()  # type: ignore[operator]
        worst = max(worst, float(moved), float((layer.running_var / reference.running_var - 1).abs().max()))  # type: ignore[operator]
    return worst


def test_estimated_statistics_are_those_of_a_slow_reference() -> None:
    x = images(240) * torch.linspace(0.5, 2, 240).view(-1, 1, 1, 1)  # batches that differ
    x = x[torch.randperm(240, generator=torch.Generator().manual_seed(1))]
    network, reference = body(), body()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    slow_reference(reference, x)
    whole = statistics_of(network, [x])
    divided = statistics_of(network.train(), [*x[:230].split(46), x[230:]])
    assert network.training
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    untouched = distance(network, reference)
    set_statistics(network, whole)
    assert distance(network, reference) < 1e-3  # a batch is normalised by its biased variance
    set_statistics(network, divided)
    assert distance(network, reference) < 0.1 < untouched
    torch.testing.assert_close(divided["1"].mean, whole["1"].mean, rtol=1e-6, atol=1e-7)  # no layer before it
    torch.testing.assert_close(divided["1"].variance, whole["1"].variance, rtol=1e-6, atol=1e-7)


def test_statistics_can_be_mixed_with_the_old_ones() -> None:
    layer = nn.BatchNorm1d(1)
    set_statistics(nn.Sequential(layer), {"0": Moments(torch.tensor([4.0]), torch.tensor([9.0]))}, 0.25)
    assert layer.state_dict()["running_mean"].item() == 1
    assert layer.state_dict()["running_var"].item() == 3


def test_the_modes_of_a_network() -> None:
    network = Backbone(body(), normalised.NAME, normalised.ENTRY, 3)
    x = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)

    def features(mode: str) -> Tensor:
        network.normalise_by(mode)
        network.train()
        with network.batch_statistics(4, len(x), follow=False):
            return network(x)["embedding"].detach()

    given = (x.float() - 127.5) / 127.5
    frozen, target = features("frozen"), features("target")
    assert torch.equal(frozen, copy.deepcopy(network.body).eval()(given))
    assert torch.equal(target, frozen)
    joint, source = features("joint"), features("source")
    torch.testing.assert_close(joint, copy.deepcopy(network.body).train()(given), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(source[:4], copy.deepcopy(network.body).train()(given[:4]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(source, joint, atol=1e-2)
