"""Warnings about faces that are not aligned as a model expects them, and the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from facedan_cli.config.models import CLASSICAL, NetworkEntry
from facedan_cli.config.networks import network_entry
from facedan_cli.data.alignments import Alignment, alignment_below, alignments_of
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.data.landmark_fit import landmark_fit
from facedan_cli.data.manifest import GIVEN
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset


class Misalignment(NamedTuple):
    """A warning, and the command that mends what it is about."""

    problem: str
    command: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.command}"


@dataclass(frozen=True)
class Expected:
    """The alignment that a network expects.

    Args:
        alignment: of its faces.
        network: its row.
        name: what `align --for` takes for it.
        certain: whether it is known what the network learnt from; else its row's template is a guess.
    """

    alignment: Alignment
    network: NetworkEntry
    name: str
    certain: bool

    @classmethod
    def by_row(cls, name: str, network: NetworkEntry, *, certain: bool) -> Expected:
        """What the row of a network says."""
        return cls(Alignment.expected(network.template, network), network, name, certain)

    @classmethod
    def of(cls, card: ModelCard, checkpoint: Path) -> Expected | None:
        """What a checkpoint learnt from, else what its network's row says; None of a model that takes any template."""
        if card.model in CLASSICAL:
            return None
        network = card.entry
        usual = cls.by_row(card.model, network, certain=card.stage == "weights")
        learnt = Alignment.expected(card.template or network.template, network)
        of_row = card.network is None and network == network_entry(card.model) and learnt == usual.alignment
        return cls(learnt, network, card.model if of_row else str(checkpoint), bool(card.template) or usual.certain)

    @property
    def command(self) -> str:
        """What aligns faces as they are expected."""
        if self.alignment.template == GIVEN:
            return "facedan align RAW ALIGNED --no-align of faces aligned alike"
        return f"facedan align RAW ALIGNED --for {shlex.quote(self.name)}"

    def accepts(self, found: Alignment) -> bool:
        """Whether nothing says that faces are aligned otherwise."""
        return found.suits(self.alignment, self.network) or (found.template == GIVEN and not self.certain)

    def scales(self, found: Alignment) -> bool:
        """Whether faces that are accepted have another size."""
        sizes = (found.middle.size, self.alignment.middle.size)
        return GIVEN not in (found.template, self.alignment.template) and sizes[0] != sizes[1]


def template_name(root: Path) -> str | None:
    """The template of the faces below a directory, with unusual points; "given" if not stated, None if unknown."""
    found = alignment_below(root)
    return None if found is None else found.label


def alignment_warnings(
    models: Mapping[str, FaceModel],
    folders: Mapping[str, FaceDataset],
    report: Report = SILENT,
    *,
    strict: bool = False,
) -> list[str]:
    """Warnings about faces that may be unaligned, badly aligned, or not aligned as a network expects them.

    Args:
        models: by their names in the report.
        folders: the faces, by their names in the report.
        report: gets a note of faces that are scaled, and where the alignment of both the measured images and the source
            is unknown.
        strict: whether to refuse what else is warned of.

    Raises:
        FacedanError: with --strict, naming the command that mends it.
    """
    warnings = []
    expected = {f"'{label}'": Expected.of(one.card, one.file) for label, one in models.items() if not one.classical}
    networks = {label: one for label, one in expected.items() if one is not None}
    found = {name: alignments_of(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        if None in found[name]:
            named = next((f" --for {shlex.quote(one.name)}" for one in networks.values() if one.certain), "")
            unknown = Misalignment(
                f"no aligned.jsonl says that the faces of '{name}' are aligned; unaligned faces are recognised far "
                "worse",
                f"facedan align {folder.root} ALIGNED{named}, with --no-align if they are aligned already",
            )
            if any(model.card.template != "" for model in models.values()):
                warnings.append(unknown)
            else:  # the source's images were no better known: nothing says that these differ
                report.note(str(unknown))
    known = {name: [one for one in those if one is not None] for name, those in found.items()}
    warnings += misalignments(networks, known, report)
    refuse_misaligned(warnings, strict)
    warnings += misfits({name: folder.root for name, folder in folders.items()})
    return [str(warning) for warning in warnings]


def misalignments(
    networks: Mapping[str, Expected], found: Mapping[str, Iterable[Alignment]], report: Report = SILENT
) -> list[Misalignment]:
    """A warning for each alignment that networks expect and faces do not have.

    Args:
        networks: by their names in the report.
        found: the alignments of data sets, by their names in the report.
        report: gets a note of faces that are scaled.
    """
    warnings = []
    alike: dict[tuple[Alignment, str], list[str]] = {}
    for label, one in networks.items():
        alike.setdefault((one.alignment, one.command), []).append(label)
    for (alignment, command), labels in alike.items():
        expected, those = networks[labels[0]], ", ".join(labels)
        others = {
            name: sorted(str(one) for one in alignments if not expected.accepts(one))
            for name, alignments in found.items()
        }
        if stated := ", ".join(f"'{name}' ({', '.join(wrong)})" for name, wrong in others.items() if wrong):
            is_given = any(one.template == GIVEN for alignments in found.values() for one in alignments)
            given = "; with --no-align too if given faces are on that template" if is_given else ""
            warnings.append(
                Misalignment(
                    f"the faces of {stated} are not aligned as {those} expects them ({alignment}), and may be "
                    "recognised far worse",
                    command + (given if alignment.template != GIVEN else ""),
                )
            )
        for name, alignments in found.items():
            for seen in alignments:
                if expected.accepts(seen) and expected.scales(seen):
                    report.note(f"the faces of '{name}' ({seen}) are scaled to {alignment.size} pixels for {those}")
    return warnings


def misfits(roots: Mapping[str, Path]) -> list[Misalignment]:
    """A warning for each data set whose landmarks lie off their template, by names in the report.

    With --strict it stays a warning: the network is not the reason.
    """
    fits = {name: landmark_fit(root) for name, root in roots.items()}
    return [
        Misalignment(
            f"the faces of '{name}' seem to be "
            f"{'on another template than is stated' if fit.copied else 'aligned by wrong landmarks'}, and may be "
            f"recognised far worse: {problem}, median of {fit.faces} faces",
            "align the images themselves by facedan align RAW ALIGNED, without --no-align"
            if fit.copied
            else "look at them by facedan align RAW ALIGNED --contact-sheet sheet.png, and align again with --force",
        )
        for name, fit in fits.items()
        if fit is not None and (problem := fit.problem) is not None
    ]


def training_misalignments(
    expected: Expected, datasets: Iterable[Dataset], report: Report = SILENT
) -> list[Misalignment]:
    """A warning if the data sets of a training are not aligned as its network expects them, else none."""
    found = {dataset.name: alignment_below(dataset.root) for dataset in datasets}
    known = {name: [one] for name, one in found.items() if one is not None}
    return misalignments({expected.name: expected}, known, report)


def refuse_misaligned(found: Iterable[Misalignment], strict: bool) -> None:
    """Refuse with --strict what is otherwise warned of.

    Raises:
        FacedanError: naming the command that mends it.
    """
    for one in found:
        if strict:
            raise FacedanError(f"--strict: {one.problem}", one.command)
