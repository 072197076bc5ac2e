"""The files of a training: the state for resuming, and the kept networks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, optim

from facedan_cli.distributed import rank
from facedan_cli.errors import FacedanError, Interrupted
from facedan_cli.json_files import parse_object
from facedan_cli.models.checkpoint import ModelCard, save_tensors
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.pretrained.state_dict import open_safetensors
from facedan_cli.training.classification import gather_classes, load_shard
from facedan_cli.workspace import replacing

STATE_FILE, MODEL_FILE, BEST_FILE = "state.safetensors", "model.safetensors", "best.safetensors"


_NETWORK, _OPTIMIZER, _LOOP, _CLASSIFIER = "network.", "optimizer.", "loop.", "classifier."


class Best(NamedTuple):
    """The step with the lowest held-out loss, and that loss."""

    step: int
    loss: float


class Checkpoints:
    """Saves the state and the networks of a training; a thread writes copies of the tensors.

    state.safetensors holds all that the next step depends on; random numbers and positions in the data are functions of
    the seed and the step. step-N.safetensors are the networks of every
    `keep_every`-th step, best.safetensors a hard link to the best one, model.safetensors the last. Each is written
    whole or not at all, and the state after the network that it tells of.

    Args:
        directory: directory of the files.
        card: description of the networks for their files.
        keep_every: 0: of the steps before the last only the best one's network is kept.
    """

    def __init__(self, directory: Path, card: ModelCard, keep_every: int = 0) -> None:
        self.directory = directory
        self.card = card
        self.keep_every = keep_every
        self.best: Best | None = None
        self.saved: int | None = None
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._finish()
        except Exception:
            if error is None or isinstance(error, Interrupted):  # any other error says more than this one
                raise
        finally:
            self._writer.shutdown()

    @property
    def state(self) -> Path:
        """The file with the state for resuming."""
        return self.directory / STATE_FILE

    def told(self) -> str:
        """A sentence on the saved state, for an error message."""
        self._finish()
        if self.saved is None:
            return "no state was saved before it"
        return f"the state after step {self.saved} is kept in {self.state}"

    def save(
        self,
        step: int,
        network: FaceNetwork,
        optimizer: optim.Optimizer,
        running_state: Mapping[str, Tensor],
        *,
        loss: float | None = None,
        last: bool = False,
    ) -> None:
        """Save the state after a step; all processes must call it, and the first one writes.

        Args:
            step: finished steps.
            network: the network.
            optimizer: its optimiser.
            running_state: what else the next step depends on.
            loss: held-out loss, where it was measured.
            last: whether it is the last step.

        Raises:
            OSError: the files of the save before this one could not be written.
        """
        improved = loss is not None and (self.best is None or loss < self.best.loss)
        if improved and loss is not None:
            self.best = Best(step, loss)
        self._finish()  # frees the previous copy before the next one is made
        copies = _copies(network, optimizer, running_state)
        if rank() == 0:
            self._pending = self._writer.submit(self._write, step, copies, self.best, improved, last)

    def load(self, network: FaceNetwork, optimizer: optim.Optimizer) -> tuple[int, dict[str, Tensor]]:
        """Restore a network and its optimiser from the saved state.

        Returns:
            The number of steps that are done, 0 where there is no state; and what else the next step depends on.

        Raises:
            FacedanError: the file is damaged or belongs to another network.
        """
        if not self.state.exists():
            return 0, {}
        try:
            with open_safetensors(self.state) as file:
                about = parse_object(file.metadata()["facedan"])
                step = int(about["step"])
                best = None if about["best"] is None else Best(*about["best"])
                running_state = {key: file.get_tensor(key) for key in sorted(file.keys()) if key.startswith(_LOOP)}
                _load_network(network, file)
                _load_optimizer(optimizer, network.classifier, file)
        except torch.OutOfMemoryError:  # also a RuntimeError, but no fault of the file
            raise
        except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise FacedanError(
                f"the training state {self.state} cannot be used: {error}", "start the run again with --force"
            ) from error
        self.best, self.saved = best, step
        return step, _under(_LOOP, running_state)

    def _write(self, step: int, tensors: Mapping[str, Tensor], best: Best | None, improved: bool, last: bool) -> None:
        kept = last or (self.keep_every > 0 and step % self.keep_every == 0)
        name = MODEL_FILE if last else f"step-{step}.safetensors" if kept else BEST_FILE
        if kept or improved:
            save_tensors(self.directory / name, _under(_NETWORK, tensors), self.card)
        if kept and improved:
            with replacing(self.directory / BEST_FILE) as temporary:
                temporary.unlink(missing_ok=True)
                os.link(self.directory / name, temporary)
        if not last:
            with replacing(self.state) as temporary:
                save_file(dict(tensors), temporary, metadata={"facedan": json.dumps({"step": step, "best": best})})
            self.saved = step

    def _finish(self) -> None:
        """Wait until the last save is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _copies(network: FaceNetwork, optimizer: optim.Optimizer, running_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of all tensors of a state on the CPU, in the first process also the whole of a sharded classifier."""
    classifier, parameters = network.classifier, _parameters(optimizer)
    sharded = {id(parameter) for parameter in classifier.parameters()} if classifier.sharded else set()
    copies = {}
    for key, value in network.state_dict().items():
        of_classes = classifier.sharded and key.startswith(_CLASSIFIER)
        copies[_NETWORK + key] = gather_classes(classifier, value) if of_classes else _copied(value)
    for index, slots in optimizer.state_dict()["state"].items():
        of_classes = id(parameters[index]) in sharded
        for name, value in slots.items():
            if isinstance(value, Tensor):
                copy = gather_classes(classifier, value) if of_classes else _copied(value)
                copies[f"{_OPTIMIZER}{index}.{name}"] = copy
    copies |= {_LOOP + name: _copied(value) for name, value in running_state.items()}
    return {key: copy for key, copy in copies.items() if copy is not None}


def _copied(tensor: Tensor) -> Tensor | None:
    """A copy of a tensor in the process that writes."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) if rank() == 0 else None


def _load_network(network: FaceNetwork, file: Any) -> None:
    tensors = {}
    for key in sorted(file.keys()):
        name = key.removeprefix(_NETWORK)
        if key.startswith(_NETWORK + _CLASSIFIER):
            tensors[name] = load_shard(network.classifier, file, key)
        elif key.startswith(_NETWORK):
            tensors[name] = file.get_tensor(key)
    network.load_state_dict(tensors)


def _load_optimizer(optimizer: optim.Optimizer, classifier: Classifier, file: Any) -> None:
    parameters = _parameters(optimizer)
    of_classes = {id(parameter) for parameter in classifier.parameters()}
    slots: dict[int, dict[str, Tensor]] = {}
    for key in sorted(file.keys()):
        if key.startswith(_OPTIMIZER):
            index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
            parameter = parameters[int(index)]
            whole = id(parameter) not in of_classes
            value = file.get_tensor(key) if whole else load_shard(classifier, file, key)
            slots.setdefault(int(index), {})[name] = _laid_out_as(parameter, value)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The value in its parameter's memory layout, which fused kernels need."""
    return torch.empty_like(parameter.detach()).copy_(value) if value.shape == parameter.shape else value


def _parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    """The optimiser's parameters by their numbers in its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
