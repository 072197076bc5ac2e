"""Measure models by a protocol of images: GBU, FERET, LFW's View 2, a list of pairs, the search of probes in a gallery.

`evaluation.all_pairs` compares whole data sets, `evaluation.external_scores` measures scores that other systems made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import identity_of
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.differences import Figure
from facedan_cli.evaluation.evaluate import Measure, Protocol, evaluate
from facedan_cli.evaluation.identification import Identification, identification
from facedan_cli.evaluation.models import Faces, find_images
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.evaluation.trials import (
    Failures,
    ImageSet,
    LeftOut,
    Trials,
    all_pairs_trials,
    crossing_failures,
    search_failures,
    search_trials,
)
from facedan_cli.evaluation.verification import Verification, accuracy, verification
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.lfw import is_view2, read_view2
from facedan_cli.protocols.pairs import Pair, read_pairs
from facedan_cli.protocols.sigset import Record
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace, sha256_file


def evaluate_gbu(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, protocol: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verification on the partitions of GBU (Phillips et al. 2012): every query image with every target image.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces, matched to the lists by base name.
        protocol: the directory of the sigsets.
        report: told of the progress.

    Raises:
        FacedanError: lists or images are missing so that nothing can be measured.
    """
    partitions = read_gbu(protocol)

    def trials(faces: Sequence[Faces], absent: dict[str, str]) -> dict[str, Trials]:
        return {name: _cross(part.query, part.target, faces[0], absent) for name, part in partitions.items()}

    lists = [sha256_file(path) for path in sorted(protocol.glob("*.xml"))]
    return evaluate(Protocol("gbu", [images], trials, measure_partition, lists), config, workspace, report)


def evaluate_feret(
    config: EvaluateConfig,
    workspace: Workspace,
    images: Dataset,
    protocol: Path,
    *,
    check_lists: bool = True,
    report: Report = SILENT,
) -> EvaluateResult:
    """Closed-set identification by the FERET protocol of 1996: fb, fc, dup1 and dup2 searched in the gallery fa.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces of the grey release, matched to the lists by base name.
        protocol: the directory of the lists, sigsets or .srt.
        check_lists: whether the lists must be the published ones.
        report: told of the progress.

    Raises:
        FacedanError: lists or images are missing so that nothing can be measured, or the lists are others.
    """
    lists = read_feret(protocol, check=check_lists)

    def trials(faces: Sequence[Faces], absent: dict[str, str]) -> dict[str, Trials]:
        parts = {
            name: _cross(probes, lists.gallery, faces[0], absent, search=True) for name, probes in lists.probes.items()
        }
        for name, part in parts.items():
            if not part.genuine.any():
                raise FacedanError(
                    f"no probe of {name} and its mate in fa are among the images of '{images.name}'",
                    "give the grey FERET images under their own names, such as 00001fa010_930831.jpg",
                )
        return parts

    digests = [sha256_file(path) for path in sorted(protocol.iterdir()) if path.suffix.lower() in (".xml", ".srt")]
    whole = Protocol("feret", [images], trials, measure_search, digests, average=True)
    return evaluate(whole, config, workspace, report)


