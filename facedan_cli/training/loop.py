"""The training loop of both stages: classification of the source and, with a target, the penalty between domains."""

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
from torch import Tensor, distributed, nn

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.data.batches import BatchStream
from facedan_cli.distributed import ENDED, average_gradients, begin_alike, sum_over_processes, world_size
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import SILENT, Report
from facedan_cli.training.changes import Restyling
from facedan_cli.training.keep import Keep
from facedan_cli.training.log import Log, shape_of_features
from facedan_cli.training.plan import Plan, learning_rate, make_optimizer, replicated, set_rate
from facedan_cli.training.state import Checkpoints
from facedan_cli.training.step import TOO_LARGE, Batch, Losses, Step

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PENALTY, _SCALER = "penalty.", "scaler."
_OF_SCALER = ("scale", "_growth_tracker")


@dataclass(frozen=True)
class DomainBatches:
    """The training batches of the domains: the labelled source, and in stage 2 the target with the penalty.

    Args:
        source: labelled.
        target: unlabelled.
        penalty: between their features.
        restyling: gives source images the looks of target images.
        keep: keeps the embedding of the initial network.
    """

    source: BatchStream
    target: BatchStream | None = None
    penalty: Penalty | None = None
    restyling: Restyling | None = None
    keep: Keep | None = None


@dataclass(frozen=True)
class Validation:
    """Measurements on held-out images, with the network in evaluation mode.

    Args:
        ends: entries for the log before the first step and after the last.
        loss: validation loss, measured at every checkpoint; the network with the lowest is kept.
    """

    ends: Callable[[], Mapping[str, Any]] = dict
    loss: Callable[[], float | None] = lambda: None


NOTHING = Validation()


def train(
    network: FaceNetwork,
    domains: DomainBatches,
    plan: Plan,
    *,
    checkpoints: Checkpoints,
    log: Path,
    tensorboard: Path | None = None,
    validation: Validation = NOTHING,
    report: Report = SILENT,
) -> dict[str, Any]:
    """Train the network in place, from the saved state if there is one.

    With torch.distributed initialised each process takes its shard of every batch; the penalty is that of the global
    batch, gradients are averaged, and the first process writes.

    Args:
        network: gives its features by layer.
        domains: source and target batches; with several processes the shards of this one.
        plan: recipe; `batch` is the global batch.
        checkpoints: the state of an interrupted run, and the networks that are kept.
        log: metrics.jsonl, a line every `plan.log_every` steps and at every checkpoint.
        tensorboard: a directory for TensorBoard's events; None without them.
        validation: measured on held-out images.
        report: shows the progress, and warns where features collapse.

    Returns:
        The last line of the log.

    Raises:
        Interrupted: SIGINT or SIGTERM; the state is saved.
        FacedanError: the loss or its gradient is not finite, or another process has ended.
    """
    # Set up, and resume: network, optimiser, penalty and scaler are those of step `start`, the same in all processes.
    device = next(network.parameters()).device
    trained = _Trained(network, domains, plan, checkpoints)
    start = trained.resume()
    begin_alike((*replicated(network), *network.buffers()), start)
    entries = Log(log, start, tensorboard)
    if start == 0 and (measured := validation.ends()):
        entries.write({"step": 0, **measured})
    network.train()
    seen, since = 0, time.monotonic()
    with _stop_request() as stop, report.training(plan.iterations, start) as follow, _together():
        for step, batch in enumerate(_joint_batches(domains, start, plan.iterations, device), start + 1):
            # 1. The step itself.
            losses, gradient_norm = trained.take(batch, step)

            # 2. All processes agree on whether to stop: a signal may reach only one of them.
            if world_size() > 1:
                stop.requested = bool(sum_over_processes(torch.tensor(float(stop.requested), device=device)))

            # 3. A line of the log every `log_every` steps and at each checkpoint, there with the validation loss.
            seen += plan.batch * (1 if domains.target is None else 2)
            last = step == plan.iterations
            saving, validation_loss = last or step % plan.checkpoint_every == 0, None
            if saving or step % plan.log_every == 0:
                entry = {"step": step, "lr": learning_rate(step, plan), **_measured(losses, domains.penalty, step)}
                if math.isfinite(norm := gradient_norm.item()):
                    entry["gradient_norm"] = norm
                entry["images_per_second"] = round(seen / (time.monotonic() - since), 1)
                if saving and (validation_loss := validation.loss()) is not None:
                    entry["held_aside_loss"] = validation_loss
                if last:
                    entry |= validation.ends()
                if warning := entries.collapse(entry):
                    report.warn(warning)
                entries.write(entry)
                seen, since = 0, time.monotonic()
            follow(entries.last)

            # 4. The checkpoint, after the log: a resumed run drops lines of later steps and writes them again.
            if saving or stop.requested:
                trained.save(step, validation_loss, last)
            if stop.requested and not last:
                raise Interrupted(
                    f"stopped at step {step} of {plan.iterations}", "the same command, without --force, goes on"
                )
    network.eval()
    return entries.last


