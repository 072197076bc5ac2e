"""The log of a training, metrics.jsonl, and the warning about collapsed features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from facedan_cli.adaptation.diagnostics import effective_rank, mean_cosine, mean_norm
from facedan_cli.distributed import rank
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_entries
from facedan_cli.workspace import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LEAST_RANK, LEAST_ANGLE = 0.1, 0.01
"""Share of its first value below which effective rank, or 1 − mean cosine, shows collapsed features.

The first value is in the first line of the log, since usual values differ between networks."""


class Log:
    """metrics.jsonl of a training; only the first process writes it.

    Args:
        path: the file.
        start: finished steps; lines of later ones are dropped, for they are done again.
        tensorboard: directory of TensorBoard's events; None: none are written.

    Raises:
        FacedanError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, start: int, tensorboard: Path | None = None) -> None:
        self.path = path
        self.warned = False
        kept = _lines_up_to(path, start)
        if rank() == 0:
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self.last: dict[str, Any] = kept[-1] if kept else {}
        self.first: dict[str, Any] = next((entry for entry in kept if entry["step"] > 0), {})
        self._board = None if tensorboard is None or rank() > 0 else _open_board(tensorboard, start)

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line."""
        self.last = entry
        if entry["step"] > 0:
            self.first = self.first or entry
        if rank() == 0:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")
        if self._board is not None:
            for tag, value in scalars({key: value for key, value in entry.items() if key != "step"}):
                self._board.add_scalar(tag, value, entry["step"])
            self._board.flush()  # a state that is saved later has its numbers on disk, whatever stops the process

    def collapse(self, entry: dict[str, Any]) -> str:
        """A warning, once, if the features of a domain have collapsed; else ""."""
        for key, now in entry.items():
            if self.warned or not key.startswith("rank_"):
                continue
            before, beside = self.first.get(key, now), key.replace("rank_", "cosine_")
            cosine = entry[beside]
            if now < LEAST_RANK * before or 1 - cosine < LEAST_ANGLE * (1 - self.first.get(beside, cosine)):
                self.warned = True
                layer, _, domain = key.removeprefix("rank_").rpartition("_")
                return (
                    f"step {entry['step']}: the {layer} features of the {domain} have collapsed (effective rank "
                    f"{before:.1f} at first, {now:.1f} now; mean cosine {cosine:.3f}): lower --lambda or --lr"
                )
        return ""


def check_tensorboard() -> None:
    """Raise an error if TensorBoard is not installed.

    Raises:
        FacedanError: with how to install it.
    """
    if find_spec("tensorboard") is None:
        raise FacedanError(
            "--tensorboard needs TensorBoard, which is not installed", "pip install 'facedan[tensorboard]'"
        )


def scalars(entry: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of an entry with TensorBoard tags; nested values are named `beta_fc6/0`."""
    for key, value in entry.items():
        if isinstance(value, Mapping | list):
            inner = value if isinstance(value, Mapping) else dict(enumerate(value))
            yield from scalars(inner, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value


def shape_of_features(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, float]:
    """Norm, effective rank and mean cosine of the features of each domain, which show a collapse if λ is too high."""
    shape = {}
    for domain, features in (("source", source), ("target", target)):
        for layer, rows in features.items():
            shape[f"norm_{layer}_{domain}"] = mean_norm(rows)
            shape[f"rank_{layer}_{domain}"] = effective_rank(rows)
            shape[f"cosine_{layer}_{domain}"] = mean_cosine(rows)
    return shape


def _open_board(directory: Path, start: int) -> SummaryWriter:
    """The TensorBoard writer, which hides earlier events of steps after `start`."""
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(directory, purge_step=start + 1 if start else 0)


def _lines_up_to(log: Path, step: int) -> list[dict[str, Any]]:
    """The lines up to a step; a resumed run repeats the later steps."""
    return [entry for entry in read_entries(log) if entry["step"] <= step and step > 0]
