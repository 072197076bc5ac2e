"""The templates of aligned faces, and warnings where they differ from those that a model learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import GIVEN, read_records
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import find_manifest


def template_name(root: Path) -> str | None:
    """The template of the faces below a directory, "given" if not facedan aligned them; None if unknown."""
    manifest = find_manifest(root)
    if manifest is None:
        return None
    try:
        return next((record.template for record in read_records(manifest) if record.output is not None), None)
    except FacedanError:  # the reader of its faces reports it
        return None


def templates_of(folder: FaceDataset) -> set[str | None]:
    """The templates of a data set's faces; with None where some have no aligned.jsonl."""
    directories = {(folder.root / path).parent for path in folder.paths}
    manifests = {find_manifest(directory) for directory in directories}
    return {None if manifest is None else template_name(manifest.parent) for manifest in manifests}


def alignment_warnings(
    models: Mapping[str, FaceModel], folders: Mapping[str, FaceDataset], report: Report = SILENT
) -> list[str]:
    """Warnings about faces that may be unaligned, or stand on another template than those that a network learnt from.

    Args:
        models: by their names in the report.
        folders: the faces, by their names in the report.
        report: gets a note where the alignment of both the measured images and the source is unknown.
    """
    warnings = []
    for name, folder in folders.items():
        found = templates_of(folder)
        if None in found:
            unknown = (
                f"no aligned.jsonl says that the faces of '{name}' are aligned; unaligned faces are recognised far "
                f"worse: facedan align {folder.root} ALIGNED, with --no-align if they are aligned already"
            )
            if any(model.card.template != "" for model in models.values()):
                warnings.append(unknown)
            else:  # the source's images were no better known: nothing says that these differ
                report.note(unknown)
        for label, model in models.items():
            learnt = "" if model.classical else model.card.template
            others = sorted(template for template in found if template is not None and template != learnt)
            if learnt and others:
                mend = "--no-align of faces aligned alike" if learnt == GIVEN else f"--template {learnt}"
                warnings.append(
                    f"the faces of '{name}' are aligned to the template {', '.join(others)}, those that '{label}' "
                    f"learnt from to {learnt}; it recognises others far worse: facedan align RAW ALIGNED {mend}"
                )
    return warnings
