"""Speed and exactness of `facedan align` beside a plain loop of facenet-pytorch's MTCNN.

    python benchmarks/align.py [IMAGES] [--images 200] [--rounds 3] [--large 4] [--json] [--smoke]

Both do the whole work on the same images: decode, detect the face, warp, encode. They take turns, and the speedup is
the ratio of the medians. `--images 0` takes all images. Without a directory the benchmark draws faces. The large images
have 12 megapixels, with one large face or six smaller ones by turns; their landmark distance is a share of the distance
between the eyes. Both place landmarks as facenet-pytorch does. Run it on an idle machine.

The mirror test detects landmarks in each image and in its mirror image, and mirrors the latter back. Half of the
difference is the offset of the landmarks to the right; measured for `--landmark-offset corrected` and `reference`.
`--smoke` runs all of it once on few drawn faces.
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

from facedan_cli.alignment.align import align
from facedan_cli.alignment.detector import Detector, Face, choose
from facedan_cli.alignment.output import JPEG_QUALITY
from facedan_cli.config.common import LANDMARK_OFFSETS, REFERENCE_OFFSET, AlignConfig
from facedan_cli.data.images import read_image
from facedan_cli.data.manifest import read_records
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES, similarity, three_points, warp
from facedan_cli.data.walk import walk
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render

SIZE = TEMPLATES["vggface"].entry.size


def draw(directory: Path, images: int) -> None:
    """Draw faces of 250 × 250 pixels."""
    for number in range(images):
        rng = np.random.default_rng(number)
        cv2.imwrite(
            str(directory / f"{number:05d}.jpg"), render(draw_identity(rng), draw_view(rng, WEB), 250)[:, :, ::-1]
        )


def plain_loop(raw: Path, out: Path, min_face: int) -> dict[str, np.ndarray]:
    """Align one image after the other by MTCNN.detect; returns the five points of each chosen face."""
    detector = MTCNN(min_face_size=min_face)
    template = TEMPLATES["vggface"].points(SIZE)
    points_of = {}
    for path in walk(raw):
        image = read_image(raw / path)
        boxes, probabilities, points = detector.detect(image, landmarks=True)
        if boxes is None:
            continue
        faces = [
            Face(tuple(box), float(probability), np.asarray(five, float))
            for box, probability, five in zip(boxes, probabilities, points, strict=True)
        ]
        chosen = choose(faces, image.shape[1], image.shape[0])
        face = warp(image, similarity(three_points(chosen.points), template), SIZE)
        target = (out / path).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), face[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        points_of[path] = chosen.points
    return points_of


def make_large(raw: Path, out: Path, count: int) -> None:
    """Make images of 4000 × 3000 pixels from small ones."""
    paths = list(walk(raw))
    for number in range(count):
        scene = np.full((3000, 4000, 3), 127, np.uint8)
        side, places = 3000, [(0, 500)]
        if number % 2:
            side, places = 900, [(y, x) for y in (300, 1650) for x in (300, 1550, 2800)]
        for index, (top, left) in enumerate(places):
            small = read_image(raw / paths[(7 * number + index) % len(paths)])
            scene[top : top + side, left : left + side] = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(out / f"{number:03d}.jpg"), scene[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 92))


def compare(raw: Path, scratch: Path, rounds: int) -> tuple[dict[str, float], Path, dict[str, np.ndarray]]:
    """The median seconds of both, our manifest and the plain loop's points."""
    seconds: dict[str, list[float]] = {"plain": [], "facedan": []}
    for turn in range(rounds):
        theirs, ours = (scratch / f"{raw.name}-{name}-{turn}" for name in seconds)
        began = time.perf_counter()
        points = plain_loop(raw, theirs, AlignConfig.min_face)
        seconds["plain"].append(time.perf_counter() - began)
        began = time.perf_counter()
        result = align(AlignConfig(raw=raw, out=ours, landmark_offset=REFERENCE_OFFSET))
        seconds["facedan"].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}, result.manifest, points


