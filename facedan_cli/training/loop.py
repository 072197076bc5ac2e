"""The one training loop: classification on the source and, where a target is given, the penalty between the domains."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from facedan_cli.adaptation.penalty import LOG_NAMES, Penalty
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.faces.batches import Stream
from facedan_cli.report import SILENT, Report
from facedan_cli.training.checkpoint import load_state, save_state
from facedan_cli.training.distributed import average_gradients, gather_rows, rank, sum_over_processes, world_size
from facedan_cli.training.log import Log, shape_of_features

_TOO_LARGE = (
    "lower --lr (or --lambda): what ends in no number or in one point almost always had steps that were too large"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is trained: the resolved recipe of a run."""

    optimizer: str
    lr: float
    classifier_lr: float
    schedule: str
    batch: int
    iterations: int
    momentum: float
    weight_decay: float
    label_smoothing: float
    seed: int
    checkpoint_every: int
    log_every: int


@dataclass(frozen=True)
class Domains:
    """What is trained on: labelled source batches, and with a target the penalty between them."""

    source: Stream
    target: Stream | None = None
    penalty: Penalty | None = None


def train(
    network: nn.Module,
    domains: Domains,
    plan: Plan,
    *,
    state: Path,
    log: Path,
    examine: Callable[[], Mapping[str, Any]] | None = None,
    report: Report = SILENT,
) -> dict[str, Any]:
    """Train in place, from the saved state where there is one.

    Of several processes (torch.distributed is initialised) each sees its share of every batch; the penalty is that of
    the global batch, the gradients are averaged, and the first process writes.

    Args:
        network: gives its features by layer and the class scores of the first rows, as `models.vggface.VGGFace`.
        domains: where the batches come from; of several processes, each one's share of them.
        plan: how to train; `batch` is that of all processes together.
        state: the file that an interrupted run goes on from.
        log: metrics.jsonl, a line every `plan.log_every` steps.
        examine: measures the network before the first step and after the last; what it gives is in their lines.
        report: told of the progress, and warned where features collapse.

    Returns:
        The last line of the log.

    Raises:
        Interrupted: SIGINT or SIGTERM; the state is saved.
        FacedanError: the loss or its gradient is not finite.
    """
    device = next(network.parameters()).device
    optimizer = make_optimizer(network, plan)
    penalty = domains.penalty
    start = _resume(state, network, optimizer, penalty)
    saved = start if state.exists() else None
    entries = Log(log, start)
    if examine is not None and start == 0:
        entries.write({"step": 0, **examine()})
    network.train()
    seen, since = 0, time.monotonic()
    with (
        _stop_request() as stop,
        report.progress("training", plan.iterations, done=start, unit="steps") as advance,
    ):
        for step, (images, people) in enumerate(_joint_batches(domains, start, plan.iterations), start + 1):
            torch.manual_seed(_step_seed(plan.seed, step))  # dropout: the same after an interruption as without one
            rate = learning_rate(step, plan)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]

            losses = _losses(network, images.to(device), people.to(device), domains, plan, step)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
            average_gradients(network)
            gradient_norm = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
            _refuse_what_is_not_finite(losses.total, gradient_norm, step, state, saved)
            optimizer.step()
            if penalty is not None:
                penalty.remember(losses.source, losses.target)

            seen += plan.batch * (1 if domains.target is None else 2)
            if step % plan.log_every == 0 or step == plan.iterations:
                entry = {"step": step, "lr": rate, **_measured(losses, penalty, step)}
                entry["gradient_norm"] = gradient_norm.item()
                entry["images_per_second"] = round(seen / (time.monotonic() - since), 1)
                if examine is not None and step == plan.iterations:
                    entry |= examine()
                if warning := entries.collapse(entry):
                    report.warn(warning)
                entries.write(entry)
                seen, since = 0, time.monotonic()
            advance(1, _status(entries.last))
            if world_size() > 1:
                stop.requested = bool(sum_over_processes(torch.tensor(float(stop.requested), device=device)))
            if stop.requested or (step % plan.checkpoint_every == 0 and step < plan.iterations):
                if rank() == 0:
                    save_state(state, step, network, optimizer, penalty.state() if penalty else None)
                saved = step
            if stop.requested and step < plan.iterations:
                raise Interrupted(
                    f"stopped at step {step} of {plan.iterations}", "the same command, without --force, goes on"
                )
    network.eval()
    return entries.last


def make_optimizer(network: nn.Module, plan: Plan) -> optim.Optimizer:
    """The optimiser, with the classifier in a group of its own: `scale` is its multiple of the learning rate."""
    classifier = list(network.get_submodule("fc8").parameters())
    own = {id(parameter) for parameter in classifier}
    body = [parameter for parameter in network.parameters() if id(parameter) not in own]
    groups = [{"params": body, "scale": 1.0}, {"params": classifier, "scale": plan.classifier_lr}]
    if plan.optimizer == "sgd":
        return optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    return optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def learning_rate(step: int, plan: Plan) -> float:
    """The rate of a step from 1: constant, or one cycle, a linear rise over a tenth of the steps and half a cosine."""
    if plan.schedule == "constant":
        return plan.lr
    rise = max(1, plan.iterations // 10)
    if step <= rise:
        return plan.lr * step / rise
    return plan.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (plan.iterations - rise + 1)))


