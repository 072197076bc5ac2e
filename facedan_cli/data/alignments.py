"""The alignment of a data set's faces by their manifest, and its comparison with a network's expectation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facedan_cli.config.models import NetworkEntry
from facedan_cli.config.templates import TEMPLATES
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.manifest import read_records
from facedan_cli.data.templates import shows_the_same
from facedan_cli.workspace import find_manifest

_INSIGHTFACE = ("arcface5", "arcface5-frame")


@dataclass(frozen=True)
class Alignment:
    """The alignment of faces.

    Args:
        template: a name of `config.templates.TEMPLATES`, or `GIVEN` without a stated one.
        size: side of a face, pixels.
        fitted: number of fitted points: 5, or 3 for three or fewer.
    """

    template: str
    size: int
    fitted: int = 3

    def __str__(self) -> str:
        return f"{self.template} at {self.size} pixels{'' if self._usual else f', fitted by {self.fitted} points'}"

    @property
    def _usual(self) -> bool:
        return self.template not in TEMPLATES or TEMPLATES[self.template].fitted == self.fitted

    @property
    def label(self) -> str:
        """The name of the template, with the number of points where that is not the template's own: arcface5:3."""
        return self.template if self._usual else f"{self.template}:{self.fitted}"

    @classmethod
    def expected(cls, label: str, network: NetworkEntry) -> Alignment:
        """The alignment that a network reads of faces on the template of a label.

        Its size is what the network reads where the template may have any: those that scale about the image's edge,
        and the network's own. Others keep the size that they are known by.
        """
        template, _, points = label.partition(":")
        entry = TEMPLATES.get(template)
        if entry is None:
            return cls(template, network.image_size)
        free = entry.scaling == "edge" or template == network.template
        fitted = int(points) if points.isdecimal() else entry.fitted
        return cls(template, network.image_size if free else entry.size, fitted)

    def suits(self, expected: Alignment, network: NetworkEntry) -> bool:
        """Whether faces show the same part of the face as expected, at any scale, by as many points."""
        if not {self.template, expected.template} <= TEMPLATES.keys():
            return self.template == expected.template
        one, two = self, expected
        # Whole faces of InsightFace's template are the middle of those with a margin, which such networks take.
        middle = network.template == _INSIGHTFACE[0] or network.crop < network.image_size
        if middle and {one.template, two.template, network.template} <= set(_INSIGHTFACE):
            one, two = one.middle, two.middle
        return one.fitted == two.fitted and shows_the_same(one.template, one.size, two.template, two.size)

    @property
    def middle(self) -> Alignment:
        """The alignment without the margin of `arcface5-frame`; others unchanged."""
        if self.template != _INSIGHTFACE[1]:
            return self
        return Alignment(_INSIGHTFACE[0], round(self.size * 7 / 8), self.fitted)


def alignment_of(manifest: Path) -> Alignment | None:
    """The alignment of the first face of a manifest, which all faces share; None without a face.

    Damaged lines are skipped; the reader of the faces reports them.
    """
    for record in read_records(manifest, []):
        if record.output is not None:
            return Alignment(record.template, record.size, record.fitted or 3)
    return None


def alignment_below(root: Path) -> Alignment | None:
    """The alignment of the faces in a directory; None where no manifest speaks of them."""
    manifest = find_manifest(root)
    return None if manifest is None else alignment_of(manifest)


def alignments_of(folder: FaceDataset) -> set[Alignment | None]:
    """The alignments of a data set's faces; with None where some have no manifest."""
    return {alignment_below(directory) for directory in {(folder.root / path).parent for path in folder.paths}}


def side_to_read(folder: FaceDataset, template: str, image_size: int) -> int:
    """The side at which faces are read for a network, pixels.

    Faces of `arcface5-frame` have a margin around what a network of `arcface5` takes: training crops come from the
    whole, everything else takes the middle. Others are read at the network's own size.

    Args:
        folder: the faces.
        template: template that the network expects.
        image_size: side of the images that it takes.
    """
    whole, with_margin = _INSIGHTFACE
    if template != whole or any(one is None or one.template != with_margin for one in alignments_of(folder)):
        return image_size
    return round(image_size * 8 / 7)


def template_and_size(manifest: Path) -> str:
    """The alignment of a manifest's faces in words, for comparison with others."""
    return str(alignment_of(manifest) or "no template")
