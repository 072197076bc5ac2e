from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from classes_over_ranks import BATCH, CLASSES, RATES, SMOOTHING, STEP, Rank, batch, classify_together
from hypothesis import given
from hypothesis import strategies as st
from processes import run_together
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, optim

from facedan_cli.config.heads import HEADS
from facedan_cli.distributed import shard_range
from facedan_cli.models.classifier import Classifier
from facedan_cli.training.classification import (
    classification_loss,
    gather_classes,
    load_classifier,
    load_shard,
    sample_classes,
)

Shares = list[dict[str, Tensor]]


def slow_step(
    head: str, *, smoothing: float = 0.0, classes: Sequence[int] = range(CLASSES), kept: Tensor | None = None
) -> dict[str, Tensor]:
    """Value and gradients of the whole batch with all classes in one place, score by score."""
    parameters = {name: value.requires_grad_() for name, value in batch().items() if name not in ("inputs", "labels")}
    inputs, labels = batch()["inputs"], batch()["labels"].tolist()
    features = inputs @ parameters["network"]
    if kept is not None:
        features = features * kept
    losses, recognised, seen = [], 0, dict[str, Tensor]()
    for x, label in zip(features, labels, strict=True):
        plain, scores = [], []
        for number in classes:
            w, own = parameters["weight"][number], number == label
            cosine = x @ w / (x.norm() * w.norm())
            theta = cosine.acos()
            if head == "softmax":
                score = lowered = x @ w + parameters["bias"][number]
            elif head == "arcface":
                beyond = theta + 0.5 > math.pi
                score, lowered = 64 * cosine, 64 * (cosine - 0.5 * math.sin(0.5) if beyond else (theta + 0.5).cos())
            elif head == "cosface":
                score, lowered = 64 * cosine, 64 * (cosine - 0.35)
            elif head == "adaface":
                norms = features.detach().norm(dim=1)
                seen = {"norm_mean": 0.99 * 20 + 0.01 * norms.mean(), "norm_std": 0.99 * 100 + 0.01 * norms.std()}
                quality = 0.33 * (x.detach().norm() - seen["norm_mean"]) / (seen["norm_std"] + 1e-3)
                score, lowered = 64 * cosine, 64 * ((theta - 0.4 * quality).cos() - 0.4 - 0.4 * quality)
            else:
                k = int(4 * theta.item() / math.pi)
                blend = max(5, 1000 / (1 + 0.12 * STEP))
                psi = (-1) ** k * (4 * theta).cos() - 2 * k
                score, lowered = x.norm() * cosine, x.norm() * (blend * cosine + psi) / (1 + blend)
            plain.append(score.item())
            scores.append(lowered if own else score)
        recognised += classes[plain.index(max(plain))] == label
        logs = [score - torch.stack(scores).logsumexp(0) for score in scores]
        wanted = [(1 - smoothing) * (number == label) + smoothing / len(classes) for number in classes]
        losses.append(-sum(share * log for share, log in zip(wanted, logs, strict=True)))
    value = torch.stack(losses).mean()
    if head != "softmax":
        del parameters["bias"]
    gradients = torch.autograd.grad(value, list(parameters.values()))
    accuracy = torch.tensor(recognised / BATCH, dtype=torch.float64)
    return {"value": value.detach(), "accuracy": accuracy, **dict(zip(parameters, gradients, strict=True)), **seen}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], rows: range | None = None) -> None:
    """To rounding; of what has a row for each class, those that a process holds."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        held = value if rows is None or name not in ("weight", "bias", "momentum") else value[rows.start : rows.stop]
        torch.testing.assert_close(
            found[name], held, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two and three processes wrote."""
    root = tmp_path_factory.mktemp("ranks")
    for parts in ("2", "3"):
        (root / parts).mkdir()
        save_file(whole_state(), root / parts / "whole.safetensors")
    run_together(classify_together, 3, root)
    return root