def _resume(state: Path, network: nn.Module, optimizer: optim.Optimizer, penalty: Penalty | None) -> int:
    """Go on from the state where there is one; returns the number of steps that are done."""
    if not state.exists():
        return 0
    start, remembered = load_state(state, network, optimizer)
    if penalty is not None:
        penalty.load(remembered)
    return start


def _joint_batches(domains: Domains, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (source rows first, then target rows: one network sees both in one pass) and the source's labels."""
    if domains.target is None:
        yield from domains.source.batches(start, stop)
        return
    pairs = zip(domains.source.batches(start, stop), domains.target.batches(start, stop), strict=True)
    for (source, labels), (target, _) in pairs:
        yield torch.cat([source, target]), labels


@dataclass(frozen=True)
class _Losses:
    """The losses of a step.

    Args:
        total: what is minimised.
        classification: mean over the source rows of the global batch.
        accuracy: share of these rows that are recognised.
        added: the penalty, of the global batch; None where there is none.
        discrepancies: those of the layers, by their names in the log.
        source: source features by layer; where there is a penalty, of the global batch.
        target: target features; empty where there is no target.
    """

    total: Tensor
    classification: Tensor
    accuracy: Tensor
    added: Tensor | None
    discrepancies: dict[str, Tensor]
    source: dict[str, Tensor]
    target: dict[str, Tensor]


def _losses(network: nn.Module, images: Tensor, labels: Tensor, domains: Domains, plan: Plan, step: int) -> _Losses:
    """Classification of the source rows and the penalty between the domains (eq. 4).

    Raises:
        FacedanError: the features of the batch have no bandwidth.
    """
    labelled = len(labels)
    features, logits = network(images, labelled)
    classification = F.cross_entropy(logits, labels, label_smoothing=plan.label_smoothing)
    accuracy = (logits.detach().argmax(1) == labels).float().mean()
    total = classification
    if world_size() > 1:
        # Processes whose shares differ in size count by it, so that the averaged gradient is the global batch's.
        share = labelled / plan.batch
        total = classification * (share * world_size())
        classification = sum_over_processes(classification.detach() * share)
        accuracy = sum_over_processes(accuracy * share)
    source = {layer: rows[:labelled] for layer, rows in features.items()}
    target = {layer: rows[labelled:] for layer, rows in features.items() if labelled < len(rows)}
    if domains.penalty is None:
        return _Losses(total, classification, accuracy, None, {}, source, target)
    source = {layer: gather_rows(rows, plan.batch) for layer, rows in source.items()}
    target = {layer: gather_rows(rows, plan.batch) for layer, rows in target.items()}
    try:
        added, discrepancies = domains.penalty(source, target, step)
    except ValueError as error:  # the median of a batch is no bandwidth
        raise FacedanError(f"step {step} has no bandwidth: {error}", _TOO_LARGE) from error
    return _Losses(total + added, classification, accuracy, added, discrepancies, source, target)


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step + 7_919 * rank()) % (1 << 63)


def _refuse_what_is_not_finite(loss: Tensor, gradient_norm: Tensor, step: int, state: Path, saved: int | None) -> None:
    """Stop before a step that would leave no number in the network.

    Raises:
        FacedanError: naming the step, the last good state and what to try.
    """
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(gradient_norm)):
        return
    what = f"the loss became {loss.item()}"
    if bool(torch.isfinite(loss)):
        what = f"the gradient's norm became {gradient_norm.item()}"
    kept = "no state was saved before it" if saved is None else f"the state after step {saved} is kept in {state}"
    raise FacedanError(f"{what} at step {step}; {kept}", _TOO_LARGE)


def _measured(losses: _Losses, penalty: Penalty | None, step: int) -> dict[str, Any]:
    """What the log says of a step's losses and features."""
    classification, accuracy = losses.classification.item(), losses.accuracy.item()
    entry: dict[str, Any] = {"loss": classification, "classification": classification, "accuracy": accuracy}
    if penalty is not None and losses.added is not None:
        entry["loss"] += losses.added.item()
        entry |= {name: value.item() for name, value in losses.discrepancies.items()}
        entry |= penalty.settings()
        entry["lambda"] = penalty.strength_at(step)
    return entry | shape_of_features(losses.source, losses.target)


def _status(last: dict[str, Any]) -> str:
    if "classification" not in last:
        return ""
    shown = {"mmd2": "MMD²", "jmmd": "JMMD", "coral": "CORAL", "energy": "energy"}
    parts = [f"loss {last['classification']:.3f}"]
    for key, value in last.items():
        name, _, layer = key.partition("_")
        if name in LOG_NAMES.values():
            parts.append(f"{shown[name]} {layer} {value:.4f}".replace("  ", " "))
    return "  ".join([*parts, f"{last['images_per_second']:.0f} images/s"])


class _Stop:
    requested = False


@contextmanager
def _stop_request() -> Iterator[_Stop]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the step; a second SIGINT stops at once."""
    stop = _Stop()

    def request(number: int, _: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