def points_in(manifest: Path) -> dict[str, np.ndarray]:
    """The five points of each aligned image."""
    return {
        record.path: np.array([record.points[name] for name in POINT_NAMES])
        for record in read_records(manifest)
        if record.points is not None
    }


def agreement_of_large(ours: Path, theirs: dict[str, np.ndarray]) -> float:
    """The largest distance of a landmark, as a share of the distance between the eyes."""
    found = points_in(ours)
    shares = [
        np.abs(found[path] - points).max() / np.linalg.norm(points[0] - points[1]) for path, points in theirs.items()
    ]
    return float(max(shares))


def agreement(ours: Path, theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Distances of the five points of the chosen faces; points within 10 pixels belong to the same face."""
    found = points_in(ours)
    both = sorted(found.keys() & theirs.keys())
    apart = np.array([np.abs(found[path] - theirs[path]).max() for path in both])
    same = apart < 10
    return {
        "same_face": float(same.mean()),
        "landmark_median_px": float(np.median(apart[same])),
        "landmark_p999_px": float(np.quantile(apart[same], 0.999)),
        "lost": len(theirs.keys() - found.keys()),
    }


def mirror_test(raw: Path) -> dict[str, dict[str, float]]:
    """The offset of landmarks to the right, in pixels of images up to 2048 pixels, for each --landmark-offset."""
    images = [read_image(raw / path) for path in walk(raw)]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    figures = {}
    for name in LANDMARK_OFFSETS:
        detector = Detector(torch.device("cpu"), AlignConfig.min_face, reference=name == REFERENCE_OFFSET)
        moved, eyes = [], []
        for first in range(0, len(images), 32):
            some = slice(first, first + 32)
            both = zip(images[some], detector.detect(images[some]), detector.detect(mirrored[some]), strict=True)
            for image, faces, others in both:
                if not faces or not others:
                    continue
                height, width = image.shape[:2]
                points = choose(faces, width, height).points
                back = choose(others, width, height).points[[1, 0, 2, 4, 3]]
                back = np.stack([width - 1 - back[:, 0], back[:, 1]], axis=1)
                if np.abs(points - back).max() < 20:  # otherwise it chose another face
                    moved.append((points - back)[:, 0].mean() / 2)
                    eyes.append(np.linalg.norm(points[0] - points[1]))
        figures[name] = {
            "photographs": len(moved),
            "offset_mean_px": float(np.mean(moved)),
            "offset_standard_error_px": float(np.std(moved) / len(moved) ** 0.5),
            "offset_median_px": float(np.median(moved)),
            "share_of_eye_distance": float(np.mean(moved) / np.mean(eyes)),
        }
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", metavar="IMAGES", nargs="?", type=Path, help="a directory of images")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=4, help="images of 12 megapixels; 0: none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="few drawn faces, once: whether it runs")
    options = parser.parse_args()
    if options.smoke:
        options.photographs, options.images, options.rounds, options.large = None, 4, 1, 0
    warnings.filterwarnings("ignore")  # MTCNN makes ragged arrays
    torch.set_num_threads(1)  # the plain loop's small layers are slower with more
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        raw, large = scratch / "raw", scratch / "large"
        raw.mkdir()
        large.mkdir()
        if options.photographs is None:
            draw(raw, options.images)
        else:
            paths = list(walk(options.photographs))
            every = max(1, len(paths) // options.images) if options.images else 1
            for path in paths[::every][: options.images or None]:
                (raw / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(options.photographs / path, raw / path)
        medians, manifest, points = compare(raw, scratch, options.rounds)
        figures = {
            "speedup": medians["plain"] / medians["facedan"],
            "images_per_second": {name: len(points) / median for name, median in medians.items()},
            **agreement(manifest, points),
        }
        if options.large:
            make_large(raw, large, options.large)
            medians, manifest, points = compare(large, scratch, options.rounds)
            figures |= {
                "large_speedup": medians["plain"] / medians["facedan"],
                "large_seconds_an_image": {name: median / len(points) for name, median in medians.items()},
                "large_landmark_share": agreement_of_large(manifest, points),
            }
        figures["mirror_test"] = mirror_test(raw)
    print(json.dumps(figures) if options.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
