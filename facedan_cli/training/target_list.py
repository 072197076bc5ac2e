"""What `--target` may name: a data set, or a sigset such as a training set of GBU."""

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
        dataset: their name; its root is the directory of the faces.
        folder: the faces.
        sigset: the list that chose them; None of a whole data set.
    """

    dataset: Dataset
    folder: FaceDataset
    sigset: Path | None

    def describe(self) -> dict[str, Any]:
        """What run.json says of it."""
        facts = describe(self.dataset, self.folder)
        return facts if self.sigset is None else facts | {"sigset": str(self.sigset.resolve())}


def read_target(name: str, workspace: Workspace) -> Target:
    """The faces that `--target` names.

    A sigset is a list of images of the data set that is called as its directory: protocols/gbu/LIST.xml of `gbu`. They
    are found by base name. Listed images that are not there keep their names, so that its reader sets them aside.

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
            "a list's images are looked for in the data set that is called as the list's directory",
        )
    paths = [images.paths[match.rows[image]] if image in match.rows else image for image in listed]
    folder = replace(images, paths=tuple(paths), names=("",) * len(paths))
    return Target(Dataset(named.name, images.root), folder, sigset)


def target_images(facts: dict[str, Any]) -> list[str]:
    """The names of the images that run.json calls the target of a run; none where they are no longer there."""
    try:
        if "sigset" in facts:
            return [record.file_name for record in read_sigset(Path(facts["sigset"]))]
        return list(read_dataset(Path(facts["root"])).paths)
    except FacedanError:
        return []
