from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from facedan_cli.config.heads import HEADS
from facedan_cli.models.classifier import Classifier, adaface, arcface, sphereface

FIXED = ("arcface", "cosface", "sphereface")
ANGULAR = (*FIXED, "adaface")


def classifier(head: str, **settings: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(6, 9, head=head, **settings).double()


def features(count: int, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angle(x: Tensor, w: Tensor) -> float:
    dot, lengths = float(x @ w), float(x.square().sum().sqrt()) * float(w.square().sum().sqrt())
    return math.acos(dot / lengths)


def slow_score(head: str, x: Tensor, w: Tensor, b: float) -> float:
    if head == "softmax":
        return sum(float(p) * float(q) for p, q in zip(x, w, strict=True)) + b
    length = math.sqrt(sum(float(p) ** 2 for p in x))
    return (length if head == "sphereface" else 64.0) * math.cos(angle(x, w))


def slow_margin(head: str, theta: float, step: int) -> float:
    if head == "arcface":
        return math.cos(theta + 0.5) if theta + 0.5 <= math.pi else math.cos(theta) - 0.5 * math.sin(0.5)
    if head == "cosface":
        return math.cos(theta) - 0.35
    k = next(k for k in range(4) if k * math.pi / 4 <= theta <= (k + 1) * math.pi / 4)
    psi = (-1) ** k * math.cos(4 * theta) - 2 * k
    blend = max(5, 1000 / (1 + 0.12 * step))
    return (blend * math.cos(theta) + psi) / (1 + blend)


@pytest.mark.parametrize("head", HEADS)
def test_scores_are_those_of_the_head(head: str) -> None:
    model, x = classifier(head), features(5)
    if model.bias is not None:
        torch.nn.init.normal_(model.bias)
    biases = torch.zeros(9) if model.bias is None else model.bias.detach()
    expected = [
        [slow_score(head, row, w, float(b)) for w, b in zip(model.weight.detach(), biases, strict=True)] for row in x
    ]
    torch.testing.assert_close(model(x).detach(), torch.tensor(expected, dtype=torch.float64))
    some = torch.tensor([1, 4, 8])
    torch.testing.assert_close(model.scores(x, some), model(x)[:, some])


@pytest.mark.parametrize("step", [1, 500, 10_000])
@pytest.mark.parametrize("head", FIXED)
def test_the_margin_lowers_the_score_of_the_own_class_alone(head: str, step: int) -> None:
    model, x = classifier(head), features(40)
    with torch.no_grad():
        model.weight.copy_(features(9, seed=3))
        x[0] = -model.weight[2] + 0.1 * x[0]  # beyond π − m
    rows, columns = torch.arange(0, 40, 2), torch.arange(20) % 9
    columns[0] = 2
    before = model(x).detach()
    after = model.add_margin(model(x), rows, columns, x, step).detach()
    expected = before.clone()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        length = float(x[row].norm()) if head == "sphereface" else 64.0
        theta = angle(x[row], model.weight[column].detach())
        expected[row, column] = length * slow_margin(head, theta, step)
    torch.testing.assert_close(after, expected)
    assert (after <= before + 1e-12).all()


class PublishedAdaFace:
    """Algorithm of Kim et al. 2022 (eq. 11 to 14) in numpy, after the authors' code; state as there."""

    m, h, s, t_alpha, eps = 0.4, 0.33, 64.0, 0.01, 1e-3

    def __init__(self) -> None:
        self.batch_mean, self.batch_std = 20.0, 100.0

    def __call__(self, embeddings: np.ndarray, kernel: np.ndarray, label: list[int]) -> np.ndarray:
        norms = np.sqrt((embeddings**2).sum(1, keepdims=True))
        cosine = (embeddings / norms) @ (kernel / np.sqrt((kernel**2).sum(1, keepdims=True))).T
        cosine = cosine.clip(-1 + self.eps, 1 - self.eps)
        safe_norms = norms.clip(0.001, 100)
        self.batch_mean = safe_norms.mean() * self.t_alpha + (1 - self.t_alpha) * self.batch_mean
        self.batch_std = safe_norms.std(ddof=1) * self.t_alpha + (1 - self.t_alpha) * self.batch_std
        margin_scaler = ((safe_norms - self.batch_mean) / (self.batch_std + self.eps) * self.h).clip(-1, 1)
        own = np.eye(len(kernel))[label]
        theta_m = (np.arccos(cosine) + own * self.m * margin_scaler * -1).clip(self.eps, math.pi - self.eps)
        scores: np.ndarray = (np.cos(theta_m) - own * (self.m + self.m * margin_scaler)) * self.s
        return scores


def test_adaface_is_the_published_formula_over_several_steps() -> None:
    model, published = classifier("adaface"), PublishedAdaFace()
    for step in range(1, 40):
        x = features(12, seed=step) * torch.linspace(1e-4, 60, 12, dtype=torch.float64)[:, None]  # clipped at both ends
        x[3] = -model.weight[4].detach() * 1e4
        x[5] = model.weight[2].detach() * 900  # of high quality and at an angle of 0
        labels = [4, 8, 0, 4, 1, 2, 6, 7, 3, 3, 5, 0]
        model.observe(x.norm(dim=1))
        found = model.add_margin(model(x), torch.arange(12), torch.tensor(labels), x, step).detach().numpy()
        expected = published(x.numpy(), model.weight.detach().numpy(), labels)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert float(model.norm_mean) == pytest.approx(published.batch_mean)
    assert float(model.norm_std) == pytest.approx(published.batch_std)


def test_adaface_asks_more_of_the_cosine_where_the_norm_is_high() -> None:
    cosine = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    low, middle, high = adaface(cosine, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), 0.4).tolist()
    theta = math.acos(0.3)
    assert (low, middle, high) == pytest.approx((math.cos(theta + 0.4), 0.3 - 0.4, math.cos(theta - 0.4) - 0.8))


def test_softmax_has_no_margin() -> None:
    model, x = classifier("softmax"), features(3)
    some = torch.tensor([0, 1])
    assert torch.equal(model.add_margin(model(x), some, some, x, 1), model(x))


def test_sphereface_begins_without_margin_and_ends_with_a_sixth_of_it() -> None:
    cosine = torch.tensor([0.3], dtype=torch.float64)
    plain, full = 0.3, slow_margin("sphereface", math.acos(0.3), 10**9) * 6 - 5 * 0.3
    assert float(sphereface(cosine, 4, 1)) == pytest.approx(plain, abs=0.01)
    assert float(sphereface(cosine, 4, 10**6)) == pytest.approx((5 * plain + full) / 6)
    assert full == pytest.approx(-math.cos(4 * math.acos(0.3)) - 2)


@given(st.floats(0.01, math.pi), st.floats(0.001, 0.5), st.integers(1, 10**5))
def test_what_stands_for_the_cosine_falls_with_the_angle(theta: float, more: float, step: int) -> None:
    nearer, farther = torch.tensor([theta, min(math.pi, theta + more)], dtype=torch.float64).cos()
    for margin in (0.2, 0.5, 1.0):
        assert float(arcface(farther, margin)) <= float(arcface(nearer, margin)) + 1e-9
    for multiple in (1, 2, 3, 4):
        assert float(sphereface(farther, multiple, step)) <= float(sphereface(nearer, multiple, step)) + 1e-9


@pytest.mark.parametrize("head", ANGULAR)
def test_gradients_are_those_of_the_formula(head: str) -> None:
    model, rows = classifier(head, **({} if head == "sphereface" else {"scale": 2.0})), torch.arange(4)

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        scores = torch.func.functional_call(model, {"weight": weight}, (x,))
        return model.add_margin(scores, rows, torch.tensor([3, 0, 8, 3]), x, 400, norms)

    norms = torch.tensor([1.0, 3.0, 40.0, 90.0])  # no gradient goes through the quality
    weight = features(9, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(loss, (features(4, seed=5).requires_grad_(), weight))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("head", ANGULAR)
def test_gradients_are_finite_where_the_angle_is_0_or_pi_or_there_is_none(head: str, autocast: bool) -> None:
    model = Classifier(6, 3, head=head)
    with torch.no_grad():
        x = torch.stack([model.weight[0] * 7, -model.weight[1] * 9, torch.zeros(6)])
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        scores = model.add_margin(model(x), torch.arange(3), torch.arange(3), x, 10**4)
    scores.logsumexp(1).sum().backward()
    assert scores.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert model.weight.grad is not None
    assert model.weight.grad.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_scores_have_full_precision_under_autocast(head: str) -> None:
    model, x = classifier(head).float(), features(4).float()
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(x)
    assert scores.dtype == torch.float32
    if head in ANGULAR:
        assert torch.equal(scores, model(x))


@given(st.integers(1, 5), st.integers(5, 3000))
def test_initial_weights_do_not_depend_on_how_classes_are_sharded(parts: int, classes: int) -> None:
    def drawn(own: range | None) -> Classifier:
        torch.manual_seed(11)
        return Classifier(2, classes, local_classes=own)

    whole = drawn(None)
    shards = [drawn(range(classes * part // parts, classes * (part + 1) // parts)) for part in range(parts)]
    assert torch.equal(torch.cat([shard.weight for shard in shards]), whole.weight)
    assert [shard.sharded for shard in shards] == [parts > 1] * parts
    assert not whole.sharded


def test_initial_weights_are_small_and_all_different() -> None:
    torch.manual_seed(0)
    first, second = Classifier(8, 3000), Classifier(8, 3000)
    assert first.weight.mean().item() == pytest.approx(0, abs=3e-4)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert len(torch.cat([first.weight, second.weight]).detach().unique(dim=0)) == 6000
    with torch.device("meta"):
        assert Classifier(8, 3000).weight.is_meta


def test_only_softmax_has_a_bias() -> None:
    assert {head: set(classifier(head).state_dict()) for head in HEADS} == {
        "softmax": {"weight", "bias"},
        **{head: {"weight"} for head in FIXED},
        "adaface": {"weight", "norm_mean", "norm_std"},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "arcfase"}, "no head 'arcfase'"),
        ({"margin": 0.5}, "'softmax' has no margin"),
        ({"scale": 64.0}, "'softmax' has no scale"),
        ({"head": "sphereface", "scale": 30.0}, "'sphereface' has no scale"),
        ({"head": "sphereface", "margin": 1.5}, "1.5 is no margin"),
        ({"head": "sphereface", "margin": 0}, "0 is no margin"),
        ({"head": "arcface", "margin": 4.0}, "4.0 is no margin"),
        ({"head": "cosface", "margin": math.nan}, "nan is no margin"),
        ({"head": "cosface", "scale": 0.0}, "scale must be a positive number"),
        ({"local_classes": range(2, 2)}, "9 classes cannot be sharded"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(6, 9, **settings)
