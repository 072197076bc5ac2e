"""`--no-align`: copies of aligned faces, scaled to the requested size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from facedan_cli.alignment.contrast import lacks_contrast
from facedan_cli.alignment.output import Output
from facedan_cli.alignment.plan import Job
from facedan_cli.alignment.target import Target
from facedan_cli.data.batches import square_face
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.data.manifest import GIVEN, AlignedRecord
from facedan_cli.data.templates import shows_the_same

_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Copier:
    """Copies JPEG files of the requested size byte for byte and scales other images; several workers may share it."""

    output: Output

    def __call__(self, jobs: Sequence[Job]) -> list[AlignedRecord]:
        """Copy a batch; returns a record for each image."""
        return [self._copy(job.begun()) for job in jobs]

    def _copy(self, job: Job) -> AlignedRecord:
        size = self.output.target.size
        try:
            image = read_image(job.image.open())  # a copy too has to be whole
            content = job.image.read()
        except UnreadableImage as error:
            return self.output.failed(job, str(error))
        if reason := lacks_contrast(image):
            return self.output.failed(job, reason)
        target, facts = self.output.target, {"fitted": 5 if self.output.target.points == 5 else None}
        if target.template != GIVEN and (reason := _not_on(target, *image.shape[:2])):
            return self.output.failed(job, reason)
        if image.shape[:2] == (size, size) and content.startswith(_JPEG):
            return self.output.aligned(job, content, source="copied", **facts)
        return self.output.aligned(job, square_face(image, size), source="resized", **facts)


def _not_on(target: Target, height: int, width: int) -> str:
    """The reason why an image of this size cannot be on its stated template; "" if it can."""
    if height != width:
        return f"{width}×{height}: faces on a template are square"
    if not shows_the_same(target.template, width, target.template, target.size):
        return f"on {target.template} a face of {width} pixels shows another part than one of {target.size}"
    return ""
