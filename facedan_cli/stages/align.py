"""`facedan align`: from a tree of photographs to the same tree of aligned faces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from facedan_cli.config import AlignConfig
from facedan_cli.faces.detect import Detector, Face, choose
from facedan_cli.faces.geometry import POINT_NAMES, TEMPLATES, similarity, three_points, warp
from facedan_cli.faces.landmarks import Landmarks, Points, read_landmarks
from facedan_cli.faces.pictures import UnreadableImage, read_picture
from facedan_cli.faces.records import ALIGNED, FAILED, AlignedRecord, ManifestWriter
from facedan_cli.report import SILENT, Report
from facedan_cli.stages.align_plan import SET_ASIDE, Job, check_config, plan, read_earlier, settle, start_over, survey
from facedan_cli.stages.devices import choose_device, worker_count
from facedan_cli.workspace import MANIFEST_FILE, locked, replacing, write_set_aside

JPEG_QUALITY = 95

BYTES_AT_ONCE = 100_000_000
"""A thread goes on to detection when it holds photographs of so many bytes, however few they are."""


@dataclass(frozen=True)
class AlignResult:
    """What an alignment did.

    Args:
        out: the aligned tree.
        manifest: its aligned.jsonl.
        aligned: faces aligned by this run.
        already: faces that earlier runs had aligned.
        failed: photographs set aside, by this run and by earlier ones.
        set_aside: their list with the reasons; None where there are none.
    """

    out: Path
    manifest: Path
    aligned: int
    already: int
    failed: int
    set_aside: Path | None


def align(config: AlignConfig, report: Report = SILENT) -> AlignResult:
    """Find the face in every photograph of `config.raw` and draw it to the template, in the same place in `config.out`.

    The manifest says what became of each photograph. What is done already is not done again, whenever the work was
    interrupted; a photograph that fails is listed and costs the others nothing.

    Raises:
        UsageError: an option has an impossible value.
        FacedanError: there are no photographs, the aligned tree is in use or has other settings, or the landmarks
            cannot be read.
        OSError: the aligned tree cannot be written. What is in it is whole, and the same command goes on from there.
    """
    check_config(config)
    landmarks = read_landmarks(config.landmarks, config.raw) if config.landmarks else None
    device = choose_device(config.device)
    workers = worker_count(config.workers)
    manifest = config.out / MANIFEST_FILE
    with locked(config.out, f"the aligned tree {config.out}"):
        if config.force:
            start_over(config.out)
        settle(config)
        earlier = read_earlier(config.out)
        before = survey(plan(config.raw, config.out, earlier))
        todo = (job for job in plan(config.raw, config.out, earlier) if job.done is None)
        counts = {ALIGNED: 0, FAILED: 0}
        failures = list(before.failures)
        without_landmarks = 0
        with (
            ManifestWriter(manifest) as writer,
            report.progress("aligning", before.total, done=before.done) as advance,
            _threads(workers) as pool,
        ):
            aligner = _Aligner(config, landmarks, Detector(device, config.min_face))
            for records in _in_order(pool, aligner, _batches(todo, config.detector_batch), 2 * workers):
                writer.append(records)
                for record in records:
                    counts[record.status] += 1
                    without_landmarks += record.faces is not None
                    if record.status == FAILED:
                        failures.append((record.path, record.reason))
                        report.detail(f"{record.path}: {record.reason}")
                advance(len(records), "")
        if config.landmarks and without_landmarks:
            report.note(f"{without_landmarks} of the photographs are not in {config.landmarks}: they were searched")
        set_aside = write_set_aside(config.out / SET_ASIDE, sorted(failures))
    return AlignResult(config.out, manifest, counts[ALIGNED], before.already, len(failures), set_aside)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each take a batch from file to file; the libraries leave the interpreter to the others meanwhile.

    So each runs its networks on one core: sharing a network of such small layers among cores costs more than it gains.
    """
    usual = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(usual)


def _batches(jobs: Iterator[Job], size: int) -> Iterator[list[Job]]:
    while batch := list(islice(jobs, size)):
        yield batch


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[list[Job]], list[AlignedRecord]],
    batches: Iterable[list[Job]],
    ahead: int,
) -> Iterator[list[AlignedRecord]]:
    """What the pool makes of the batches, in their order whichever is ready first; at most `ahead` are under way."""
    running: deque[Future[list[AlignedRecord]]] = deque()
    for batch in batches:
        running.append(pool.submit(work, batch))
        if len(running) == ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


