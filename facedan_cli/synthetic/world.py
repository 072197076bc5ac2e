"""The demo's world: invented identities in two styles, and a test protocol like GBU."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from facedan_cli.config.common import DemoConfig
from facedan_cli.devices import serve, worker_count
from facedan_cli.errors import FacedanError
from facedan_cli.json_files import read_object
from facedan_cli.protocols.gbu import sigset_name
from facedan_cli.protocols.sigset import Record, write_sigset
from facedan_cli.report import SILENT, Report
from facedan_cli.synthetic.render import STUDIO, WEB, Style, between, draw_identity, draw_view, render
from facedan_cli.workspace import Workspace, replacing, write_json

EASY = replace(
    STUDIO, light_azimuth=(0, 20), light_hardness=(0.4, 0.6), exposure=(0.9, 1.3), contrast=(0.9, 1), veil=(0, 0.1)
)
"""The mildest style of the test images."""

SEVERITIES: Mapping[str, float] = {"Good": 0.1, "Bad": 0.5, "Ugly": 0.8}
"""Severity of each partition, from EASY (0) to STUDIO (1)."""

IMAGES_PER_SIDE = 2


@dataclass(frozen=True)
class _Subject:
    """The images of one subject, as paths and styles."""

    number: int
    images: tuple[tuple[Path, Style], ...]


def draw_world(config: DemoConfig, workspace: Workspace, *, report: Report = SILENT) -> None:
    """Draw raw/web (labelled), raw/studio (unlabelled) and raw/gbu with its sigsets; existing images are kept.

    The subjects of the three are different, and the same seed draws the same pixels.

    Raises:
        FacedanError: the workspace holds data that the demo did not make.
    """
    _claim(config, workspace)
    subjects = _subjects(config, workspace)
    todo = [subject for subject in subjects if not all(path.exists() for path, _ in subject.images)]
    total = sum(len(subject.images) for subject in todo)
    with (
        report.progress("drawing faces", total) as advance,
        ProcessPoolExecutor(
            worker_count(config.workers), multiprocessing.get_context("spawn"), serve, (os.getpid(),)
        ) as pool,
    ):
        for drawn in pool.map(_draw_subject, todo, [config] * len(todo), chunksize=4):
            advance(drawn, "")
    _write_protocol(config, workspace)


def _claim(config: DemoConfig, workspace: Workspace) -> None:
    """Mark a workspace as the demo's own, so that real and drawn faces are not mixed."""
    mark = workspace.root / "demo.json"
    world = asdict(replace(config, workers=0))
    if mark.is_file():
        try:
            made = read_object(mark)
        except ValueError as error:
            raise FacedanError(f"{mark} is damaged: {error}", "name another --workspace, or remove that one") from error
        if made != world:
            raise FacedanError(
                f"{workspace.root} holds a demo of another kind or seed", "name another --workspace, or remove that one"
            )
    elif any((workspace.root / part).exists() for part in ("raw", "aligned", "protocols", "runs")):
        raise FacedanError(
            f"{workspace.root} is a workspace that the demo did not make", "name an empty directory with --workspace"
        )
    write_json(mark, world)


def _subjects(config: DemoConfig, workspace: Workspace) -> list[_Subject]:
    raw = workspace.root / "raw"
    target = config.source_people
    test = target + config.target_people
    subjects = []
    for number in range(test + config.test_people):
        if number < target:
            names = [f"web/p{number:04d}/{image:02d}.jpg" for image in range(config.source_images)]
            images = [(raw / name, WEB) for name in names]
        elif number < test:
            names = [f"studio/{number:04d}-{image}.jpg" for image in range(config.target_images)]
            images = [(raw / name, STUDIO) for name in names]
        else:
            images = [(raw / "gbu" / name, style) for _, _, name, style in _test_images(number)]
        subjects.append(_Subject(number, tuple(images)))
    return subjects


def _test_images(number: int) -> Iterator[tuple[str, str, str, Style]]:
    """Yield partition, side, file name and style of each test image of a subject."""
    image = 0
    for partition, severity in SEVERITIES.items():
        for side in ("Target", "Query"):
            for _ in range(IMAGES_PER_SIDE):
                yield partition, side, f"{number:05d}d{image:03d}.jpg", between(EASY, STUDIO, severity)
                image += 1


def _draw_subject(subject: _Subject, config: DemoConfig) -> int:
    cv2.setNumThreads(1)
    identity = draw_identity(np.random.default_rng((config.seed, 0, subject.number)))
    views = np.random.default_rng((config.seed, 1, subject.number))
    for path, style in subject.images:
        image = render(identity, draw_view(views, style), config.size)
        _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 95))
        with replacing(path) as temporary:
            temporary.write_bytes(encoded.tobytes())  # unlike OpenCV, it says so where the disk is full
    return len(subject.images)


def _write_protocol(config: DemoConfig, workspace: Workspace) -> None:
    lists: dict[str, list[Record]] = {}
    first = config.source_people + config.target_people
    for number in range(first, first + config.test_people):
        for partition, side, name, _ in _test_images(number):
            record = Record(f"p{number:05d}", name, name=Path(name).stem, modality="face", file_format="jpeg")
            lists.setdefault(sigset_name(partition, side), []).append(record)
    for file_name, records in lists.items():
        write_sigset(workspace.protocol("gbu") / file_name, records)
