"""Measure models by a protocol of images: GBU, FERET, LFW's View 2, a list of pairs, the search of probes in a gallery.

`stages.verify` compares whole data sets, `stages.evaluate_scores` measures scores that other systems made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.lfw import is_view2, read_view2
from facedan_cli.protocols.matching import Match, match_images
from facedan_cli.protocols.pairs import Pair, read_pairs
from facedan_cli.protocols.sigset import Record
from facedan_cli.report import SILENT, Report
from facedan_cli.stages.differences import Figure
from facedan_cli.stages.evaluated import Faces
from facedan_cli.stages.evaluation import Measure, Protocol, evaluate
from facedan_cli.stages.measures import Verification, accuracy, verification
from facedan_cli.stages.results import EvaluateResult
from facedan_cli.stages.searches import Identification, identification
from facedan_cli.stages.trials import Failures, Side, Trials, crossing_failures, search_failures
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
        return replace(measure_partition(trials, scores, config, name), accuracy=accuracy(trials, scores))

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
        (probes, all_probes, probes_there), (known, all_known, known_there) = (of_people(s, absent) for s in faces)
        failures = search_failures(all_probes, all_known, probes_there, known_there, len(absent))
        return {"all": Trials(probes, known, failures=failures)}

    return evaluate(Protocol("identify", [probe, gallery], trials, measure_search), config, workspace, report)


def measure_partition(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Verification:
    """Verification figures of a partition."""
    what = "the protocol" if name == "all" else f"partition {name}"
    return verification(trials.compare(scores), config, what)


def measure_search(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Identification:
    """Identification figures of a probe set."""
    return identification(trials, scores, config)


def of_people(faces: Faces, absent: dict[str, str]) -> tuple[Side, np.ndarray, np.ndarray]:
    """The images that lie in folders of people; the others are nobody's and left out.

    Args:
        faces: a data set's features.
        absent: is told of the images that are left out.

    Returns:
        Those that are there; the subjects of all images, also of those that could not be used; and which are there.
    """
    nameless = [path for path, name in zip(faces.paths, faces.people, strict=True) if not name]
    left_out = {**faces.unusable, **dict.fromkeys(nameless, "not in an identity folder")}
    absent.update({str(faces.root / path): reason for path, reason in left_out.items()})
    rows = np.array([row for row, name in enumerate(faces.people) if name], np.int64)
    people = [faces.people[row] for row in rows]
    lost = [path.partition("/")[0] for path in faces.unusable if "/" in path]
    there = np.arange(len(people) + len(lost)) < len(people)
    side = Side(rows, np.array(people, str), [faces.files[row] for row in rows])
    return side, np.array([*people, *lost], str), there


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
    match = match_images([name for pair in listed for name in (pair.a, pair.b)], faces.paths)
    _note_missing(absent, match, faces)
    there = [pair for pair in listed if pair.a in match.rows and pair.b in match.rows]
    gone = [pair for pair in listed if not (pair.a in match.rows and pair.b in match.rows)]
    # Whose image it is is known from its folder; an image that lies in none stands for itself.
    person = np.array([name or path for name, path in zip(faces.people, faces.paths, strict=True)], str)

    def side(names: Sequence[str]) -> Side:
        rows = np.array([match.rows[name] for name in names], np.int64)
        return Side(rows, person[rows], [faces.files[row] for row in rows])

    first, second = side([pair.a for pair in there]), side([pair.b for pair in there])
    same = np.array([pair.same for pair in there], bool)
    if contradictory := int((~same & (first.subjects == second.subjects)).sum()):
        raise FacedanError(
            f"{contradictory} pairs of {path} are labelled as different people but lie in one person's folder",
            "correct the list, or lay the images out without folders of people",
        )
    lost = [person[match.rows[pair.a]] if pair.a in match.rows else _folder(pair.a) for pair in gone if pair.same]
    failures = Failures(len(match.missing), np.array(lost, str), len(gone) - len(lost))
    fold = np.array([pair.fold for pair in there], np.int64)
    return Trials(first, second, crossed=False, same=same, fold=fold, failures=failures)


def _folder(name: str) -> str:
    """The person that a path of a list names; without a folder an image stands for itself."""
    return name.partition("/")[0]


def _cross(
    query: Sequence[Record], target: Sequence[Record], faces: Faces, absent: dict[str, str], *, search: bool = False
) -> Trials:
    """Every query with every target, among those that are there."""
    match = match_images([record.file_name for record in (*query, *target)], faces.paths)
    _note_missing(absent, match, faces)
    subjects = _both(query, target, lambda record: record.subject, str)
    there = _both(query, target, lambda record: record.file_name in match.rows, bool)

    def side(records: Sequence[Record], subject: np.ndarray, kept: np.ndarray) -> Side:
        found = [match.rows[record.file_name] for record in records if record.file_name in match.rows]
        return Side(np.array(found, np.int64), subject[kept], [faces.files[row] for row in found])

    missing = len(match.missing)
    failures = search_failures(*subjects, *there, missing) if search else crossing_failures(*subjects, *there, missing)
    return Trials(side(query, subjects[0], there[0]), side(target, subjects[1], there[1]), failures=failures)


def _both(
    query: Sequence[Record], target: Sequence[Record], of: Callable[[Record], object], dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """Something of each record of both sides."""
    return np.array([of(record) for record in query], dtype), np.array([of(record) for record in target], dtype)


def _note_missing(absent: dict[str, str], match: Match, faces: Faces) -> None:
    unusable = match_images(match.missing, list(faces.unusable))
    reasons = list(faces.unusable.values())
    for name in match.missing:
        absent[name] = reasons[unusable.rows[name]] if name in unusable.rows else "not among the images"
