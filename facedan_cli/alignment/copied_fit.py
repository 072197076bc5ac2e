"""Whether faces that were aligned elsewhere lie on the template that is stated of them: a search in some tells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from facedan_cli.alignment.detector import Detector, choose
from facedan_cli.alignment.target import Target
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.data.landmark_fit import FIT, LEAST_FACES, LandmarkFit, as_entry, fit_of, offsets, recorded_fit
from facedan_cli.data.manifest import SETTINGS, read_records
from facedan_cli.workspace import MANIFEST_FILE, write_json

_SAMPLE = 64
_BATCH = 16
_LARGEST = 4
"""Smallest face that is looked for, as a divisor of the side: an aligned face fills most of its image."""


def check_copied(out: Path, target: Target, *, again: bool) -> LandmarkFit | None:
    """Compare the landmarks of some faces with the stated template, and record the result in align.json.

    Args:
        out: the tree of copied faces.
        target: what is stated of them.
        again: whether there are new faces; else the recorded result is returned if there is one.

    Returns:
        The fit; None where fewer than `LEAST_FACES` have been found.
    """
    known = recorded_fit(out)
    if known is not None and not again:
        return known
    faces = [record.output for record in read_records(out / MANIFEST_FILE, []) if record.output is not None]
    paths = list(islice(dict.fromkeys(faces[:: max(1, len(faces) // _SAMPLE)]), _SAMPLE))
    if len(paths) < LEAST_FACES:
        return None
    found = _points(list(_readable(out / path for path in paths)), target.size)
    if len(found) < LEAST_FACES:
        return None
    fit = fit_of([offsets(points, target.template, target.size) for points in found])
    settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    write_json(out / SETTINGS, settings | {FIT: as_entry(fit)})
    return fit


def _readable(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        with contextlib.suppress(UnreadableImage):
            yield read_image(path)


def _points(faces: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """The five points of those faces in which MTCNN finds one, each (5, 2)."""
    detector = Detector(torch.device("cpu"), max(20, size // _LARGEST), second_pass=False)
    found = []
    for first in range(0, len(faces), _BATCH):
        some = faces[first : first + _BATCH]
        for face, candidates in zip(some, detector.detect(some), strict=True):
            if candidates:
                found.append(choose(candidates, face.shape[1], face.shape[0]).points)
    return found