class _Trained:
    """All that a step changes: network, optimiser, penalty and scaler."""

    def __init__(self, network: FaceNetwork, domains: DomainBatches, plan: Plan, checkpoints: Checkpoints) -> None:
        self._network, self._penalty, self._plan, self._checkpoints = network, domains.penalty, plan, checkpoints
        self._optimizer = make_optimizer(network, plan)
        self._replicated = replicated(network)
        device = next(network.parameters()).device
        self._scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "fp16")
        self._losses = Step(network, domains.penalty, plan, self._scaler, domains.keep)

    def resume(self) -> int:
        """Load the saved state if there is one; returns the number of finished steps."""
        start, remembered = self._checkpoints.load(self._network, self._optimizer)
        if start and self._penalty is not None:
            tensors = {key.removeprefix(_PENALTY): x for key, x in remembered.items() if key.startswith(_PENALTY)}
            self._penalty.load(tensors)
        if start and self._scaler.is_enabled():
            scale = {key: remembered[_SCALER + key].item() for key in _OF_SCALER}
            self._scaler.load_state_dict(self._scaler.state_dict() | scale)
        return start

    def take(self, batch: Batch, step: int) -> tuple[Losses, Tensor]:
        """Take a step; returns its losses and the norm of the whole gradient.

        Raises:
            FacedanError: loss or gradient is not finite.
        """
        # Losses and gradients of the global batch: source and target images, (B, 3, crop, crop) each.
        set_rate(self._optimizer, learning_rate(step, self._plan))
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._losses(batch, step)
        average_gradients(self._replicated)
        # The update, refused before it could write NaN into the weights.
        self._scaler.unscale_(self._optimizer)
        gradient_norm = _gradient_norm(self._replicated, self._network.classifier)
        self._refuse_what_is_not_finite(losses.total, gradient_norm, step)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._penalty is not None:
            self._penalty.update_memory_bank(losses.source, losses.target)
        return losses, gradient_norm

    def _refuse_what_is_not_finite(self, loss: Tensor, gradient_norm: Tensor, step: int) -> None:
        """Stop before an update; the error names the step, the last good state and what to try."""
        loss_value, norm = torch.stack([loss, gradient_norm]).tolist()
        if math.isfinite(loss_value):
            # In half precision gradients overflow while the scaler searches its scale; it skips these steps.
            if math.isfinite(norm) or (self._scaler.is_enabled() and self._scaler.get_scale() >= 1):
                return
            what = f"the gradient's norm became {norm}"
        else:
            what = f"the loss became {loss_value}"
        raise FacedanError(f"{what} at step {step}; {self._checkpoints.told()}", TOO_LARGE)

    def save(self, step: int, loss: float | None, last: bool) -> None:
        """Save all that the next step depends on, and the network."""
        tensors = {}
        if self._penalty is not None:
            tensors = {_PENALTY + name: value for name, value in self._penalty.state().items()}
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            tensors |= {_SCALER + key: torch.tensor(state[key]) for key in _OF_SCALER}
        self._checkpoints.save(step, self._network, self._optimizer, tensors, loss=loss, last=last)


def _joint_batches(domains: DomainBatches, start: int, stop: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches start … stop-1 of both domains."""
    sources = domains.source.batches(start, stop, device)
    if domains.target is None:
        yield from (Batch(images, labels) for images, labels in sources)
        return
    targets = domains.target.batches(start, stop, device)
    for step, (source, labels), (target, _) in zip(range(start, stop), sources, targets, strict=True):
        images = source if domains.restyling is None else domains.restyling(source, target, step)
        yield Batch(images, labels, target)


def _gradient_norm(replicated: list[nn.Parameter], classifier: Classifier) -> Tensor:
    """The norm of the whole gradient, the same in all processes, which must agree on whether it is finite."""
    norm = nn.utils.get_total_norm([p.grad for p in replicated if p.grad is not None])
    if classifier.sharded:
        own = nn.utils.get_total_norm([p.grad for p in classifier.parameters() if p.grad is not None])
        norm = (norm.square() + sum_over_processes(own.square())).sqrt()
    return norm


def _measured(losses: Losses, penalty: Penalty | None, step: int) -> dict[str, Any]:
    """The losses and the feature statistics of a step, for the log."""
    classification, accuracy = losses.classification.item(), losses.accuracy.item()
    entry: dict[str, Any] = {"loss": classification, "classification": classification, "accuracy": accuracy}
    if penalty is not None and losses.penalty is not None:
        entry["loss"] += losses.penalty.item()
        entry |= {name: value.item() for name, value in losses.discrepancies.items()}
        entry |= penalty.settings()
        entry["lambda"] = penalty.lambda_at(step)
    if losses.kept is not None and losses.drift is not None:
        entry["loss"] += losses.kept.item()
        entry["drift"] = losses.drift.item()
    return entry | shape_of_features(losses.source, losses.target)


class _Stop:
    requested = False


@contextmanager
def _stop_request() -> Iterator[_Stop]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop after the step; a second SIGINT stops at once."""
    stop = _Stop()

    def request(number: int, _: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _together() -> Iterator[None]:
    """Turn the errors of a process group into one message if another process has ended.

    Raises:
        FacedanError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        ended = isinstance(error, distributed.DistNetworkError) or "remote process exited" in str(error)
        if world_size() > 1 and (ended or "gloo" in str(error)):
            raise FacedanError(*ENDED) from error
        raise