@pytest.fixture(scope="module", params=[2, 3])
def shares(request: pytest.FixtureRequest, ranks: Path) -> Shares:
    """What each of two and of three processes found."""
    parts = request.param
    return [load_file(ranks / str(parts) / f"found{part}.safetensors") for part in range(parts)]


def whole_state() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(6)
    shapes = {"classifier.weight": (CLASSES, 6), "classifier.bias": (CLASSES,), "momentum": (CLASSES, 6)}
    return {key: torch.randn(*shape, generator=random, dtype=torch.float64) for key, shape in shapes.items()}


def case(found: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}


@pytest.mark.parametrize("head", HEADS)
def test_one_process_has_the_loss_of_the_formula(head: str) -> None:
    expected = slow_step(head, smoothing=SMOOTHING[head])
    assert_same(Rank(0, 1, head=head).step(smoothing=SMOOTHING[head]), expected)
    assert_same(Rank(0, 1, head=head).step(smoothing=SMOOTHING[head], calls=3), expected)


@pytest.mark.parametrize("calls", ["", "-calls"])
@pytest.mark.parametrize("head", HEADS)
def test_sharded_classes_have_the_loss_of_whole_ones(shares: Shares, head: str, calls: str) -> None:
    expected = slow_step(head, smoothing=SMOOTHING[head])
    for part, found in enumerate(shares):
        assert_same(case(found, f"{head}-True{calls}"), expected, shard_range(CLASSES, part, len(shares)))
        assert_same(case(found, f"{head}-False{calls}"), expected)


@pytest.mark.parametrize("sharded", [True, False])
def test_dropout_is_that_of_the_whole_batch(shares: Shares, sharded: bool) -> None:
    torch.manual_seed(1)
    expected = slow_step("softmax", kept=2.0 * (torch.rand(BATCH, 6) >= 0.5))
    for part, found in enumerate(shares):
        assert_same(
            case(found, f"dropped-{sharded}"), expected, shard_range(CLASSES, part, len(shares)) if sharded else None
        )


