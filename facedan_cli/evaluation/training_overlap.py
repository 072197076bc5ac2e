"""Warnings about models that learnt from images or subjects of the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from facedan_cli.data.same_images import LEARNT, Learnt, learnt_images, places_of
from facedan_cli.evaluation.trials import ImageSet, Trials
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.protocols.overlap import Overlap, overlap
from facedan_cli.protocols.sigset import Record
from facedan_cli.runs import read_record
from facedan_cli.training.target_list import target_images
from facedan_cli.workspace import Workspace

TOO_OPTIMISTIC = "its values are too optimistic"


class Named(Protocol):
    """A model with its name in tables, its file and its card."""

    @property
    def name(self) -> str:
        """The model's name in tables."""

    @property
    def card(self) -> ModelCard:
        """The model's card."""

    @property
    def checkpoint(self) -> Path | None:
        """The model's file; None without training."""


def seen_in_training(models: Sequence[Named], trials: Mapping[str, Trials], workspace: Workspace) -> list[str]:
    """Warnings about models that learnt from images or subjects of the protocol.

    Images are found by contents and real paths, in source and target of a model and of the runs that it started from;
    subjects of the target also by names.

    Args:
        models: the measured models.
        trials: the comparisons by partition.
        workspace: workspace of the runs; missing runs are ignored.
    """
    sides = [side for part in trials.values() for side in (part.query, part.target)]
    records = [record for side in sides for record in _records(side)]
    measured = _Measured.of(sides)
    return [
        warning
        for model in models
        if model.checkpoint is not None
        for warning in _of(model, model.checkpoint, measured, records, workspace)
    ]


class _Measured:
    """The images of a protocol, each once, by contents and real paths."""

    def __init__(self, contents: np.ndarray, places: np.ndarray) -> None:
        self.contents, self.places = contents, places

    @classmethod
    def of(cls, sides: Sequence[ImageSet]) -> _Measured:
        known = {
            str(file): int(content)
            for side in sides
            if side.contents is not None
            for file, content in zip(side.files, side.contents, strict=True)
        }
        return cls(np.array(list(known.values()), np.int64), places_of(known))

    def among(self, learnt: Learnt) -> int:
        """The number of the images that a run learnt from."""
        by_place = np.isin(self.places, learnt.places, kind="sort")
        return len(np.unique(self.contents[by_place | np.isin(self.contents, learnt.contents, kind="sort")]))

    def __len__(self) -> int:
        return len(np.unique(self.contents))


def _of(
    model: Named, checkpoint: Path, measured: _Measured, records: Sequence[Record], workspace: Workspace
) -> Iterator[str]:
    """Yield the warnings about one model, at most one for each data set that it learnt from."""
    named = _by_name(model, records, workspace)
    seen: dict[tuple[str, str], int] = {}
    for learnt in learnt_images(checkpoint, model.card.run, workspace):
        place = learnt.role, learnt.name
        seen[place] = max(seen.get(place, 0), measured.among(learnt))
    for (role, name), count in seen.items():
        if count and not (role == "target" and named.subjects):
            yield (
                f"'{model.name}' was {LEARNT[role]} on {count} of the {len(measured)} images that are measured "
                f"({role} '{name}'): {TOO_OPTIMISTIC}"
            )
    if named.subjects:
        some = ", ".join(named.subjects[:3]) + (", …" if len(named.subjects) > 3 else "")
        own = max([len(named.images), *(count for (role, _), count in seen.items() if role == "target")])
        yield (
            f"'{model.name}' was adapted on images of {len(named.subjects)} subjects of this protocol ({some}), "
            f"{own} of them the protocol's own, as far as names and contents tell: {TOO_OPTIMISTIC}"
        )


def _by_name(model: Named, records: Sequence[Record], workspace: Workspace) -> Overlap:
    """The subjects of the protocol with target images, judged by names."""
    target = read_record(workspace.root / "runs" / model.card.run).get("inputs", {}).get("target")
    return overlap(target_images(target) if target else [], records)


def _records(side: ImageSet) -> list[Record]:
    pairs = zip(side.subjects, side.files, strict=True)
    return [Record(str(subject), file.as_posix()) for subject, file in pairs]
