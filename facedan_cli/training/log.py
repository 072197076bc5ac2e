"""What a training writes down as it goes on, and what can be seen in it."""

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
"""Features have collapsed where effective rank, or one less mean cosine, is below this share of what it was.

Both are measured against the first line of the log: what is usual differs between networks."""


class Log:
    """metrics.jsonl as it grows; of several processes only the first one writes it.

    Args:
        path: the file.
        start: the steps that are done; lines of later ones are dropped, for they will be done again.
        tensorboard: a directory for TensorBoard's copy of the numbers; None: there is none.

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
        """Add a line."""
        self.last = entry
        if entry["step"] > 0:
            self.first = self.first or entry
        if rank() == 0:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")
        if self._board is not None:
            for tag, value in scalars({key: value for key, value in entry.items() if key != "step"}):
                self._board.add_scalar(tag, value, entry["step"])
            self._board.flush()  # whatever stops the process: a state that is saved later has its numbers here

    def collapse(self, entry: dict[str, Any]) -> str:
        """A warning, once, where the features of a domain have fallen together; empty where they have not."""
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
    """Refuse where TensorBoard is not installed.

    Raises:
        FacedanError: with how to install it.
    """
    if find_spec("tensorboard") is None:
        raise FacedanError(
            "--tensorboard needs TensorBoard, which is not installed", "pip install 'facedan[tensorboard]'"
        )


def scalars(entry: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of an entry by TensorBoard's tags: what lies within a value is named after it (`beta_fc6/0`)."""
    for key, value in entry.items():
        if isinstance(value, Mapping | list):
            inner = value if isinstance(value, Mapping) else dict(enumerate(value))
            yield from scalars(inner, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value


def shape_of_features(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, float]:
    """How the features of each domain lie: where λ is too high they fall together before results show it."""
    shape = {}
    for domain, features in (("source", source), ("target", target)):
        for layer, rows in features.items():
            shape[f"norm_{layer}_{domain}"] = mean_norm(rows)
            shape[f"rank_{layer}_{domain}"] = effective_rank(rows)
            shape[f"cosine_{layer}_{domain}"] = mean_cosine(rows)
    return shape


def _open_board(directory: Path, start: int) -> SummaryWriter:
    """TensorBoard's writer, which hides what was written there of steps that are not done."""
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(directory, purge_step=start + 1 if start else 0)


def _lines_up_to(log: Path, step: int) -> list[dict[str, Any]]:
    """The lines that stay when an interrupted run goes on: not those of steps that it has to do again."""
    return [entry for entry in read_entries(log) if entry["step"] <= step and step > 0]