@pytest.mark.parametrize("head", ["arcface", "adaface"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sharded", [True, False])
def test_of_sampled_classes_it_is_the_loss_among_these(shares: Shares, sharded: bool, rate: float, head: str) -> None:
    found = [case(each, f"sampled{rate}-{sharded}-{head}") for each in shares]
    taken = [each.pop("classes").tolist() for each in found]
    classes = sorted({number for numbers in taken for number in numbers})
    labels = set(batch()["labels"].tolist())
    assert (labels < set(classes) < set(range(CLASSES))) if rate == 0.5 else (labels == set(classes))
    expected = slow_step(head, smoothing=0.1, classes=classes)
    for part, each in enumerate(found):
        rows = shard_range(CLASSES, part, len(shares)) if sharded else range(CLASSES)
        assert taken[part] == [number for number in classes if number in rows]
        assert_same(each, expected, rows)


@pytest.mark.parametrize("sharded", [True, False])
def test_the_first_process_saves_what_one_alone_would(shares: Shares, sharded: bool) -> None:
    alone = Rank(0, 1, head="cosface")
    weight = alone.classifier.weight
    optimizer = optim.SGD([alone.network, weight], lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        alone.step()
        optimizer.step()
    momentum = optimizer.state[weight]["momentum_buffer"]
    expected = {"weight": weight.detach(), "momentum": momentum, "count": torch.tensor(3.0)}
    assert_same(case(shares[0], f"trained-{sharded}"), expected)
    assert [case(found, f"trained-{sharded}") for found in shares[1:]] == [{}] * (len(shares) - 1)


def test_each_process_reads_its_shard(shares: Shares) -> None:
    expected = {key.removeprefix("classifier."): value for key, value in whole_state().items()}
    for part, found in enumerate(shares):
        assert_same(case(found, "read"), expected, shard_range(CLASSES, part, len(shares)))


def test_one_process_saves_and_reads_all(tmp_path: Path) -> None:
    written, read = Classifier(6, CLASSES), Classifier(6, CLASSES)
    tensors = {"step": torch.tensor(7.0)}
    for key, value in written.state_dict().items():
        gathered = gather_classes(written, value)
        assert gathered is not None
        tensors[f"classifier.{key}"] = gathered
    before = written.weight.detach().clone()
    torch.nn.init.zeros_(written.weight)  # what was gathered is a copy
    save_file(tensors, tmp_path / "s")
    with safe_open(tmp_path / "s", framework="pt") as file:
        load_classifier(read, file)
        assert float(load_shard(read, file, "step")) == 7
        with pytest.raises(ValueError, match=r"classifier\.weight is of 10 classes, not 11"):
            load_classifier(Classifier(6, 11), file)
        with pytest.raises(RuntimeError, match="size mismatch"):
            load_classifier(Classifier(5, CLASSES), file)
    assert torch.equal(read.weight, before)


@given(st.integers(0, 9), st.integers(1, 99), st.floats(0.01, 0.99), st.lists(st.integers(0, 49), min_size=1))
def test_the_labels_classes_take_part_and_the_same_others_however_they_are_sharded(
    seed: int, step: int, rate: float, labels: list[int]
) -> None:
    def taken(own: range) -> list[int]:
        torch.manual_seed(0)
        model = Classifier(2, 50, local_classes=own)  # no process group: the labels are all there are
        sampled = sample_classes(model, torch.tensor(labels), rate=rate, seed=seed, step=step)
        assert sampled is not None
        return [own.start + number for number in sampled.tolist()]

    whole = taken(range(50))
    assert set(labels) <= set(whole) <= set(range(50))
    assert whole == sorted(set(whole))
    assert [number for part in range(3) for number in taken(shard_range(50, part, 3))] == whole


def test_every_step_takes_other_classes_each_as_often_as_asked() -> None:
    model, labels = Classifier(2, 50), torch.tensor([3])
    counts = torch.zeros(50)
    for step in range(1, 401):
        sampled = sample_classes(model, labels, rate=0.2, seed=0, step=step)
        assert sampled is not None
        counts[sampled] += 1
    assert counts[3] == 400
    others = torch.cat([counts[:3], counts[4:]]) / 400
    assert float(others.mean()) == pytest.approx(0.2, abs=0.01)
    assert 0.12 < float(others.min()) < float(others.max()) < 0.28  # σ is 0.02
    first, second = (sample_classes(model, labels, rate=0.5, seed=seed, step=1) for seed in (0, 1))
    assert first is not None
    assert second is not None
    assert first.tolist() != second.tolist()


def test_a_class_that_is_left_out_has_no_gradient() -> None:
    rank = Rank(0, 1, head="cosface")
    sampled = sample_classes(rank.classifier, rank.labels, rate=0.7, seed=0, step=1)
    assert sampled is not None
    gradient = rank.step(sampled=sampled)["weight"]
    left_out = sorted(set(range(CLASSES)) - set(sampled.tolist()))
    assert left_out
    assert (gradient[left_out] == 0).all()
    assert (gradient[sampled] != 0).any(1).all()


def test_all_classes_take_part_by_default_and_a_share_must_be_one() -> None:
    model, labels = Classifier(2, 9), torch.tensor([3])
    assert sample_classes(model, labels, rate=1.0, seed=0, step=1) is None
    for rate in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share of classes"):
            sample_classes(model, labels, rate=rate, seed=0, step=1)


def test_accuracy_is_without_margin() -> None:
    model = Classifier(2, 2, head="arcface")
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    x, labels = torch.tensor([[1.0, 0.9], [0.9, 1.0]]), torch.tensor([0, 0])
    found = classification_loss(model, x, labels, batch=2)
    assert float(found.accuracy) == 0.5
    lowered = model.add_margin(model(x), torch.arange(2), labels, x, 1)
    assert (lowered.argmax(1) == 1).all()