@dataclass(frozen=True)
class _Aligner:
    """Takes photographs from their files to the files of their aligned faces; may be called by several threads."""

    config: AlignConfig
    landmarks: Landmarks | None
    detector: Detector

    def __call__(self, jobs: Sequence[Job]) -> list[AlignedRecord]:
        records: dict[str, AlignedRecord] = {}
        for pictures in self._read(jobs, records):
            given = {job.path: points for job, _ in pictures if (points := self._given_points(job))}
            searched = [(job, picture) for job, picture in pictures if job.path not in given]
            found = self.detector.detect([picture for _, picture in searched])
            for (job, picture), faces in zip(searched, found, strict=True):
                records[job.path] = self._align_detected(job, picture, faces)
            for job, picture in pictures:
                if job.path in given:
                    records[job.path] = self._align_given(job, picture, given[job.path])
        return [records[job.path] for job in jobs]

    def _read(self, jobs: Sequence[Job], records: dict[str, AlignedRecord]) -> Iterator[list[tuple[Job, np.ndarray]]]:
        """The photographs that can be read, as many at a time as may be held; of the others records are made."""
        held: list[tuple[Job, np.ndarray]] = []
        for job in jobs:
            try:
                held.append((job, read_picture(self.config.raw / job.path)))
            except UnreadableImage as error:
                records[job.path] = self._failed(job, str(error))
            if sum(picture.size for _, picture in held) >= BYTES_AT_ONCE:
                yield held
                held = []
        yield held

    def _given_points(self, job: Job) -> Points | None:
        return self.landmarks.find(job.path) if self.landmarks else None

    def _align_detected(self, job: Job, picture: np.ndarray, faces: Sequence[Face]) -> AlignedRecord:
        if not faces:
            return self._failed(job, "no face was found", faces=0)
        face = choose(faces, picture.shape[1], picture.shape[0])
        return self._draw(
            job,
            picture,
            three_points(face.points),
            faces=len(faces),
            box=_rounded(face.box, 2),
            probability=round(face.probability, 6),
            points={name: _rounded(point, 3) for name, point in zip(POINT_NAMES, face.points, strict=True)},
            source="mtcnn, contrast stretched" if face.stretched else "mtcnn",
        )

    def _align_given(self, job: Job, picture: np.ndarray, given: Points) -> AlignedRecord:
        points = np.array([given[name] for name in POINT_NAMES if name in given])
        if (points < -0.5).any() or (points > np.array(picture.shape[1::-1]) - 0.5).any():
            return self._failed(job, "its landmarks lie outside the picture")
        anchors = three_points(points) if len(points) == len(POINT_NAMES) else points
        return self._draw(job, picture, anchors, points=dict(given), source="landmarks")

    def _draw(self, job: Job, picture: np.ndarray, anchors: np.ndarray, **facts: Any) -> AlignedRecord:
        """Bring the eyes, and the mouth where it is known, to the template, and write the face."""
        template = TEMPLATES[self.config.template].points(self.config.size)
        try:
            matrix = similarity(anchors, template[: len(anchors)])
        except ValueError as error:
            return self._failed(job, f"its landmarks are unusable: {error}")
        face = warp(picture, matrix, self.config.size)
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), quality)
        with replacing(self.config.out / job.output) as temporary:
            temporary.write_bytes(encoded.tobytes())
        transform = tuple(_rounded(row, 6) for row in matrix)
        return self._record(job, status=ALIGNED, output=job.output, transform=transform, **facts)

    def _failed(self, job: Job, reason: str, **facts: Any) -> AlignedRecord:
        # An earlier file of that name may have had a face.
        (self.config.out / job.output).unlink(missing_ok=True)
        return self._record(job, status=FAILED, reason=reason, **facts)

    def _record(self, job: Job, **facts: Any) -> AlignedRecord:
        return AlignedRecord(
            path=job.path,
            template=self.config.template,
            size=self.config.size,
            bytes=job.bytes,
            modified=job.modified,
            **facts,
        )


def _rounded(values: Iterable[float], digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)
