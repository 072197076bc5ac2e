from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.mmd import mk_mmd
from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.data.batches import BatchStream
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.dropout import set_batch_rows
from facedan_cli.models.vggface import Spec, VGGFace
from facedan_cli.report import Advance, Report
from facedan_cli.training.loop import DomainBatches, Validation, train
from facedan_cli.training.plan import Plan, learning_rate, make_optimizer
from facedan_cli.training.state import Checkpoints

SPEC = Spec(widths=(4, 4, 8, 8, 8), hidden=16, image_size=36, crop=32, scale=64.0, dropout=0.3)
IDENTITIES, BATCH, STEPS = 5, 6, 9
BANDWIDTHS = {"fc6": 20.0, "fc7": 5.0}


def penalty(**options: Any) -> Penalty:
    """A fresh one: it may remember batches."""
    settings = {"lambda_": 0.5, "layers": {"fc6": 1.0, "fc7": 1.0}, "bandwidths": BANDWIDTHS, **options}
    return Penalty(**settings)


PLAN = Plan(
    optimizer="sgd",
    lr=1e-3,
    backbone_lr_mult=1.0,
    classifier_lr_mult=10.0,
    schedule="onecycle",
    batch=BATCH,
    iterations=STEPS,
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.1,
    seed=3,
    checkpoint_every=2,
    log_every=1,
)
CARD = ModelCard("vggface-mini", tuple("abcde"), "adapt", "adapt-a-b-00000000", {})
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "adamw"},
    {"optimizer": "adamw", "backbone_lr_mult": 0.0},
]


