"""The state of an unfinished training: everything that its next step depends on, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from facedan_cli.errors import FacedanError
from facedan_cli.workspace import replacing


def save_state(
    path: Path, step: int, network: nn.Module, optimizer: optim.Optimizer, penalty: Mapping[str, Tensor] | None = None
) -> None:
    """Write the state after `step` steps, whole or not at all.

    Random numbers and the positions of the data need no saving: they are functions of the seed and the step.

    Args:
        path: the file.
        step: steps that are done.
        network: the network.
        optimizer: its optimiser.
        penalty: what the penalty remembers of earlier batches.
    """
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items() if isinstance(value, Tensor)}
    tensors |= {f"penalty.{name}": value for name, value in (penalty or {}).items()}
    with replacing(path) as temporary:
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"step": str(step)})


def load_state(path: Path, network: nn.Module, optimizer: optim.Optimizer) -> tuple[int, dict[str, Tensor]]:
    """Bring a network and its optimiser back to where `save_state` left them.

    Returns:
        The number of steps that were done, and what the penalty remembers.

    Raises:
        FacedanError: the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(path)
        network.load_state_dict(_under("network.", tensors))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, _, name = key.partition(".")
            slots.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FacedanError(
            f"the training state {path} cannot be used: {error}", "start the run again with --force"
        ) from error
    return step, _under("penalty.", tensors)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