def evaluate_lfw(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, pairs: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """LFW's View 2: accuracy over ten folds, the threshold for each chosen on the others (Huang et al. 2007).

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces.
        pairs: pairs.txt, or a list in its form with at least two folds.
        report: told of the progress.

    Raises:
        FacedanError: the list cannot be read or has no folds, or too few of its images are there.
    """
    listed = read_view2(pairs)
    if not is_view2(listed):
        report.warn(f"{pairs} is not View 2 of LFW (ten folds of 300 pairs of each kind): nothing published compares")

    def measure(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Figure:
        made, with_failures = accuracy(trials, scores)
        figure = measure_partition(trials, scores, config, name)
        return replace(figure, accuracy=made, accuracy_with_failures=with_failures)

    return _pairs("lfw", listed, pairs, measure, config, workspace, images, report)


def evaluate_pairs(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, pairs: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verification on a list of pairs, LFW's pairs.txt or three plain columns.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        images: the aligned faces; folders that name people make the intervals those of people, not of images.
        pairs: the list.
        report: told of the progress.

    Raises:
        FacedanError: the list cannot be read, or too few of its images are there.
    """
    return _pairs("pairs", read_pairs(pairs), pairs, measure_partition, config, workspace, images, report)


def evaluate_identify(
    config: EvaluateConfig, workspace: Workspace, gallery: Dataset, probe: Dataset, *, report: Report = SILENT
) -> EvaluateResult:
    """Identification: each probe is searched in the gallery; folders, or the lists' second column, tell who is who.

    Where some probes have no mate in the gallery, open-set rates are measured as well.

    Args:
        config: the models and how they are measured.
        workspace: where features and results lie.
        gallery: the aligned faces of known people.
        probe: the aligned faces to be recognised.
        report: told of the progress.

    Raises:
        FacedanError: gallery and probes are one data set, or no probe has a mate in the gallery.
    """
    if gallery.root.resolve() == probe.root.resolve():
        raise UsageError(
            f"gallery and probes are the same data set ({gallery.root}): every probe would find itself",
            "give --probe other images of the people in the gallery",
        )

    def trials(faces: Sequence[Faces], absent: dict[str, str]) -> dict[str, Trials]:
        probes, known = (of_people(side, absent) for side in faces)
        failures, searched = search_failures(probes.people, known.people, probes.there, known.there, len(absent))
        failures = replace(failures, nobodys=probes.nobodys + known.nobodys)
        return {"all": search_trials(probes.side.part(searched), known.side, failures)}

    return evaluate(Protocol("identify", [probe, gallery], trials, measure_search), config, workspace, report)


def measure_partition(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Verification:
    """Verification figures of a partition."""
    what = "the protocol" if name == "all" else f"partition {name}"
    return verification(trials.compare(scores), config, what)


def measure_search(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Identification:
    """Identification figures of a probe set."""
    return identification(trials, scores, config)


@dataclass(frozen=True)
class People:
    """A data set's images by whose they are.

    Args:
        side: those that have features and a person.
        people: whose all images are, also those without features, strings, shape (n,).
        there: which of them have features, bool, shape (n,).
        nobodys: images without features of which nothing tells whose they are.
    """

    side: ImageSet
    people: np.ndarray
    there: np.ndarray
    nobodys: int


def of_people(faces: Faces, absent: dict[str, str]) -> People:
    """The images of which a folder or a list tells whose they are; the others are left out.

    Args:
        faces: a data set's features.
        absent: is told of the images that are left out or have no features.
    """
    lost = [image for image in faces.lost if image.in_dataset]
    left_out = {image.path: image.reason for image in lost} | {
        path: "not in an identity folder" for path, name in zip(faces.paths, faces.people, strict=True) if not name
    }
    absent.update({str(faces.root / path): reason for path, reason in left_out.items()})
    rows = np.array([row for row, name in enumerate(faces.people) if name], np.int64)
    people = [faces.people[row] for row in rows]
    failed = [image.identity for image in lost if image.identity]
    there = np.arange(len(people) + len(failed)) < len(people)
    side = side_of(faces, rows, np.array(people, str))
    nobodys = sum(not image.identity and not image.face for image in lost)
    return People(side, np.array([*people, *failed], str), there, nobodys)


def side_of(faces: Faces, rows: np.ndarray, subjects: np.ndarray) -> ImageSet:
    """Some images of a data set, which may repeat, as one side of comparisons."""
    contents = None if faces.contents is None else faces.contents[rows]
    return ImageSet(rows, subjects, [faces.files[row] for row in rows], contents)


def _pairs(
    protocol: str,
    listed: Sequence[Pair],
    path: Path,
    measure: Measure,
    config: EvaluateConfig,
    workspace: Workspace,
    images: Dataset,
    report: Report,
) -> EvaluateResult:
    def trials(faces: Sequence[Faces], absent: dict[str, str]) -> dict[str, Trials]:
        return {"all": _list_of_pairs(listed, path, faces[0], absent)}

    return evaluate(Protocol(protocol, [images], trials, measure, [sha256_file(path)]), config, workspace, report)


def _list_of_pairs(listed: Sequence[Pair], path: Path, faces: Faces, absent: dict[str, str]) -> Trials:
    match, lost = find_images([name for pair in listed for name in (pair.a, pair.b)], faces)
    absent.update(match.absent)
    # Whose image it is is known from its folder or list; an image of which nothing tells stands for itself.
    person = np.array([name or path for name, path in zip(faces.people, faces.paths, strict=True)], str)

    def rows(names: Sequence[str]) -> np.ndarray:
        return np.array([match.rows[name] for name in names], np.int64)

    def whose(name: str) -> str:
        if name in match.rows:
            return str(person[match.rows[name]])
        return (lost[name].identity if name in lost else "") or identity_of(name) or name

    there = [pair for pair in listed if pair.a in match.rows and pair.b in match.rows]
    gone = [pair for pair in listed if not (pair.a in match.rows and pair.b in match.rows)]
    a, b = rows([pair.a for pair in there]), rows([pair.b for pair in there])
    meets_itself = a == b if faces.contents is None else faces.contents[a] == faces.contents[b]
    same = np.array([pair.same for pair in there], bool)
    if contradictory := int((~same & (person[a] == person[b]) & ~meets_itself).sum()):
        raise FacedanError(
            f"{contradictory} pairs of {path} are labelled as different people but lie in one person's folder",
            "correct the list, or lay the images out without folders of people",
        )
    failed = [whose(pair.a) for pair in gone if pair.same]
    failures = Failures(
        len(match.absent), np.array(failed, str), len(gone) - len(failed), np.array([p.fold for p in gone], np.int64)
    )
    images = a[meets_itself] if faces.contents is None else faces.contents[a[meets_itself]]
    left_out = LeftOut(int((meets_itself & same).sum()), int((meets_itself & ~same).sum()), len(np.unique(images)))
    made = ~meets_itself
    return Trials(
        side_of(faces, a[made], person[a[made]]),
        side_of(faces, b[made], person[b[made]]),
        all_pairs=False,
        same=same[made],
        fold=np.array([pair.fold for pair in there], np.int64)[made],
        failures=failures,
        left_out=left_out,
    )


def _cross(
    query: Sequence[Record], target: Sequence[Record], faces: Faces, absent: dict[str, str], *, search: bool = False
) -> Trials:
    """Every query with every target, among those that are there; the lists name images by their base names."""
    match, _ = find_images([record.file_name for record in (*query, *target)], faces, by_base_name=True)
    absent.update(match.absent)
    people = [np.array([record.subject for record in records], str) for records in (query, target)]
    there = [np.array([record.file_name in match.rows for record in records], bool) for records in (query, target)]

    def side(place: int) -> ImageSet:
        records = (query, target)[place]
        rows = [match.rows[record.file_name] for record in records if record.file_name in match.rows]
        return side_of(faces, np.array(rows, np.int64), people[place][there[place]])

    named = people[0], people[1], there[0], there[1], len(match.absent)
    if not search:
        return all_pairs_trials(side(0), side(1), crossing_failures(*named))
    failures, searched = search_failures(*named)
    return search_trials(side(0).part(searched), side(1), failures)
