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
    ((20, 240), (20, 240), (20, 240)),  # cloth
)
"""Ranges of red, green and blue of the kinds of masks, which are equally likely."""


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

    top = random.uniform(0.25, 0.6)  # the upper edge, between the eyes (0) and the mouth (1)
    half = [at(side * 1.05, top + 0.15) for side in (-1, 1)], [at(side * 0.95, 1.1) for side in (-1, 1)]
    chin = [at(side * 0.45, 1.75) for side in (-1, 1)]
    outline = [at(0, top), half[0][1], half[1][1], chin[1], at(0, 1.85), chin[0], half[1][0], half[0][0]]
    cover = np.zeros(face.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.rint(np.array(outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    ranges = _COLOURS[int(random.integers(len(_COLOURS)))]
    colour = np.array([random.uniform(*one) for one in ranges])
    rows = np.arange(face.shape[0])[:, None, None]
    shade = 1 + random.uniform(-0.25, 0.25) * (rows / face.shape[0] - 0.7)
    if random.random() < 0.5:  # pleats
        shade = shade * (1 - 0.12 * (np.sin(rows * 2 * np.pi / max(4.0, length * random.uniform(0.15, 0.35))) > 0.7))
    share = (cover / 255.0)[:, :, None]
    covered: np.ndarray = np.clip(np.rint(face * (1 - share) + colour * shade * share), 0, 255).astype(np.uint8)
    return covered


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
