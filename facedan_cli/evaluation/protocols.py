"""The protocols, a function each: GBU, FERET, LFW's View 2, a list of pairs, identification in a gallery.

`evaluation.all_pairs` verifies whole data sets, `evaluation.external_scores` measures the scores of other systems.
`config.protocols` has a row for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.dataset import identity_of
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.differences import Measurement
from facedan_cli.evaluation.evaluate import Measure, Protocol, evaluate
from facedan_cli.evaluation.failures import Failures, identification_failures
from facedan_cli.evaluation.image_sets import (
    image_set,
    labelled_images,
    measure_identification,
    measure_verification,
    trials_of_lists,
)
from facedan_cli.evaluation.models import EmbeddedSet, find_images
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.evaluation.trials import LeftOut, Trials, identification_trials
from facedan_cli.evaluation.verification import accuracy
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.gbu import read_gbu
from facedan_cli.protocols.lfw import is_view2, read_view2
from facedan_cli.protocols.pairs import Pair, read_pairs
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import Dataset, Workspace, sha256_file


def evaluate_gbu(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, protocol: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verify on the partitions of GBU (Phillips et al. 2012): every query image with every target image.

    Args:
        config: the models and how they are measured.
        workspace: workspace of features and results.
        images: the aligned faces, matched to the lists by base name.
        protocol: the directory of the sigsets.
        report: receives notes and progress.

    Raises:
        FacedanError: lists or images are missing so that nothing can be measured.
    """
    partitions = read_gbu(protocol)

    def trials(embedded: Sequence[EmbeddedSet], missing: dict[str, str]) -> dict[str, Trials]:
        return {
            name: trials_of_lists(part.query, part.target, embedded[0], missing) for name, part in partitions.items()
        }

    lists = [sha256_file(path) for path in sorted(protocol.glob("*.xml"))]
    whole = Protocol("gbu", [images], trials, measure_verification, lists, by_base_name=True)
    return evaluate(whole, config, workspace, report)


def evaluate_feret(
    config: EvaluateConfig,
    workspace: Workspace,
    images: Dataset,
    protocol: Path,
    *,
    any_lists: bool = False,
    report: Report = SILENT,
) -> EvaluateResult:
    """Identify by the FERET protocol of 1996, closed set: fb, fc, dup1 and dup2 searched in the gallery fa.

    Args:
        config: the models and how they are measured.
        workspace: workspace of features and results.
        images: the aligned faces of the grey release, matched to the lists by base name.
        protocol: the directory of the lists, sigsets or .srt.
        any_lists: whether lists other than the published ones are taken.
        report: receives notes and progress.

    Raises:
        FacedanError: lists or images are missing so that nothing can be measured, or the lists are others.
    """
    lists = read_feret(protocol, any_lists)

    def trials(embedded: Sequence[EmbeddedSet], missing: dict[str, str]) -> dict[str, Trials]:
        parts = {
            name: trials_of_lists(probes, lists.gallery, embedded[0], missing, search=True)
            for name, probes in lists.probes.items()
        }
        for name, part in parts.items():
            if not part.genuine.any():
                raise FacedanError(
                    f"no probe of {name} and its mate in fa are among the images of '{images.name}'",
                    "give the grey FERET images under their own names, such as 00001fa010_930831.jpg",
                )
        return parts

    digests = [sha256_file(path) for path in sorted(protocol.iterdir()) if path.suffix.lower() in (".xml", ".srt")]
    whole = Protocol("feret", [images], trials, measure_identification, digests, average=True, by_base_name=True)
    return evaluate(whole, config, workspace, report)


