"""The target of adaptation: a data set, or a sigset such as a training set of GBU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.errors import FacedanError
from facedan_cli.protocols.matching import match_images
from facedan_cli.protocols.sigset import read_sigset
from facedan_cli.training.datasets import describe
from facedan_cli.workspace import Dataset, Workspace


@dataclass(frozen=True)
class Target:
    """Unlabelled faces to adapt to.

    Args:
        dataset: name and directory of the faces.
        folder: the faces.
        sigset: the list that they are from; None for a whole data set.
    """

    dataset: Dataset
    folder: FaceDataset
    sigset: Path | None

    def describe(self) -> dict[str, Any]:
        """The entry of the target in run.json."""
        facts = describe(self.dataset, self.folder)
        return facts if self.sigset is None else facts | {"sigset": str(self.sigset.resolve())}


def read_target(name: str, workspace: Workspace) -> Target:
    """Read the faces of `--target`.

    A sigset lists images of the data set with the name of its directory: protocols/gbu/LIST.xml those of `gbu`. They
    are matched by base name. Missing images keep their listed names, so that their reader sets them aside.

    Raises:
        UsageError: there is no such data set.
        FacedanError: it holds no images, or not one of the listed ones.
    """
    named = workspace.dataset(name)
    if not (named.root.is_file() and named.root.suffix.lower() == ".xml"):
        return Target(named, read_dataset(named.root).remembered_in(workspace.root), None)
    sigset = named.root
    faces = workspace.dataset(sigset.resolve().parent.name)
    images = read_dataset(faces.root).remembered_in(workspace.root)
    listed = [record.file_name for record in read_sigset(sigset)]
    match = match_images(listed, images.paths, by_base_name=True)
    if not match.rows:
        raise FacedanError(
            f"not one of the {len(listed)} images that {sigset} lists is in the data set '{faces.name}' ({faces.root})",
            "the images of a list are those of the data set with the name of its directory",
        )
    paths = [images.paths[match.rows[image]] if image in match.rows else image for image in listed]
    folder = replace(images, paths=tuple(paths), names=("",) * len(paths))
    return Target(Dataset(named.name, images.root), folder, sigset)


def target_images(facts: dict[str, Any]) -> list[str]:
    """The image names of the target in a run.json; empty if the target is gone."""
    try:
        if "sigset" in facts:
            return [record.file_name for record in read_sigset(Path(facts["sigset"]))]
        return list(read_dataset(Path(facts["root"])).paths)
    except FacedanError:
        return []
