"""The one training loop: classification on the source and, where a target is given, the penalty between the domains."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from facedan_cli.adaptation.mmd import Penalty
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.faces.batches import Stream
from facedan_cli.report import SILENT, Report
from facedan_cli.training.checkpoint import load_state, save_state
from facedan_cli.workspace import write_text

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
    network: nn.Module, domains: Domains, plan: Plan, *, state: Path, log: Path, report: Report = SILENT
) -> dict[str, Any]:
    """Train in place, from the saved state where there is one.

    Args:
        network: gives its features by layer and the class scores of the first rows, as `models.vggface.VGGFace`.
        domains: where the batches come from.
        plan: how to train.
        state: the file that an interrupted run goes on from.
        log: metrics.jsonl, a line every `plan.log_every` steps.
        report: told of the progress.

    Returns:
        The last line of the log.

    Raises:
        Interrupted: SIGINT or SIGTERM; the state is saved.
        FacedanError: the loss is not a finite number.
    """
    device = next(network.parameters()).device
    optimizer = make_optimizer(network, plan)
    start = load_state(state, network, optimizer) if state.exists() else 0
    last = _keep_lines_up_to(log, start)
    network.train()
    seen, since = 0, time.monotonic()
    with (
        _stop_request() as stop,
        log.open("a", encoding="utf-8") as lines,
        report.progress("training", plan.iterations, done=start, unit="steps") as advance,
    ):
        for step, (images, people, labelled) in enumerate(_joint_batches(domains, start, plan.iterations), start + 1):
            torch.manual_seed(_step_seed(plan.seed, step))  # dropout: the same after an interruption as without one
            rate = learning_rate(step, plan)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]

            features, logits = network(images.to(device), labelled)
            labels = people.to(device)
            classification = F.cross_entropy(logits, labels, label_smoothing=plan.label_smoothing)
            loss = classification
            discrepancies: dict[str, Tensor] = {}
            if domains.penalty is not None:
                source = {layer: rows[:labelled] for layer, rows in features.items()}
                target = {layer: rows[labelled:] for layer, rows in features.items()}
                try:
                    penalty, discrepancies = domains.penalty(source, target)
                except ValueError as error:  # the median of a batch is no bandwidth
                    raise FacedanError(f"step {step} has no bandwidth: {error}", _TOO_LARGE) from error
                loss = classification + penalty
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            _refuse_what_is_not_finite(loss, step, state)
            optimizer.step()

            seen += len(images)
            if step % plan.log_every == 0 or step == plan.iterations:
                last = {"step": step, "lr": rate, "loss": loss.item(), "classification": classification.item()}
                last["accuracy"] = (logits.argmax(1) == labels).float().mean().item()
                last |= {f"mmd2_{layer}": value.item() for layer, value in discrepancies.items()}
                last |= _norms(features, labelled)
                last["images_per_second"] = round(seen / (time.monotonic() - since), 1)
                lines.write(json.dumps(last) + "\n")
                lines.flush()
                seen, since = 0, time.monotonic()
            advance(1, _status(last))
            if stop.requested or (step % plan.checkpoint_every == 0 and step < plan.iterations):
                save_state(state, step, network, optimizer)
            if stop.requested and step < plan.iterations:
                raise Interrupted(
                    f"stopped at step {step} of {plan.iterations}", "the same command, without --force, goes on"
                )
    network.eval()
    return last


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


def _joint_batches(domains: Domains, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images (source rows first, then target rows: one network sees both in one pass), source labels, their number."""
    if domains.target is None:
        for images, labels in domains.source.batches(start, stop):
            yield images, labels, len(labels)
        return
    pairs = zip(domains.source.batches(start, stop), domains.target.batches(start, stop), strict=True)
    for (source, labels), (target, _) in pairs:
        yield torch.cat([source, target]), labels, len(labels)


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % (1 << 63)


def _refuse_what_is_not_finite(loss: Tensor, step: int, state: Path) -> None:
    if bool(torch.isfinite(loss)):
        return
    kept = f"the state before it is kept in {state}" if state.exists() else "no state was saved before it"
    raise FacedanError(
        f"the loss became {loss.item()} at step {step}; {kept}",
        _TOO_LARGE,
    )


def _norms(features: dict[str, Tensor], labelled: int) -> dict[str, float]:
    """Mean feature norms a domain: where λ is too high they fall together towards zero before results show it."""
    norms = {}
    for layer, rows in features.items():
        lengths = rows.detach().norm(dim=1)
        norms[f"norm_{layer}_source"] = lengths[:labelled].mean().item()
        if labelled < len(rows):
            norms[f"norm_{layer}_target"] = lengths[labelled:].mean().item()
    return norms


def _status(last: dict[str, Any]) -> str:
    if not last:
        return ""
    parts = [f"loss {last['classification']:.3f}"]
    parts += [f"MMD² {key.removeprefix('mmd2_')} {value:.4f}" for key, value in last.items() if key.startswith("mmd2_")]
    return "  ".join([*parts, f"{last['images_per_second']:.0f} images/s"])


def _keep_lines_up_to(log: Path, step: int) -> dict[str, Any]:
    """Drop the lines of steps that an interrupted run has to do again; returns the last line that stays."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a process that was killed while it wrote
                continue
            if entry["step"] <= step:
                kept.append(entry)
    write_text(log, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept[-1] if kept else {}


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