def evaluate_lfw(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, pairs: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Measure the accuracy of LFW's View 2: ten folds, each with the threshold of the others (Huang et al. 2007).

    Args:
        config: the models and how they are measured.
        workspace: workspace of features and results.
        images: the aligned faces.
        pairs: pairs.txt, or a list in its form with at least two folds.
        report: receives notes and progress.

    Raises:
        FacedanError: the list cannot be read or has no folds, or too few of its images are there.
    """
    listed = read_view2(pairs)
    if not is_view2(listed):
        report.warn(
            f"{pairs} is not View 2 of LFW (ten folds of 300 pairs of each kind): published rates are not comparable"
        )

    def measure(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Measurement:
        acquired, with_failures = accuracy(trials, scores)
        measured = measure_verification(trials, scores, config, name)
        return replace(measured, accuracy=acquired, accuracy_with_failures=with_failures)

    return _pairs("lfw", listed, pairs, measure, config, workspace, images, report)


def evaluate_pairs(
    config: EvaluateConfig, workspace: Workspace, images: Dataset, file: Path, *, report: Report = SILENT
) -> EvaluateResult:
    """Verify on a list of pairs, LFW's pairs.txt or three plain columns.

    Args:
        config: the models and how they are measured.
        workspace: workspace of features and results.
        images: the aligned faces; folders that name subjects make the intervals those of subjects, not of images.
        file: the list.
        report: receives notes and progress.

    Raises:
        FacedanError: the list cannot be read, or too few of its images are there.
    """
    return _pairs("pairs", read_pairs(file), file, measure_verification, config, workspace, images, report)


def evaluate_identify(
    config: EvaluateConfig, workspace: Workspace, gallery: Dataset, probe: Dataset, *, report: Report = SILENT
) -> EvaluateResult:
    """Identify each probe in the gallery; folders, or the lists' second column, name the subjects.

    Where some probes have no mate in the gallery, open-set rates are measured as well.

    Args:
        config: the models and how they are measured.
        workspace: workspace of features and results.
        gallery: the aligned faces of known subjects.
        probe: the aligned faces to be recognised.
        report: receives notes and progress.

    Raises:
        FacedanError: gallery and probes are one data set, or no probe has a mate in the gallery.
    """
    if gallery.root.resolve() == probe.root.resolve():
        raise UsageError(
            f"gallery and probes are the same data set ({gallery.root}): every probe would find itself",
            "give --probe other images of the subjects in the gallery",
        )

    def trials(embedded: Sequence[EmbeddedSet], missing: dict[str, str]) -> dict[str, Trials]:
        probes, known = (labelled_images(one, missing) for one in embedded)
        failures, searched = identification_failures(
            probes.subjects,
            known.subjects,
            probes.acquired,
            known.acquired,
            len(missing),
            lost=(probes.lost, known.lost),
        )
        failures = replace(failures, unlabelled=probes.unlabelled + known.unlabelled)
        return {"all": identification_trials(probes.images.part(searched), known.images, failures)}

    return evaluate(Protocol("identify", [probe, gallery], trials, measure_identification), config, workspace, report)


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
    def trials(embedded: Sequence[EmbeddedSet], missing: dict[str, str]) -> dict[str, Trials]:
        return {"all": _list_of_pairs(listed, path, embedded[0], missing)}

    return evaluate(Protocol(protocol, [images], trials, measure, [sha256_file(path)]), config, workspace, report)


def _list_of_pairs(listed: Sequence[Pair], path: Path, embedded: EmbeddedSet, missing: dict[str, str]) -> Trials:
    match, failed = find_images([name for pair in listed for name in (pair.a, pair.b)], embedded)
    missing.update(match.missing)
    # The folder or the list names the subject; an image that neither labels is a subject of its own.
    subjects = np.array([name or image for name, image in zip(embedded.subjects, embedded.paths, strict=True)], str)

    def rows(names: Sequence[str]) -> np.ndarray:
        return np.array([match.rows[name] for name in names], np.int64)

    def subject(name: str) -> str:
        if name in match.rows:
            return str(subjects[match.rows[name]])
        return (failed[name].identity if name in failed else "") or identity_of(name) or name

    acquired = [pair for pair in listed if pair.a in match.rows and pair.b in match.rows]
    not_acquired = [  # an image without features, compared with itself, is no failure: it would be left out
        pair for pair in listed if not (pair.a in match.rows and pair.b in match.rows) and pair.a != pair.b
    ]
    a, b = rows([pair.a for pair in acquired]), rows([pair.b for pair in acquired])
    meets_itself = a == b if embedded.contents is None else embedded.contents[a] == embedded.contents[b]
    same = np.array([pair.same for pair in acquired], bool)
    if contradictory := int((~same & (subjects[a] == subjects[b]) & ~meets_itself).sum()):
        raise FacedanError(
            f"{contradictory} pairs of {path} are labelled as different subjects but lie in one subject's folder",
            "correct the list, or lay the images out without folders of subjects",
        )
    genuine = [subject(pair.a) for pair in not_acquired if pair.same]
    failures = Failures(
        images=len(match.missing),
        genuine=np.array(genuine, str),
        impostor=len(not_acquired) - len(genuine),
        fold=np.array([pair.fold for pair in not_acquired], np.int64),
    )
    images = a[meets_itself] if embedded.contents is None else embedded.contents[a[meets_itself]]
    left_out = LeftOut(int((meets_itself & same).sum()), int((meets_itself & ~same).sum()), len(np.unique(images)))
    made = ~meets_itself
    return Trials(
        image_set(embedded, a[made], subjects[a[made]]),
        image_set(embedded, b[made], subjects[b[made]]),
        all_pairs=False,
        same=same[made],
        fold=np.array([pair.fold for pair in acquired], np.int64)[made],
        failures=failures,
        left_out=left_out,
    )
