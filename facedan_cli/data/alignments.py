"""How the faces of a data set are aligned, as their manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facedan_cli.config.templates import TEMPLATES
from facedan_cli.data.manifest import read_records


@dataclass(frozen=True)
class Alignment:
    """How faces are aligned.

    Args:
        template: a name of `config.templates.TEMPLATES`, or `GIVEN` where none is stated.
        size: side of a face, pixels.
        fitted: how many points were fitted: 5, or 3 and fewer (as 3).
    """

    template: str
    size: int
    fitted: int = 3

    def __str__(self) -> str:
        entry = TEMPLATES.get(self.template)
        usual = entry is None or entry.fitted == self.fitted
        return f"{self.template} at {self.size} pixels{'' if usual else f', fitted by {self.fitted} points'}"


def alignment_of(manifest: Path) -> Alignment | None:
    """The alignment of the first face of a manifest, which all share; None where there is none.

    Damaged lines are passed over: the reader of the faces reports them.
    """
    for record in read_records(manifest, []):
        if record.output is not None:
            return Alignment(record.template, record.size, record.fitted or 3)
    return None


def template_and_size(manifest: Path) -> str:
    """The alignment of a manifest's faces in words, for comparison with others."""
    return str(alignment_of(manifest) or "no template")
