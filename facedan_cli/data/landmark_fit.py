"""How well the landmarks of aligned faces lie on their template, by the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedan_cli.data.manifest import SETTINGS, AlignedRecord, read_records
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES
from facedan_cli.json_files import read_object
from facedan_cli.workspace import find_manifest

FIT = "landmark_fit"
"""The key in align.json of the fit of faces that were not detected."""

LEAST_FACES = 20
"""Smallest number of faces that say something of their data set."""

EYE_DISTANCE = (0.9, 1.12)
"""Usual median eye distance, as a share of the template's: 1.00 to 1.08 in data sets that are aligned well."""

SPREAD = 0.13
"""Largest usual median distance of landmarks from the template, in eye distances: 0.05 to 0.10 in such data sets."""

_WHOLE = 4_000_000
_PLACES = 1000


@dataclass(frozen=True)
class LandmarkFit:
    """The landmarks of a data set after alignment, beside those of its template.

    Args:
        faces: the number of faces with five landmarks that were looked at.
        eye_distance: median distance of the eyes, as a share of the template's.
        spread: median over the faces of the root mean square distance of the five landmarks from the template's, in
            eye distances of the template.
        copied: whether the landmarks are those found in copied faces, of which the template is only stated.
    """

    faces: int
    eye_distance: float
    spread: float
    copied: bool = False

    @property
    def problem(self) -> str | None:
        """What is unusual, in words; None if nothing is."""
        low, high = EYE_DISTANCE
        found = []
        if not low <= self.eye_distance <= high:
            found.append(f"the eyes lie {self.eye_distance:.2f} of the template's distance apart (usual: {low}–{high})")
        if self.spread > SPREAD:
            found.append(f"landmarks lie {self.spread:.2f} eye distances off the template (usual: up to {SPREAD})")
        return " and ".join(found) or None


def landmark_fit(root: Path) -> LandmarkFit | None:
    """The fit of the faces below a directory; None where fewer than `LEAST_FACES` have five landmarks.

    The similarity of an alignment cannot bend a face: landmarks that do not form one stay off the template. It hides
    landmarks that are all shifted alike. Large manifests are sampled. Of copied faces it is what `align` has recorded.
    """
    manifest = find_manifest(root)
    if manifest is None:
        return None
    root = root if root.is_dir() else root.parent  # of a list
    prefix = root.resolve().relative_to(manifest.parent.resolve()).as_posix()
    prefix = "" if prefix == "." else prefix + "/"
    last = {record.path: record for record in _records(manifest)}
    found = []
    for record in last.values():
        if record.output is not None and record.output.startswith(prefix) and (own := _of_record(record)) is not None:
            found.append(own)
    return fit_of(found) if len(found) >= LEAST_FACES else recorded_fit(manifest.parent)


def fit_of(found: Sequence[tuple[float, float]]) -> LandmarkFit:
    """The fit of faces by their `offsets`."""
    eyes, spreads = np.array(found).T
    return LandmarkFit(len(found), float(np.median(eyes)), float(np.median(spreads)))


def offsets(points: np.ndarray, template: str, size: int) -> tuple[float, float]:
    """The eye distance, and the root mean square distance from the template, in eye distances of the template.

    Args:
        points: the five points in an aligned face, shape (5, 2).
        template: a name of `config.templates.TEMPLATES`.
        size: side of the face, pixels.
    """
    targets = TEMPLATES[template].points(size, 5)
    unit = np.linalg.norm(targets[1] - targets[0])
    spread = np.sqrt(((points - targets) ** 2).sum(1).mean()) / unit
    return float(np.linalg.norm(points[1] - points[0]) / unit), float(spread)


def recorded_fit(tree: Path) -> LandmarkFit | None:
    """The fit that `align --no-align` found in a sample; None if there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        entry = read_object(tree / SETTINGS)[FIT]
        return LandmarkFit(int(entry["faces"]), float(entry["eye_distance"]), float(entry["spread"]), copied=True)
    return None


def as_entry(fit: LandmarkFit) -> dict[str, float]:
    """A fit for align.json."""
    return {"faces": fit.faces, "eye_distance": round(fit.eye_distance, 4), "spread": round(fit.spread, 4)}


def _of_record(record: AlignedRecord) -> tuple[float, float] | None:
    """The `offsets` of a face; None without five landmarks."""
    if record.transform is None or record.template not in TEMPLATES or set(POINT_NAMES) - set(record.points or ()):
        return None
    points = np.array([(record.points or {})[name] for name in POINT_NAMES])
    matrix = np.array(record.transform)
    return offsets(points @ matrix[:, :2].T + matrix[:, 2], record.template, record.size)


def _records(manifest: Path) -> Iterator[AlignedRecord]:
    """The records of a manifest; of a large one those at places that are spread evenly."""
    size = manifest.stat().st_size
    if size <= _WHOLE:
        yield from read_records(manifest, [])
        return
    with manifest.open("rb") as file:
        for place in range(0, size, size // _PLACES):
            file.seek(place)
            file.readline()  # the rest of a line
            try:
                yield AlignedRecord.from_line(file.readline().decode(errors="surrogateescape"))
            except ValueError:  # damaged, or none is left
                continue