@dataclass
class Drawn:
    """A stream of random images: as `BatchStream`, batch i is a function of i."""

    seed: int
    value: int | None = None

    def batches(self, start: int, stop: int, device: torch.device | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(1000 * self.seed + step)
            images = torch.randint(0, 256, (BATCH, 32, 32, 3), generator=generator, dtype=torch.uint8)
            labels = torch.randint(0, IDENTITIES, (BATCH,), generator=generator)
            yield (images if self.value is None else torch.full_like(images, self.value)).permute(0, 3, 1, 2), labels


class At(Report):
    """Does something after a step."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step = step
        self.action = action
        self.texts: list[str] = []

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        def advance(count: int, status: str) -> None:
            nonlocal done
            done += count
            self.texts.append(status)
            if done == self.step:
                self.action()

        yield advance


def raise_signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def break_down() -> None:
    raise RuntimeError("the process is gone")


def domains(*, target: bool = True, penalized: bool = True, value: int | None = None, **options: Any) -> DomainBatches:
    source, other = cast(BatchStream, Drawn(1, value)), cast(BatchStream, Drawn(2, value))
    return DomainBatches(source, other if target else None, penalty(**options) if target and penalized else None)


def network() -> VGGFace:
    torch.manual_seed(0)
    return VGGFace(SPEC, IDENTITIES).to(memory_format=torch.channels_last)


def run(directory: Path, plan: Plan = PLAN, data: DomainBatches | None = None, report: Report | None = None) -> VGGFace:
    """Train from the start, or from the state that lies in the directory."""
    trained = network()
    fit(trained, directory, plan, data, report)
    return trained


def fit(
    trained: VGGFace,
    directory: Path,
    plan: Plan = PLAN,
    data: DomainBatches | None = None,
    report: Report | None = None,
    validation: Validation | None = None,
    keep_every: int = 0,
) -> None:
    """Train a network that a test has its hands on."""
    directory.mkdir(exist_ok=True)
    with Checkpoints(directory, CARD, keep_every) as checkpoints:
        train(
            trained,
            data or domains(),
            plan,
            checkpoints=checkpoints,
            log=directory / "metrics.jsonl",
            validation=validation or Validation(),
            report=report or Report(),
        )


def metrics(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def same(one: VGGFace, other: VGGFace) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


DATA: list[dict[str, Any]] = [
    {},
    {"target": False},
    {"running": True},
    {"bandwidths": None},
    {"kernel_weights": "optimal"},
    {"memory_bank": 10},
    {"ramp": 20},
]
# What the optimiser and what the penalty remember are kept apart: every pair of values of the two says no more.
BROKEN = [(OPTIMIZERS[2], data) for data in DATA]
BROKEN += [(options, data) for options in (*OPTIMIZERS[:2], OPTIMIZERS[3]) for data in (DATA[0], DATA[5])]


@pytest.mark.parametrize(("options", "data"), BROKEN, ids=str)
def test_a_broken_run_goes_on_to_the_same_bits(tmp_path: Path, options: dict[str, Any], data: dict[str, Any]) -> None:
    plan = replace(PLAN, **options)
    whole = run(tmp_path / "whole", plan, domains(**data))
    for stop_at in (1, 4, 5, 8):  # before there is a state, right after one, and between two
        with pytest.raises(RuntimeError, match="gone"):
            run(tmp_path / "broken", plan, domains(**data), At(stop_at, break_down))
    assert same(run(tmp_path / "broken", plan, domains(**data)), whole)
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert [entry["step"] for entry in metrics(tmp_path / "whole")] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_signal_stops_after_the_step_and_keeps_it(tmp_path: Path, number: signal.Signals, stop_at: int) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=f"stopped at step {stop_at} of {STEPS}") as caught:
        run(tmp_path / "broken", report=At(stop_at, raise_signal(number)))
    assert caught.value.exit_code == 130
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert metrics(tmp_path / "broken")[-1]["step"] == stop_at
    progress = At(stop_at + 1, lambda: None)
    resumed = run(tmp_path / "broken", report=progress)
    assert len(progress.texts) == STEPS - stop_at  # no step is done twice
    assert same(resumed, run(tmp_path / "whole"))


def test_a_signal_in_the_last_step_has_nothing_to_stop(tmp_path: Path) -> None:
    assert same(run(tmp_path / "one", report=At(STEPS, raise_signal(signal.SIGTERM))), run(tmp_path / "two"))


def test_a_second_sigint_stops_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        raise_signal(signal.SIGINT)()
        raise_signal(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", report=At(3, twice))
    assert same(run(tmp_path / "broken"), run(tmp_path / "whole"))


@pytest.mark.parametrize("every", [{"checkpoint_every": 100}, {"log_every": 4}, {"checkpoint_every": 1}])
def test_saving_and_logging_do_not_change_the_result(tmp_path: Path, every: dict[str, Any]) -> None:
    assert same(run(tmp_path / "a", replace(PLAN, **every)), run(tmp_path / "b"))


def test_the_log_has_the_steps_asked_for_those_of_checkpoints_and_the_last(tmp_path: Path) -> None:
    run(tmp_path / "a", replace(PLAN, log_every=4, checkpoint_every=100))
    assert [entry["step"] for entry in metrics(tmp_path / "a")] == [4, 8, 9]
    run(tmp_path / "b", replace(PLAN, log_every=100, checkpoint_every=3))
    assert [entry["step"] for entry in metrics(tmp_path / "b")] == [3, 6, 9]


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, report=At(5, break_down))  # the state is of step 4
    log = tmp_path / "metrics.jsonl"
    with log.open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "los')  # killed while it wrote
    run(tmp_path)
    assert [entry["step"] for entry in metrics(tmp_path)] == list(range(1, STEPS + 1))


def test_without_a_state_a_run_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    run(tmp_path)
    assert [entry["step"] for entry in metrics(tmp_path)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_lambda_zero_is_training_on_the_same_batches_without_the_penalty(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    plan = replace(PLAN, **options)
    control = run(tmp_path / "control", plan, domains(lambda_=0.0))
    without = run(tmp_path / "without", plan, domains(penalized=False))
    assert same(control, without)
    assert not same(control, run(tmp_path / "adapted", plan))
    logged = metrics(tmp_path / "control")[-1]
    assert logged["loss"] == logged["classification"]
    assert logged["mmd2_fc7"] != 0  # measured, though it does not act


@pytest.mark.parametrize("backbone_lr_mult", [1.0, 0.5, 0.0])
def test_a_step_is_that_of_equation_4(tmp_path: Path, backbone_lr_mult: float) -> None:
    """Plain SGD written out: w ← w − rate·∂(L_c + λ Σ MMD²)/∂w, the classifier at ten times the rate."""
    plan = replace(
        PLAN,
        momentum=0.0,
        weight_decay=0.0,
        iterations=2,
        schedule="constant",
        lr=1e-2,
        backbone_lr_mult=backbone_lr_mult,
    )
    rates = {"conv": 1e-2 * backbone_lr_mult, "clas": 1e-1}
    trained = run(tmp_path, plan)
    slow = network().train()
    batches = zip(Drawn(1).batches(0, 2), Drawn(2).batches(0, 2), metrics(tmp_path), strict=True)
    for step, ((source, labels), (target, _), logged) in enumerate(batches, start=1):
        torch.manual_seed(PLAN.seed * 1_000_003 + step)
        set_batch_rows(slow.modules(), None, 2 * BATCH)  # the classifier's dropout too draws for both domains
        features = slow(torch.cat([source, target]))
        logits = slow.classifier(features["fc7"][:BATCH])
        classification = F.cross_entropy(logits, labels, label_smoothing=0.1)
        mmd = {
            layer: mk_mmd(rows[:BATCH], rows[BATCH:], bandwidth=BANDWIDTHS[layer], weights=(0.2,) * 5)
            for layer, rows in features.items()
        }
        loss = classification + 0.5 * (mmd["fc6"] + mmd["fc7"])
        slow.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, value in slow.named_parameters():
                assert value.grad is not None
                value.sub_(rates.get(name[:4], 1e-2) * value.grad)
        expected = {"loss": loss, "classification": classification, "mmd2_fc6": mmd["fc6"], "mmd2_fc7": mmd["fc7"]}
        expected["norm_fc7_target"] = features["fc7"][BATCH:].norm(dim=1).mean()
        expected["norm_fc6_source"] = features["fc6"][:BATCH].norm(dim=1).mean()
        expected["accuracy"] = (logits.argmax(1) == labels).float().mean()
        for key, value in expected.items():
            assert logged[key] == pytest.approx(value.item(), rel=1e-5, abs=1e-7), key
        assert logged["lr"] == 1e-2
    for found, expectation in zip(trained.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(found, expectation, rtol=1e-5, atol=1e-7)


def test_training_learns(tmp_path: Path) -> None:
    plan = replace(PLAN, optimizer="adamw", lr=1e-2, classifier_lr_mult=1.0, iterations=100, label_smoothing=0.0)

    class Same(Drawn):
        def batches(self, start: int, stop: int, device: torch.device | None = None) -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(start, stop):
                yield from super().batches(0, 1)

    run(tmp_path, plan, DomainBatches(cast(BatchStream, Same(1))))
    logged = metrics(tmp_path)
    assert logged[-1]["classification"] < 0.3 * logged[0]["classification"]
    assert logged[-1]["accuracy"] > 0.8


def test_a_loss_that_is_no_number_is_refused_with_its_step(tmp_path: Path) -> None:
    broken = network()

    def spoil() -> None:
        broken.fc7.weight.data.fill_(math.inf)

    with pytest.raises(FacedanError, match=r"loss .* step 4; .* step 2 .*state"):
        fit(broken, tmp_path, report=At(3, spoil))
    assert [entry["step"] for entry in metrics(tmp_path)] == [1, 2, 3]
    assert same(run(tmp_path), run(tmp_path / "whole"))  # it goes on from step 2, before the damage


def test_before_the_first_state_none_is_promised(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="at step 1; no state was saved before it"):
        run(
            tmp_path,
            replace(PLAN, lr=math.inf, classifier_lr_mult=0.0),
            domains(lambda_=math.nan),
        )


def test_features_that_fall_into_one_point_are_refused_with_the_step(tmp_path: Path) -> None:
    with pytest.raises(FacedanError, match="step 1 has no bandwidth"):
        run(tmp_path, PLAN, domains(bandwidths=None, value=7))  # the bandwidth of each batch


def test_a_gradient_that_is_no_number_is_refused_before_it_does_harm(tmp_path: Path) -> None:
    broken = network()

    def spoil() -> None:
        broken.fc6.bias.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(FacedanError, match=r"gradient.* step 3; .* step 2"):
        fit(broken, tmp_path, report=At(2, spoil))
    assert all(bool(value.isfinite().all()) for value in broken.parameters())


def test_the_log_tells_bandwidths_weights_and_how_features_lie(tmp_path: Path) -> None:
    run(tmp_path, data=domains(kernel_weights="optimal", running=True, ramp=4))
    logged = metrics(tmp_path)
    for layer in ("fc6", "fc7"):
        assert len({entry[f"gamma_{layer}"] for entry in logged}) == STEPS
        assert all(sum(entry[f"beta_{layer}"]) == pytest.approx(1) for entry in logged)
        for domain in ("source", "target"):
            assert all(1 <= entry[f"rank_{layer}_{domain}"] <= BATCH - 1 for entry in logged)
            assert all(-1 <= entry[f"cosine_{layer}_{domain}"] <= 1 for entry in logged)
    assert [entry["lambda"] for entry in logged] == sorted(entry["lambda"] for entry in logged)
    assert logged[0]["lambda"] < logged[3]["lambda"] == 0.5
    assert all(entry["gradient_norm"] > 0 for entry in logged)
    for entry in logged:
        penalty = entry["lambda"] * (entry["mmd2_fc6"] + entry["mmd2_fc7"])
        assert entry["loss"] == pytest.approx(entry["classification"] + penalty, rel=1e-5)


def test_features_that_collapse_are_warned_of_once(tmp_path: Path) -> None:
    class Warned(At):
        warnings: tuple[str, ...] = ()

        def warn(self, text: str) -> None:
            self.warnings += (text,)

    collapsing = network()

    def collapse() -> None:
        collapsing.fc7.weight.data.zero_()
        collapsing.fc7.bias.data.fill_(1.0)

    report = Warned(3, collapse)
    fit(collapsing, tmp_path, report=report)
    (warning,) = report.warnings
    assert warning.startswith("step 4: the fc7 features of the source have collapsed (effective rank ")
    assert "lower --lambda" in warning
    unharmed = Warned(3, lambda: None)
    run(tmp_path / "unharmed", report=unharmed)
    assert unharmed.warnings == ()


def test_the_network_is_examined_before_the_first_step_and_after_the_last(tmp_path: Path) -> None:
    calls: list[None] = []

    def examine() -> dict[str, int]:
        calls.append(None)
        return {"examined": len(calls)}

    def go(report: Report) -> None:
        fit(network(), tmp_path, report=report, validation=Validation(ends=examine))

    with pytest.raises(RuntimeError, match="gone"):
        go(At(5, break_down))
    go(Report())
    examined = {entry["step"]: entry["examined"] for entry in metrics(tmp_path) if "examined" in entry}
    assert examined == {0: 1, STEPS: 2}


@pytest.mark.parametrize("iterations", [1, 5, 10, 200])
def test_one_cycle_rises_over_a_tenth_and_falls_as_a_half_cosine(iterations: int) -> None:
    plan = replace(PLAN, iterations=iterations, lr=0.2)
    rates = [learning_rate(step, plan) for step in range(1, iterations + 1)]
    rise = max(1, iterations // 10)
    assert rates[:rise] == pytest.approx([0.2 * step / rise for step in range(1, rise + 1)])
    fall = iterations - rise + 1
    assert rates[rise:] == pytest.approx([0.1 + 0.1 * math.cos(math.pi * step / fall) for step in range(1, fall)])
    assert min(rates) > 0
    assert max(rates) == pytest.approx(0.2)


def test_a_constant_rate_is_constant() -> None:
    plan = replace(PLAN, schedule="constant")
    assert {learning_rate(step, plan) for step in range(1, 100)} == {PLAN.lr}


@pytest.mark.parametrize(("kind", "cls"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_convolutions_and_classifier_have_rates_of_their_own(kind: str, cls: type) -> None:
    trained = network()
    optimizer = make_optimizer(trained, replace(PLAN, optimizer=kind, backbone_lr_mult=0.1))
    assert type(optimizer) is cls
    assert [group["scale"] for group in optimizer.param_groups] == [0.1, 1.0, 10.0]
    names = {id(value): name for name, value in trained.named_parameters()}
    of_groups = [{names[id(value)].partition(".")[0] for value in group["params"]} for group in optimizer.param_groups]
    assert of_groups[1:] == [{"fc6", "fc7"}, {"classifier"}]
    assert len(of_groups[0]) == 13
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}


def test_progress_tells_the_loss_and_each_layers_discrepancy(tmp_path: Path) -> None:
    report = At(STEPS, lambda: None)
    run(tmp_path, report=report)
    assert len(report.texts) == STEPS
    assert "loss " in report.texts[-1]
    assert "MMD² fc6 " in report.texts[-1]
    assert "MMD² fc7 " in report.texts[-1]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"target": False},
        {"memory_bank": 10},
        {"estimator": "linear", "bandwidths": None},
        {"kernel_weights": "optimal"},
    ],
    ids=str,
)
def test_a_batch_in_parts_is_the_batch(tmp_path: Path, data: dict[str, Any]) -> None:
    """Also with dropout, whose mask is that of the whole batch."""
    plan = replace(PLAN, iterations=4)  # the memory bank is full after two
    whole = run(tmp_path / "whole", plan, domains(**data))
    for parts in (2, 4, 6):
        split = run(tmp_path / f"{parts}", replace(plan, grad_accum=parts), domains(**data))
        for found, expected in zip(split.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        for one, other in zip(metrics(tmp_path / f"{parts}"), metrics(tmp_path / "whole"), strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert value == pytest.approx(other[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("target", [True, False])
def test_parts_of_a_batch_have_the_margins_of_the_whole(tmp_path: Path, target: bool) -> None:
    """Those of adaface, which the norms of all rows determine; with and without a penalty."""
    found = {}
    for parts in (1, 4):
        torch.manual_seed(0)
        found[parts] = VGGFace(SPEC, IDENTITIES, head="adaface", scale=4.0)
        fit(found[parts], tmp_path / str(parts), replace(PLAN, grad_accum=parts), domains(target=target))
    assert float(found[1].classifier.norm_mean) != 20
    for name, value in found[1].state_dict().items():
        torch.testing.assert_close(found[4].state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", OPTIMIZERS[-2:], ids=str)
def test_weights_that_are_not_trained_stay_to_the_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    """No decay either; and a batch in parts trains the same ones."""
    before = dict(network().named_parameters())
    for parts in (1, 3):
        after = run(tmp_path / str(parts), replace(PLAN, grad_accum=parts, **options)).named_parameters()
        stayed = {name for name, value in after if torch.equal(value, before[name])}
        assert stayed == {name for name in before if name.startswith("conv") and "backbone_lr_mult" in options}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_comes_close_and_resumes_to_the_same_bits(tmp_path: Path, precision: str, parts: int) -> None:
    plan = replace(PLAN, precision=precision, grad_accum=parts)
    whole = run(tmp_path / "whole", plan)
    exact = run(tmp_path / "exact")
    assert not same(whole, exact)
    assert all(value.dtype == torch.float32 for value in whole.parameters())
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "exact"), strict=True):
        for key in ("classification", "mmd2_fc6", "mmd2_fc7"):
            assert one[key] == pytest.approx(other[key], rel=0.05, abs=0.01), key
    with pytest.raises(RuntimeError, match="gone"):
        run(tmp_path / "broken", plan, report=At(5, break_down))
    assert same(run(tmp_path / "broken", plan), whole)


def test_steps_whose_half_precision_gradients_overflow_are_left_out(tmp_path: Path) -> None:
    """The scaler starts at 65536: with a loss of 50 per row its first gradients are no numbers."""
    steep = network()
    steep.classifier.weight.data *= 3e4
    before = {name: value.clone() for name, value in steep.named_parameters()}
    fit(steep, tmp_path, replace(PLAN, precision="fp16", iterations=1))
    assert "gradient_norm" not in metrics(tmp_path)[0]  # it is no number, of which JSON knows nothing
    assert all(torch.equal(value, before[name]) for name, value in steep.named_parameters())


def test_the_best_step_on_held_out_images_is_kept_and_so_are_those_asked_for(tmp_path: Path) -> None:
    losses = iter([0.9, 0.4, 0.6, 0.5, 0.4])

    def loss() -> float:
        return next(losses)

    seen: dict[int, dict[str, Tensor]] = {}
    trained = network()

    class Watch(At):
        def training(self, total: int, done: int = 0) -> Any:
            @contextmanager
            def follow() -> Iterator[Any]:
                def keep(entry: Any) -> None:
                    seen[entry["step"]] = {key: value.clone() for key, value in trained.state_dict().items()}

                yield keep

            return follow()

    fit(trained, tmp_path, report=Watch(0, break_down), validation=Validation(loss=loss), keep_every=4)
    logged = {entry["step"]: entry["held_aside_loss"] for entry in metrics(tmp_path) if "held_aside_loss" in entry}
    assert logged == {2: 0.9, 4: 0.4, 6: 0.6, 8: 0.5, 9: 0.4}
    names = {"step-4.safetensors": 4, "step-8.safetensors": 8, "best.safetensors": 4, "model.safetensors": STEPS}
    for name, step in names.items():
        found, expected = load_file(tmp_path / name), seen[step]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
    assert (tmp_path / "best.safetensors").samefile(tmp_path / "step-4.safetensors")
    files = {path.name for path in tmp_path.glob("*.safetensors")}
    assert files == {*names, "state.safetensors"}


def test_what_was_best_before_an_interruption_stays_best(tmp_path: Path) -> None:
    def go(losses: list[float], report: Report) -> None:
        left = iter(losses)
        fit(network(), tmp_path, report=report, validation=Validation(loss=lambda: next(left)))

    with pytest.raises(RuntimeError, match="gone"):
        go([0.5, 0.1], At(5, break_down))
    best = (tmp_path / "best.safetensors").read_bytes()
    go([0.3, 0.2, 0.11], Report())
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_momentum_begins_at_zero_though_the_first_half_precision_step_is_left_out(tmp_path: Path) -> None:
    """PyTorch's fused SGD leaves it as it finds the memory."""
    steep = network()
    steep.classifier.weight.data *= 3e4
    spoilt = [torch.full((size,), 1e6) for size in (4096, 65536, 1024, 512) for _ in range(50)]
    del spoilt  # freed, and full of large numbers
    fit(steep, tmp_path, replace(PLAN, precision="fp16", iterations=3, weight_decay=0.0, checkpoint_every=1))
    state = load_file(tmp_path / "state.safetensors")
    momenta = [value for key, value in state.items() if key.endswith(".momentum_buffer")]
    assert all(float(value.abs().max()) < 1e5 for value in momenta)


@pytest.mark.parametrize("seed", [0, 2**62])
def test_any_seed_is_one(tmp_path: Path, seed: int) -> None:
    run(tmp_path, replace(PLAN, seed=seed, iterations=1))
