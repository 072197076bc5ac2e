"""Alignment of images to a template: detection or given landmarks, the choice of the face, the warp."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facedan_cli.alignment.contrast import lacks_contrast
from facedan_cli.alignment.detector import Detector, Face, choose, enlarged, enlargement
from facedan_cli.alignment.landmarks import Landmarks, Points, exchanged, is_reflected, is_turned
from facedan_cli.alignment.output import Output
from facedan_cli.alignment.plan import Job
from facedan_cli.data.images import DecodedImage, UnreadableImage, read_image, read_reduced
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES, Template, anchors, similarity, warp

EXCHANGED = "landmarks, left and right exchanged"
"""The manifest's `source` of given landmarks whose left and right were swapped."""

_SEARCHED = 250
"""Side of the aligned faces that are searched to tell which eye is left, pixels."""

BYTES_AT_ONCE = 100_000_000
"""Most bytes of decoded images in a worker; it detects faces in fewer images at a time where they are large."""


@dataclass(frozen=True)
class Aligner:
    """Aligns batches of images; several workers may share it."""

    output: Output
    landmarks: Landmarks | None
    detector: Detector

    def prepare(self) -> None:
        """Read the networks that a search needs, before workers are forked, which then share them."""
        if self.landmarks is None:
            self.detector.load()

    def __call__(self, jobs: Sequence[Job]) -> list[AlignedRecord]:
        """Align a batch; returns a record for each image."""
        jobs = [job.begun() for job in jobs]
        records: dict[Job, AlignedRecord] = {}
        for images in self._read(jobs, records):
            searched = [(job, image) for job, image in images if self._given_points(job) is None]
            found = self.detector.detect(
                [image.pixels for _, image in searched],
                [image.size[0] / image.pixels.shape[1] for _, image in searched],
            )
            for (job, image), faces in zip(searched, found, strict=True):
                records[job] = self._align_detected(job, image, faces)
            for job, image in images:
                if (points := self._given_points(job)) is not None:
                    records[job] = self._align_given(job, image, points)
        return [records[job] for job in jobs]

    def _read(self, jobs: Sequence[Job], records: dict[Job, AlignedRecord]) -> Iterator[list[tuple[Job, DecodedImage]]]:
        """Yield readable images in groups that fit in memory, and records for the others."""
        held: list[tuple[Job, DecodedImage]] = []
        for job in jobs:
            reduction = self.detector.reduction if self._given_points(job) is None else _not_at_all
            try:
                held.append((job, read_reduced(job.image.open(), reduction)))
            except UnreadableImage as error:
                records[job] = self.output.failed(job, str(error))
            if sum(image.pixels.size for _, image in held) >= BYTES_AT_ONCE:
                yield held
                held = []
        yield held

    def _given_points(self, job: Job) -> Points | None:
        return self.landmarks.find(job.image.path) if self.landmarks else None

    def _align_detected(self, job: Job, image: DecodedImage, faces: Sequence[Face]) -> AlignedRecord:
        if not faces:
            return self.output.failed(job, "no face was found", faces=0)
        read = (image.pixels.shape[1], image.pixels.shape[0])
        face = choose([enlarged(face, read, image.size) for face in faces], *image.size)
        # Networks give other last bits in batches of other sizes; the face is drawn from what the manifest says.
        points = face.points.astype(float).round(2)
        return self._draw(
            job,
            image,
            points,
            faces=len(faces),
            box=_rounded(face.box, 2),
            probability=round(face.probability, 5),
            points={name: _rounded(point, 2) for name, point in zip(POINT_NAMES, points, strict=True)},
            source=f"mtcnn, {face.attempt}" if face.attempt else "mtcnn",
        )

    def _align_given(self, job: Job, image: DecodedImage, given: Points) -> AlignedRecord:
        if not given:
            return self.output.failed(job, "the lines of its landmarks disagree")
        points = np.array([given[name] for name in POINT_NAMES if name in given])
        if (points < -0.5).any() or (points > np.array(image.size) - 0.5).any():
            return self.output.failed(job, "its landmarks lie outside the image")
        wrong = self._are_exchanged(image, given)
        if wrong is None:
            return self.output.failed(job, "its landmarks turn it upside down: that, or left and right are exchanged")
        if wrong:
            given = exchanged(given)
            points = np.array([given[name] for name in POINT_NAMES if name in given])
        return self._draw(job, image, points, points=dict(given), source=EXCHANGED if wrong else "landmarks")

    @property
    def _template(self) -> Template:
        return TEMPLATES[self.output.target.template]

    def _are_exchanged(self, image: DecodedImage, given: Points) -> bool | None:
        """Whether given landmarks have left and right exchanged; None if unknown.

        The mouth tells; of eyes alone that turn a face by more than 90° most lines of the file do, or a search.
        """
        by_mouth = is_reflected(given)
        if by_mouth is not None or not is_turned(given):
            return bool(by_mouth)
        if self.landmarks is not None and self.landmarks.mostly_turned:
            return True
        template = self._template.points(_SEARCHED, 2)
        eyes = [np.array([points[name] for name in POINT_NAMES[:2]]) for points in (given, exchanged(given))]
        try:
            both = [warp(image.pixels, similarity(two, template), _SEARCHED) for two in eyes]
        except ValueError:
            return False  # coinciding points are reported when the face is drawn
        as_given, swapped = (_upright(faces, template) for faces in self.detector.detect(both))
        return None if as_given == swapped else swapped > as_given

    def _draw(self, job: Job, image: DecodedImage, known: np.ndarray, **facts: Any) -> AlignedRecord:
        """Warp the face to the template by the points that are known, five or the eyes, and write it."""
        target = self.output.target
        fitted = anchors(known, target.points) if len(known) == len(POINT_NAMES) else known
        try:
            matrix = similarity(fitted, self._template.points(target.size, len(fitted)))
        except ValueError as error:
            return self.output.failed(job, f"its landmarks are unusable: {error}")
        transform = tuple(_rounded(row, 6) for row in matrix)
        try:
            face = self._warp(job, image, matrix)
        except UnreadableImage as error:
            return self.output.failed(job, str(error))
        if reason := lacks_contrast(face):
            return self.output.failed(job, reason, faces=facts.get("faces"))
        return self.output.aligned(job, face, transform=transform, fitted=5 if len(fitted) == 5 else None, **facts)

    def _warp(self, job: Job, image: DecodedImage, matrix: np.ndarray) -> np.ndarray:
        """The warped face, from the decoded pixels if they are enough, else from the file at full size."""
        steps, shift = enlargement((image.pixels.shape[1], image.pixels.shape[0]), image.size)
        if steps.max() > 1 and math.hypot(matrix[0, 0], matrix[1, 0]) * steps.max() > 1:
            return self._template.draw(read_image(job.image.open()), matrix, self.output.target.size)
        from_pixels = np.column_stack([matrix[:, :2] * steps, matrix[:, :2] @ shift + matrix[:, 2]])
        return self._template.draw(image.pixels, from_pixels, self.output.target.size)


def _upright(faces: Iterable[Face], eyes: np.ndarray) -> float:
    """The highest probability of a face whose eyes lie at these, shape (2, 2), of the template; 0 without a face."""
    most = np.abs(eyes[1] - eyes[0]).max() / 2
    return max((face.probability for face in faces if np.abs(face.points[:2] - eyes).max() < most), default=0.0)


def _not_at_all(_: tuple[int, int]) -> int:
    """1, no reduction: given landmarks may belong to a small face."""
    return 1


def _rounded(values: Iterable[float], digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)
