"""Evaluation of other systems' scores: BEE matrices with their masks, and columns of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation.differences import differences
from facedan_cli.evaluation.evaluate import finish
from facedan_cli.evaluation.failures import Failures
from facedan_cli.evaluation.matrix_selves import left_out_of, selves, without_selves
from facedan_cli.evaluation.remarks import of_left_out
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.settings import resolve_evaluate, without_bootstrap
from facedan_cli.evaluation.trials import Comparisons
from facedan_cli.evaluation.verification import OURS, Verification, streamed_verification, verification
from facedan_cli.metrics.streaming import verification_of_tiles
from facedan_cli.protocols.bee import (
    IGNORED,
    MATCH,
    NON_MATCH,
    BeeMatrix,
    comparisons,
    read_matrix,
    read_scores_and_mask,
    sigset_beside,
)
from facedan_cli.protocols.scores import read_scores
from facedan_cli.protocols.sigset import read_sigset
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import provenance
from facedan_cli.text import open_given
from facedan_cli.workspace import Workspace, digest, sha256_file

_FORMATS = (b"S2", b"D2", b"M2")
_BLOCK = 1 << 22


def evaluate_scores(
    config: EvaluateConfig,
    workspace: Workspace,
    files: Sequence[Path],
    mask: Path | None,
    *,
    report: Report = SILENT,
) -> EvaluateResult:
    """Measure verification rates of scores in files, a row for each file.

    A matrix of more than MOST_IN_MEMORY comparisons is streamed: the rates are the same, the intervals Wilson's.

    Args:
        config: settings of the measurement; options of models are ignored.
        workspace: workspace of the results.
        files: BEE matrices, all with the mask `mask`, or text of two, four or five columns.
        mask: the mask of the matrices. Without one, the sigsets that a matrix names must lie beside it.
        report: receives notes and progress.

    Raises:
        UsageError: a mask goes with no matrix, a matrix has no mask, or two files have one name.
        FacedanError: a file has another format; the message names the place and the reason.
    """
    config = resolve_evaluate(config)
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        raise UsageError("two files have one name: their rows could not be told apart", "rename one of them")
    found = [_measure(path, mask, config, report) for path in files]
    if config.ci == "bootstrap" and config.convention == OURS and not all(one.rates.replicates for one, _ in found):
        reason = "the subjects of some file's comparisons are unknown, or its scores too many to keep"
        config = without_bootstrap(config, reason, report)
        found = [_measure(path, mask, config, report) for path in files]
    measured = {name: one for name, (one, _) in zip(names, found, strict=True)}
    for name, one in measured.items():
        genuine, impostor, _ = one.failed
        if genuine or impostor:
            report.note(
                f"{name} has no score (NaN) for {genuine} genuine and {impostor} impostor comparisons: they count as "
                "failures to acquire"
            )
    models = [ModelResult(name, None, None, {"all": one}) for name, one in measured.items()]
    digests = {str(path): sha256_file(path) for path in (*files, *([mask] if mask else []))}
    options = [config.far, config.convention, config.ci, config.replicates, config.seed, config.plot]
    identity = digest({"files": list(digests.values()), "config": options})
    paired = all(_paired(found[0][1], compared) for _, compared in found[1:])
    result = EvaluateResult(
        protocol="scores",
        directory=workspace.result_directory("scores", identity),
        models=models,
        differences=differences([(model.name, model.partitions) for model in models]) if paired else [],
        config=config,
        warnings=[f"{name}: {of_left_out(one.left_out)}" for name, one in measured.items() if one.left_out],
        provenance=provenance() | {"files": digests},
    )
    return finish(result, report)


def _measure(
    path: Path, mask: Path | None, config: EvaluateConfig, report: Report
) -> tuple[Verification, Comparisons | None]:
    """The rates of a file, and its scores if they were kept."""
    if not _is_matrix(path):
        if mask is not None:
            raise UsageError(
                f"{path} is no BEE matrix, and --mask is for these", "leave --mask out for score files of text"
            )
        scores = read_scores(path)
        compared = Comparisons(
            scores.genuine,
            scores.impostor,
            scores.genuine_subject,
            scores.impostor_subjects,
            scores.failed_subject,
            _failures(scores.failed_subject, scores.failed_impostor),
        )
        return verification(compared, config, str(path)), compared
    matrix, of = _matrix(path, mask)
    if matrix.values.size <= all_pairs.MOST_IN_MEMORY:
        compared = replace(_in_memory(matrix, of), left_out=left_out_of(selves(matrix), of, _subjects(matrix)))
        return verification(compared, config, str(path)), compared
    if config.convention != OURS:
        raise UsageError(
            f"{path} has more than {all_pairs.MOST_IN_MEMORY} comparisons, of which only {OURS} is measured",
            "leave --convention out",
        )
    with report.progress(f"reading {path.name}", 2 * matrix.values.size, unit="comparisons") as advance:
        failed = [0, 0]
        try:
            found = verification_of_tiles(
                partial(_tiles, matrix, of, failed),
                config.far,
                failed=lambda: failed[0],
                advance=lambda n: advance(n, ""),
            )
        except ValueError as error:
            raise FacedanError(f"{path} cannot be measured: {error}", "check the matrix and its mask") from error
    failures = _failures(np.zeros(failed[0], np.int64), failed[1])
    return streamed_verification(found, failures, left_out_of(selves(matrix), of, _subjects(matrix)), config), None


def _failures(genuine: np.ndarray, impostor: int) -> Failures:
    """The failures of a file: comparisons without a score (NaN), as Bob and others write for images not acquired."""
    return Failures(0, genuine.astype(str), impostor)


def _is_matrix(path: Path) -> bool:
    try:
        with open_given(path) as file:
            return file.readline(8).rstrip() in _FORMATS
    except OSError as error:
        raise FacedanError(f"cannot read {path}: {error.strerror}", "check the path") from error


def _matrix(path: Path, mask: Path | None) -> tuple[BeeMatrix, BeeMatrix | None]:
    if mask is not None:
        return read_scores_and_mask(path, mask)
    matrix = read_matrix(path)
    if matrix.kind == "mask":
        raise UsageError(f"{path} is a mask, not scores", "give the matrix of scores, and this one with --mask")
    if _subjects(matrix) is None:
        raise UsageError(
            f"which comparisons of {path} are genuine is not known: the sigsets that it names are not beside it",
            "give its mask with --mask, or copy the sigsets into its directory",
        )
    return matrix, None


def _in_memory(matrix: BeeMatrix, mask: BeeMatrix | None) -> Comparisons:
    subjects = _subjects(matrix)
    scores, marks = (np.concatenate(part) for part in zip(*_counted(matrix, mask), strict=True))
    mates, others, made = marks == MATCH, marks == NON_MATCH, ~np.isnan(scores)
    places = [np.nonzero(found) for found in (mates & made, others & made, mates & ~made)]
    genuine, impostor = scores[places[0]], scores[places[1]]
    query, target = subjects or (np.zeros(len(scores), np.int64),) * 2
    failed = query[places[2][0]]
    failures = _failures(failed, int(np.count_nonzero(others & ~made)))
    if subjects is None:
        return Comparisons(genuine, impostor, failed_subject=failed, failures=failures)
    apart = query[places[1][0]], target[places[1][1]]
    of_one = np.equal.outer(query, target)
    if np.any(of_one & others) or np.any(~of_one & mates):
        raise FacedanError(
            f"the mask of {matrix.path} contradicts the subjects of the sigsets beside it",
            "give the mask that was made for these sigsets, or move the sigsets away",
        )
    return Comparisons(genuine, impostor, query[places[0][0]], apart, failed, failures)


def _tiles(matrix: BeeMatrix, mask: BeeMatrix | None, failed: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of scores and whether they are genuine; `failed` counts genuine and impostor ones without score."""
    failed[:] = 0, 0
    for scores, marks in _counted(matrix, mask):
        made = ~np.isnan(scores)
        for place, kind in enumerate((MATCH, NON_MATCH)):
            failed[place] += int(np.count_nonzero((marks == kind) & ~made))
        counted = (marks != IGNORED) & made
        yield scores[counted], marks[counted] == MATCH


