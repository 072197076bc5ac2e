"""What an alignment has to do: which photographs, under which names, and what earlier runs left done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from facedan_cli.config import TEMPLATE_NAMES, AlignConfig, check_choice
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.faces.folder import IMAGE_SUFFIXES, walk_images
from facedan_cli.faces.records import read_records
from facedan_cli.workspace import MANIFEST_FILE, sha256_file, write_json

SETTINGS = "align.json"
SET_ASIDE = "set-aside.tsv"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run says of a photograph: its output, or why there is none, and the file it looked at."""

    output: str | None
    reason: str
    bytes: int
    modified: int


@dataclass(frozen=True)
class Job:
    """A photograph and the name of its aligned face, both relative to their roots.

    Args:
        done: what an earlier run made of this very file; None where it has to be aligned.
    """

    path: str
    output: str
    bytes: int
    modified: int
    done: Earlier | None


@dataclass(frozen=True)
class Survey:
    """How the photographs stand before a run.

    Args:
        total: photographs in the tree.
        already: those with an aligned face.
        failures: path and reason of those that failed earlier and have not changed.
    """

    total: int
    already: int
    failures: tuple[tuple[str, str], ...]

    @property
    def done(self) -> int:
        """Photographs that need no work."""
        return self.already + len(self.failures)


def check_config(config: AlignConfig) -> None:
    """Refuse what cannot be aligned.

    Raises:
        UsageError: an option has an impossible value, or one tree lies in the other.
        FacedanError: there is no photograph.
    """
    check_choice("--template", config.template, TEMPLATE_NAMES)
    for option, value, least in (
        ("--size", config.size, 1),
        ("--min-face", config.min_face, 12),  # what P-Net looks at
        ("--detector-batch", config.detector_batch, 1),
    ):
        if value < least:
            raise UsageError(f"{option} {value} is too small", f"give {least} or more")
    if not config.raw.is_dir():
        what = "is not a directory" if config.raw.exists() else "does not exist"
        raise FacedanError(f"{config.raw} {what}", "give the directory with the photographs")
    raw, out = config.raw.resolve(), config.out.resolve()
    if raw.is_relative_to(out) or out.is_relative_to(raw):
        raise UsageError(
            f"of {config.raw} and {config.out} one lies in the other: aligned faces would mix with photographs",
            "give a directory outside for the aligned faces",
        )
    if next(walk_images(config.raw), None) is None:
        raise FacedanError(f"{config.raw} holds no images", f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}")


def settle(config: AlignConfig) -> None:
    """Keep faces of different settings apart: record these in the aligned tree, or find that they are the same there.

    Raises:
        FacedanError: the tree was aligned with others.
    """
    path = config.out / SETTINGS
    settings = {
        "template": config.template,
        "size": config.size,
        "min_face": config.min_face,
        "landmarks": sha256_file(config.landmarks) if config.landmarks else None,
    }
    fix = "give another directory for the aligned faces, or align everything again with --force"
    if not path.exists():
        write_json(path, settings)
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise FacedanError(f"{path} is damaged", fix) from error
    different = [f"--{key.replace('_', '-')}" for key, value in settings.items() if earlier.get(key) != value]
    if different:
        raise FacedanError(f"the faces in {config.out} were aligned with another {', '.join(different)}", fix)


def start_over(out: Path) -> None:
    """Remove what earlier runs made in the aligned tree."""
    # A damaged manifest is a reason to start over, not an obstacle to it.
    with contextlib.suppress(FacedanError):
        for record in read_records(out / MANIFEST_FILE):
            if record.output is not None:
                (out / record.output).unlink(missing_ok=True)
    for name in (SET_ASIDE, SETTINGS, MANIFEST_FILE):
        (out / name).unlink(missing_ok=True)


def read_earlier(out: Path) -> dict[str, Earlier]:
    """What the manifest says, by photograph."""
    earlier: dict[str, Earlier] = {}
    owners: dict[str, str] = {}
    for record in read_records(out / MANIFEST_FILE):
        if record.output is not None:
            former = owners.get(record.output, record.path)
            if former != record.path:
                earlier.pop(former, None)  # its face was overwritten by another's
            owners[record.output] = record.path
        earlier[record.path] = Earlier(record.output, record.reason, record.bytes, record.modified)
    return earlier


def plan(raw: Path, out: Path, earlier: Mapping[str, Earlier]) -> Iterator[Job]:
    """All photographs of the tree in a fixed order.

    One is done if its file has the size and the time of change that the manifest names, and its aligned face, if it has
    one, is there. So what failed is tried again only where the file was replaced.
    """
    for _, siblings in groupby(walk_images(raw), key=lambda path: path.rpartition("/")[0]):
        paths = list(siblings)
        for path, output in output_names(paths, earlier).items():
            bytes_, modified = _size_and_time(raw / path)
            known = earlier.get(path)
            done = (
                known is not None
                and (known.bytes, known.modified) == (bytes_, modified)
                and (known.output is None or (out / known.output).is_file())
            )
            yield Job(path, output, bytes_, modified, known if done else None)


def survey(jobs: Iterable[Job]) -> Survey:
    """Count the photographs of a plan."""
    total = already = 0
    failures = []
    for job in jobs:
        total += 1
        if job.done is None:
            continue
        if job.done.output is None:
            failures.append((job.path, job.done.reason))
        else:
            already += 1
    return Survey(total, already, tuple(failures))


def inspect(config: AlignConfig) -> Survey:
    """How the photographs of an alignment stand; writes nothing.

    Raises:
        UsageError, FacedanError: as `check_config`.
    """
    check_config(config)
    return survey(plan(config.raw, config.out, read_earlier(config.out)))


def output_names(paths: Sequence[str], earlier: Mapping[str, Earlier]) -> dict[str, str]:
    """Names for the aligned faces of the photographs in one directory, `stem.jpg` where that is free.

    Where `a.jpg` and `a.png` lie side by side, the first gets `a.jpg` and the second `a.png.jpg`; a name given in an
    earlier run stays. Names that differ only in case count as the same: on some disks they are.
    """
    names = {path: known.output for path in paths if (known := earlier.get(path)) and known.output}
    taken = {name.lower() for name in names.values()}
    for path in paths:
        if path not in names:
            names[path] = next(name for name in _candidates(path) if name.lower() not in taken)
            taken.add(names[path].lower())
    return {path: names[path] for path in paths}


def _candidates(path: str) -> Iterator[str]:
    yield PurePosixPath(path).with_suffix(".jpg").as_posix()
    yield f"{path}.jpg"
    number = 2
    while True:
        yield f"{path}.{number}.jpg"
        number += 1


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link: reading it will say why
        return 0, 0
    return status.st_size, int(status.st_mtime)
