"""Detection of faces whose images are cropped tightly, up to inside the face.

    python benchmarks/tight_crops.py [IMAGES] [--images 610] [--eyes FILE] [--json] [--smoke]

Each image is cut around the face that is found in it as a whole: the box of the face, wider on each side by a margin
of its own width and height, of which some are negative. The crop is searched. A face is right if its eyes lie on
average within a quarter of the eye distance from those that were found in the whole image; the error is that average in
eye distances, its median taken over all faces that are found. With `--eyes` IMAGES are searched as they are, and
compared with the file, `NAME X Y X Y` a line, the image's left eye first, as of CSU ScrapShots. Without a directory
faces are drawn; `--smoke` takes few of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from facedan_cli.alignment.detector import Detector, Face, choose
from facedan_cli.config.common import LANDMARK_OFFSETS, REFERENCE_OFFSET, AlignConfig
from facedan_cli.data.images import read_image
from facedan_cli.data.walk import walk
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render

MARGINS = (-0.25, -0.15, -0.1, 0.0, 0.1, 0.2)
RIGHT = 0.25
BATCH = 32


def drawn(count: int) -> list[np.ndarray]:
    """Drawn faces of 250 × 250 pixels."""
    randoms = [np.random.default_rng(number) for number in range(count)]
    return [render(draw_identity(random), draw_view(random, WEB), 250) for random in randoms]


def detect(detector: Detector, images: Sequence[np.ndarray]) -> list[Face | None]:
    """The chosen face of each image, None where none is found."""
    found: list[Face | None] = []
    for first in range(0, len(images), BATCH):
        some = images[first : first + BATCH]
        faces = zip(some, detector.detect(some), strict=True)
        found += [choose(own, image.shape[1], image.shape[0]) if own else None for image, own in faces]
    return found


def cut(image: np.ndarray, face: Face, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The face with a margin, as far as the image goes; and the crop's first pixel (x, y) in the image."""
    box = np.array(face.box).reshape(2, 2)
    wider = margin * (box[1] - box[0])
    start = np.rint(np.maximum(box[0] - wider, 0)).astype(int)
    stop = np.rint(np.minimum(box[1] + wider, image.shape[1::-1])).astype(int)
    return np.ascontiguousarray(image[start[1] : stop[1], start[0] : stop[0]]), start


def rates(found: Sequence[Face | None], eyes: Sequence[np.ndarray]) -> dict[str, float]:
    """The share of images with a face and with the right one, and the median error of the eyes, in eye distances."""
    errors = [
        float(np.linalg.norm(face.points[:2] - truth, axis=1).mean() / np.linalg.norm(truth[1] - truth[0]))
        for face, truth in zip(found, eyes, strict=True)
        if face is not None
    ]
    right = sum(error < RIGHT for error in errors)
    return {
        "images": len(eyes),
        "found": len(errors) / len(eyes),
        "right": right / len(eyes),
        "eyes_median": float(np.median(errors)) if errors else float("nan"),
    }


def read_eyes(path: Path) -> dict[str, np.ndarray]:
    """The eyes by the names of images."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return {line[0]: np.array(line[1:5], float).reshape(2, 2) for line in lines if len(line) >= 5}


def measured(
    images: Sequence[np.ndarray], eyes: Sequence[np.ndarray] | None, *, reference: bool
) -> dict[str, dict[str, float]]:
    """The rates of each margin, or of the images as they are."""
    detector = Detector(torch.device("cpu"), AlignConfig.min_face, reference=reference)
    whole = detect(detector, images)
    if eyes is not None:
        return {"as they are": rates(whole, eyes)}
    results = {}
    both = [(image, face) for image, face in zip(images, whole, strict=True) if face is not None]
    for margin in MARGINS:
        crops, starts = zip(*(cut(image, face, margin) for image, face in both), strict=True)
        truth = [face.points[:2] - start for (_, face), start in zip(both, starts, strict=True)]
        results[f"margin {margin}"] = rates(detect(detector, crops), truth)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", metavar="IMAGES", nargs="?", type=Path, help="a directory of images")
    parser.add_argument("--images", type=int, default=610)
    parser.add_argument("--eyes", type=Path, help="a file with the eyes of images that are searched as they are")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="few drawn faces: whether it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    eyes = None
    if given.smoke or given.directory is None:
        images = drawn(3 if given.smoke else given.images)
    else:
        paths = [given.directory / path for path in walk(given.directory)]
        if given.eyes is not None:
            known = read_eyes(given.eyes)
            paths = [path for path in paths if path.stem in known]
            eyes = [known[path.stem] for path in paths][: given.images]
        every = 1 if eyes is not None else max(1, len(paths) // given.images)
        images = [read_image(path) for path in paths[::every][: given.images]]
    results = {
        offset: measured(images, eyes, reference=offset == REFERENCE_OFFSET)
        for offset in (LANDMARK_OFFSETS[:1] if given.smoke else LANDMARK_OFFSETS)
    }
    if given.json:
        print(json.dumps(results))
        return
    for offset, rows in results.items():
        for name, row in rows.items():
            print(f"{offset:<10} {name:<13}" + "".join(f"  {key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