def _counted(matrix: BeeMatrix, mask: BeeMatrix | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the blocks of `_marked` without comparisons of an image with itself."""
    return without_selves(_marked(matrix, mask), selves(matrix))


def _marked(matrix: BeeMatrix, mask: BeeMatrix | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of rows: scores and mask values; without a mask all comparisons count, by their subjects.

    Raises:
        FacedanError: the mask has another value than its three.
    """
    if mask is not None:
        yield from ((scores, marks) for _, scores, marks in comparisons(matrix, mask))
        return
    subjects = _subjects(matrix)
    assert subjects is not None
    step = max(1, _BLOCK // matrix.values.shape[1])
    for start in range(0, matrix.values.shape[0], step):
        scores = matrix.similarities(slice(start, start + step))
        genuine = np.equal.outer(subjects[0][start : start + step], subjects[1])
        yield scores, np.where(genuine, np.uint8(MATCH), np.uint8(NON_MATCH))


def _subjects(matrix: BeeMatrix) -> tuple[np.ndarray, np.ndarray] | None:
    """Subjects of rows and columns as numbers, from the sigsets beside the matrix; None without these."""
    sides = []
    for name, size in zip((matrix.query_sigset, matrix.target_sigset), matrix.values.shape, strict=True):
        path = sigset_beside(matrix, name)
        if path is None:
            return None
        # The images of a complex signature share a row.
        signatures = {record.signature: record.subject for record in read_sigset(path)}
        if len(signatures) != size:
            raise FacedanError(
                f"{path} lists {len(signatures)} signatures, where {matrix.path} has {size}",
                "give the sigset that the matrix was made from, or move it away",
            )
        sides.append(list(signatures.values()))
    codes = np.unique([*sides[0], *sides[1]], return_inverse=True)[1].astype(np.int64)
    return codes[: len(sides[0])], codes[len(sides[0]) :]


def _paired(a: Comparisons | None, b: Comparisons | None) -> bool:
    """Whether two files score the same comparisons in the same order, judged by their subjects."""
    if a is None or b is None or a.genuine_subject is None or b.genuine_subject is None:
        return False
    assert a.impostor_subjects is not None
    assert b.impostor_subjects is not None
    pairs = [(a.genuine_subject, b.genuine_subject), *zip(a.impostor_subjects, b.impostor_subjects, strict=True)]
    return all(np.array_equal(one, other) for one, other in pairs)
