"""How fast and how exact `facedan align` is beside a plain loop of facenet-pytorch's MTCNN.

    python benchmarks/align.py [PHOTOGRAPHS] [--images 200] [--rounds 3] [--json]

Both do the whole work on the same photographs: decode, find the face, warp, encode. They take turns, and the ratio is
that of the medians. Without a directory of photographs the benchmark draws faces. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

from facedan_cli.config import AlignConfig
from facedan_cli.faces.detect import Face, choose
from facedan_cli.faces.folder import walk_images
from facedan_cli.faces.geometry import POINT_NAMES, TEMPLATES, similarity, three_points, warp
from facedan_cli.faces.pictures import read_picture
from facedan_cli.faces.records import read_records
from facedan_cli.faces.synthetic import WEB, draw_identity, draw_view, render
from facedan_cli.stages.align import JPEG_QUALITY, align


def draw(directory: Path, images: int) -> None:
    """Faces of 250 × 250 pixels where no photographs were given."""
    for number in range(images):
        rng = np.random.default_rng(number)
        cv2.imwrite(
            str(directory / f"{number:05d}.jpg"), render(draw_identity(rng), draw_view(rng, WEB), 250)[:, :, ::-1]
        )


def plain_loop(raw: Path, out: Path, min_face: int) -> dict[str, np.ndarray]:
    """What people write: one image after the other through MTCNN.detect; returns the chosen face's five points."""
    detector = MTCNN(min_face_size=min_face)
    template = TEMPLATES[AlignConfig.template].points(AlignConfig.size)
    points_of = {}
    for path in walk_images(raw):
        picture = read_picture(raw / path)
        boxes, probabilities, points = detector.detect(picture, landmarks=True)
        if boxes is None:
            continue
        faces = [
            Face(tuple(box), float(probability), np.asarray(five, float))
            for box, probability, five in zip(boxes, probabilities, points, strict=True)
        ]
        chosen = choose(faces, picture.shape[1], picture.shape[0])
        face = warp(picture, similarity(three_points(chosen.points), template), AlignConfig.size)
        target = (out / path).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), face[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        points_of[path] = chosen.points
    return points_of


def agreement(ours: Path, theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """How far apart the five points of the chosen faces are; one face is meant where they are within 10 pixels."""
    found = {
        record.path: np.array([record.points[name] for name in POINT_NAMES])
        for record in read_records(ours)
        if record.points is not None
    }
    both = sorted(found.keys() & theirs.keys())
    apart = np.array([np.abs(found[path] - theirs[path]).max() for path in both])
    same = apart < 10
    return {
        "same_face": float(same.mean()),
        "landmark_median_px": float(np.median(apart[same])),
        "landmark_p999_px": float(np.quantile(apart[same], 0.999)),
        "lost": len(theirs.keys() - found.keys()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # MTCNN makes ragged arrays
    torch.set_num_threads(1)  # the plain loop's small layers are slower with more
    seconds: dict[str, list[float]] = {"plain": [], "facedan": []}
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        if options.photographs is None:
            draw(raw, options.images)
        else:
            paths = list(walk_images(options.photographs))
            for path in paths[:: max(1, len(paths) // options.images)][: options.images]:
                (raw / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(options.photographs / path, raw / path)
        for turn in range(options.rounds):
            theirs, ours = (Path(scratch) / f"{name}-{turn}" for name in seconds)
            began = time.perf_counter()
            points = plain_loop(raw, theirs, AlignConfig.min_face)
            seconds["plain"].append(time.perf_counter() - began)
            began = time.perf_counter()
            result = align(AlignConfig(raw=raw, out=ours))
            seconds["facedan"].append(time.perf_counter() - began)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        figures = {
            "speedup": medians["plain"] / medians["facedan"],
            "images_per_second": {name: len(points) / median for name, median in medians.items()},
            **agreement(result.manifest, points),
        }
    print(json.dumps(figures) if options.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
