"""Origins of faces by the manifest: the file that each face was made from, and the images without a face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.data.dataset import FaceDataset, identity_of
from facedan_cli.data.formats import is_archive
from facedan_cli.data.manifest import FAILED, AlignedRecord, OddLine, read_records
from facedan_cli.workspace import find_manifest, on_one_line


@dataclass(frozen=True)
class MissingImage:
    """An image without features.

    Args:
        path: path in lists: the face, or the file before alignment if there is no face.
        face: path of the face, existing or not, relative to the data set; "" if unknown.
        reason: reason why it has no features.
        identity: identity by the folder of its face, or by the list; "" if unknown.
        in_dataset: whether the data set holds the image; false if `align` set it aside and the data set is a list.
    """

    path: str
    face: str
    reason: str
    identity: str
    in_dataset: bool = True


@dataclass(frozen=True)
class Origins:
    """The origins of a data set's images by its manifest.

    Args:
        files: for each face, the file that it was made from, both relative to the data set's directory; a file in an
            archive has the archive's name before its own.
        failed: images that could not be aligned, by their files' names.
        digests: for each face, the SHA-256 of its original image, in hex, if the manifest has it.
    """

    files: Mapping[str, str]
    failed: Mapping[str, MissingImage]
    digests: Mapping[str, str]


def read_origins(root: Path, folder: FaceDataset, odd: list[OddLine] | None = None) -> Origins:
    """The origins by the manifest in or above a data set; empty without a manifest.

    Args:
        root: the tree or the list.
        folder: the images of the data set; only those of a list if it is one.
        odd: receives the damaged lines of the manifest; None: a damaged line is an error.
    """
    manifest = find_manifest(folder.root)
    if manifest is None:
        return Origins({}, {}, {})
    prefix = folder.root.resolve().relative_to(manifest.parent.resolve()).as_posix()
    prefix = "" if prefix == "." else prefix + "/"
    whole = root.is_dir()
    last: dict[str, AlignedRecord] = {}
    for record in read_records(manifest, odd):
        if _place_of(record).startswith(prefix):
            last[record.path] = record
        else:
            last.pop(record.path, None)
    files = {
        record.output.removeprefix(prefix): path.removeprefix(prefix)
        for path, record in last.items()
        if record.output is not None
    }
    digests = {
        record.output.removeprefix(prefix): record.digest
        for record in last.values()
        if record.output is not None and record.digest
    }
    names = dict(zip(folder.paths, folder.names, strict=True))
    failed = {}
    for path, record in last.items():
        face = _face_of(record).removeprefix(prefix)
        if record.status != FAILED or (face in names and face not in files):
            continue  # a face that stands where its own would be was put there by hand
        identity = identity_of(face) if face and whole else ""
        reason = f"not aligned: {record.reason}"
        failed[path.removeprefix(prefix)] = MissingImage(path.removeprefix(prefix), face, reason, identity, whole)
    return Origins(files, failed, digests)


def is_directory(path: str) -> bool:
    """Whether a path that could not be read is a directory, whose number of images is unknown."""
    return path.endswith("/")


def missing_images(folder: FaceDataset, origins: Origins, unreadable: Mapping[str, str]) -> list[MissingImage]:
    """The images without features: those that failed in alignment, and unreadable ones of the data set.

    Args:
        folder: the data set.
        origins: the origins of the data set.
        unreadable: reasons by the paths of `folder`, as `read_set_aside` gives them. Where such a file is not there
            because it could not be aligned, the manifest's reason is given.
    """
    names = dict(zip(folder.paths, folder.names, strict=True))
    never_made = {image.face: image for image in origins.failed.values() if image.face}
    found = []
    explained = set()
    spelled = {on_one_line(path): path for path in folder.paths} if unreadable else {}
    for listed, reason in unreadable.items():
        path = spelled.get(listed, listed)
        identity = names.get(path, "")
        known = never_made.get(path) if path not in origins.files and not (folder.root / path).exists() else None
        if known is None:
            found.append(MissingImage(path, path, reason, identity))
        else:
            explained.add(known.path)
            found.append(MissingImage(known.path, path, known.reason, identity))
    return [image for path, image in origins.failed.items() if path not in explained] + found


def _place_of(record: AlignedRecord) -> str:
    """The path that the record's face has or would have; the image's own path if that is unknown."""
    return record.output or _face_of(record) or record.path


def _face_of(record: AlignedRecord) -> str:
    """The path of a record's face, existing or not; "" if unknown, as for an unreadable directory."""
    if is_directory(record.path):
        return ""
    if record.output is not None or record.meant is not None:
        return record.output or record.meant or ""
    # Manifests of earlier versions do not say it: in a tree a face lies where its image lay.
    folders = record.path.split("/")[:-1]
    if any(is_archive(folder) for folder in folders) or is_archive(record.path):
        return ""
    return record.path.rpartition(".")[0] + ".jpg"
