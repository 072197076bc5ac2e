"""Whether people of a model's target training images appear in a protocol: then it has seen whom it is tested on."""

from __future__ import annotations

from collections.abc import Mapping

from facedan_cli.protocols.overlap import overlap
from facedan_cli.protocols.sigset import Record
from facedan_cli.runs import read_record
from facedan_cli.stages.target_list import target_images
from facedan_cli.stages.trials import Side, Trials
from facedan_cli.workspace import Workspace


def seen_in_training(runs: Mapping[str, str], trials: Mapping[str, Trials], workspace: Workspace) -> list[str]:
    """Warnings about people of the protocol of whom a model has target training images, as far as names tell.

    Args:
        runs: the run that made each model, by the model's name.
        trials: the comparisons by partition.
        workspace: where the runs lie; nothing is said of runs or images that are not there.
    """
    records = [record for part in trials.values() for side in (part.query, part.target) for record in _records(side)]
    warnings = []
    for model, run in runs.items():
        target = read_record(workspace.root / "runs" / run).get("inputs", {}).get("target")
        found = overlap(target_images(target) if target else [], records)
        if found.subjects:
            some = ", ".join(found.subjects[:3]) + (", …" if len(found.subjects) > 3 else "")
            warnings.append(
                f"'{model}' was adapted on images of {len(found.subjects)} people of this protocol ({some}), "
                f"{len(found.images)} of them the protocol's own, as far as names tell: its figures are too good"
            )
    return warnings


def _records(side: Side) -> list[Record]:
    pairs = zip(side.subjects, side.files, strict=True)
    return [Record(str(subject), file.as_posix()) for subject, file in pairs]
