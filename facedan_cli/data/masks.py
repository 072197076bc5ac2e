"""Drawn masks over nose and mouth of aligned faces."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from facedan_cli.data.augment import Random
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import read_records
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES
from facedan_cli.workspace import find_manifest

_COLOURS = (
    ((120, 205), (165, 225), (190, 240)),  # surgical, blue and green
    ((215, 250), (215, 250), (215, 250)),  # white
    ((10, 60), (10, 60), (10, 60)),  # black
    ((30, 200), (30, 200), (30, 200)),  # cloth
)
"""Ranges of red, green and blue of the kinds of masks, which are equally likely."""

_LIGHT = (0.6, 1.0)
"""Range of the light on a mask."""

_BITS = 4
"""Fractional bits of OpenCV's coordinates."""


def draw_mask(face: np.ndarray, points: np.ndarray, random: Random) -> np.ndarray:
    """A copy of a face with a mask over nose and mouth, of random shape and colour.

    Args:
        face: RGB, uint8, shape (h, w, 3).
        points: eyes, nose and corners of the mouth in the order of `POINT_NAMES`, (x, y) in pixels, shape (5, 2).
        random: draws the mask.
    """
    eyes, mouth, nose = points[:2].mean(0), points[3:].mean(0), points[2]
    across = (points[1] - points[0]) / max(np.linalg.norm(points[1] - points[0]), 1e-6)
    unit = float(np.linalg.norm(points[1] - points[0]))
    down = np.array([-across[1], across[0]])
    length = float((mouth - eyes) @ down)  # from the eyes to the mouth
    centre = eyes + across * ((nose - eyes) @ across) / 2

    def at(sideways: float, along: float) -> np.ndarray:
        jitter = random.uniform(-0.04, 0.04, 2) * unit
        place: np.ndarray = centre + across * sideways * unit + down * along * length + jitter
        return place

    top = random.uniform(0.2, 0.5)  # the upper edge, between the eyes (0) and the mouth (1)
    half = [at(side * 1.05, top + 0.15) for side in (-1, 1)], [at(side * 0.95, 1.1) for side in (-1, 1)]
    chin = [at(side * 0.45, 1.75) for side in (-1, 1)]
    outline = [at(0, top), half[0][1], half[1][1], chin[1], at(0, 1.85), chin[0], half[1][0], half[0][0]]
    straps = [
        [sides[side], at((-1.35, 1.35)[side], height)]
        for sides, height in zip(half, (0.1, 0.6), strict=True)
        for side in (0, 1)
    ]
    cover = np.zeros(face.shape[:2], np.uint8)
    cv2.polylines(cover, _fixed(straps), False, 150, max(1, round(unit / 24)), cv2.LINE_AA, shift=_BITS)
    cv2.fillPoly(cover, _fixed([outline]), 255, cv2.LINE_AA, shift=_BITS)
    ranges, light = _COLOURS[int(random.integers(len(_COLOURS)))], random.uniform(*_LIGHT)
    colour = np.array([random.uniform(*one) for one in ranges], np.float32) * light
    # Only the part of the face that the mask is on is computed.
    left, upper, width, height = cv2.boundingRect(cover)
    part = np.s_[upper : upper + height, left : left + width]
    rows = np.arange(upper, upper + height, dtype=np.float32)[:, None, None]
    shade = 1 + random.uniform(-0.25, 0.25) * (rows / face.shape[0] - 0.7)
    if random.random() < 0.5:  # pleats
        shade = shade * (1 - 0.12 * (np.sin(rows * 2 * np.pi / max(4.0, length * random.uniform(0.15, 0.35))) > 0.7))
    share = (cover[part] * np.float32(1 / 255))[:, :, None]
    covered = face.copy()
    covered[part] = np.clip(np.rint(face[part] + (colour * shade - face[part]) * share), 0, 255)
    return covered


def _fixed(lines: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Points in OpenCV's fixed-point numbers."""
    return [np.rint(np.array(line) * (1 << _BITS)).astype(np.int32) for line in lines]


def landmarks_of(folder: FaceDataset, size: int, template: str) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """The five points of aligned faces by path, and those of the template for faces of which the manifest has none.

    Args:
        folder: aligned faces.
        size: side of the faces as they are read, pixels.
        template: the network's template, for faces that no manifest describes.

    Returns:
        Arrays of shape (5, 2), (x, y) in pixels of a face as it is read.
    """
    found: dict[str, np.ndarray] = {}
    usual = TEMPLATES[template].points(size, 5)
    manifest = find_manifest(folder.root)
    if manifest is None:
        return found, usual
    prefix = folder.root.resolve().relative_to(manifest.parent.resolve()).as_posix()
    prefix = "" if prefix == "." else f"{prefix}/"
    for record in read_records(manifest, []):
        if record.output is None or not record.output.startswith(prefix):
            continue
        if record.template in TEMPLATES:
            usual = TEMPLATES[record.template].shown(record.size, size, 5)
        if record.transform is not None and record.points is not None and not {*POINT_NAMES} - {*record.points}:
            points = np.array([record.points[name] for name in POINT_NAMES])
            matrix = np.array(record.transform)
            placed = points @ matrix[:, :2].T + matrix[:, 2]
            found[record.output.removeprefix(prefix)] = (placed + 0.5) * (size / record.size) - 0.5
    return found, usual
