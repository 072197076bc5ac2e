"""Score files that other tools can check: BEE matrices for all pairs, Bob's columns for lists of pairs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from facedan_cli.evaluation.trials import ImageSet, Trials
from facedan_cli.protocols.bee import IGNORED, MATCH, NON_MATCH, write_matrix
from facedan_cli.protocols.sigset import Record, write_sigset
from facedan_cli.workspace import digest, replacing


def save_scores(directory: Path, trials: Mapping[str, Trials], scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write the scores of every model in every partition.

    Of a cross: PARTITION-MODEL.mtx, with the mask PARTITION-mask.mtx and the sigsets of the images that are there, all
    in the formats of the Biometrics Evaluation Environment, which OpenBR reads. Of pairs: PARTITION-MODEL.txt in Bob's
    five columns, claimed identity, its image, real identity, image, score.

    Args:
        directory: made where it does not exist.
        trials: the comparisons by partition.
        scores: scores by model, then by partition.
    """
    stems = file_names(trials)
    models = file_names(scores, taken=("mask",))
    for name, part in trials.items():
        by_model = {models[model]: by_part[name] for model, by_part in scores.items()}
        if part.all_pairs:
            _write_cross(directory, stems[name], part, by_model)
        else:
            for model, found in by_model.items():
                _write_columns(directory / f"{stems[name]}-{model}.txt", part, found)


def file_names(names: Iterable[str], *, taken: Sequence[str] = ()) -> dict[str, str]:
    """Unique file names for models or partitions: "λ = 0" becomes "lambda-0".

    Names that would be equal, also without regard to case, and names without any usable character end in eight digits
    of their SHA-256.

    Args:
        names: different from each other.
        taken: names that must not be given.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_.]+", "-", name.replace("λ", "lambda")).strip("-") for name in names}
    counts = Counter(part.casefold() for part in [*plain.values(), *taken, "", ""])
    return {
        name: part if counts[part.casefold()] == 1 else f"{part}-{digest(name)[:8]}".strip("-")
        for name, part in plain.items()
    }


def _write_cross(directory: Path, name: str, trials: Trials, scores: Mapping[str, np.ndarray]) -> None:
    query, target = f"{name}-query.xml", f"{name}-target.xml"
    # Two sets' images have different names in the lists, though they may be called alike in their own folders.
    root = os.path.commonpath(
        [os.path.abspath(file.parent) for side in (trials.query, trials.target) for file in side.files]
    )
    for name_of_list, side in ((query, trials.query), (target, trials.target)):
        write_sigset(directory / name_of_list, _records(side, root))
    mask = np.full(trials.genuine.shape, IGNORED, np.uint8)
    mask[trials.genuine] = MATCH
    mask[trials.impostor] = NON_MATCH
    write_matrix(directory / f"{name}-mask.mtx", mask, query_sigset=query, target_sigset=target, kind="mask")
    for model, matrix in scores.items():
        path = directory / f"{name}-{model}.mtx"
        write_matrix(path, matrix.astype(np.float32), query_sigset=query, target_sigset=target)


def _records(side: ImageSet, root: str) -> list[Record]:
    return [
        Record(
            str(subject),
            Path(os.path.relpath(os.path.abspath(file), root)).as_posix(),
            name=file.stem,
            modality="face",
            file_format=file.suffix.lstrip("."),
        )
        for subject, file in zip(side.subjects, side.files, strict=True)
    ]


def _write_columns(path: Path, trials: Trials, scores: np.ndarray) -> None:
    rows = zip(
        trials.target.subjects,
        trials.target.files,
        trials.query.subjects,
        trials.query.files,
        scores,
        strict=True,
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for claimed, model, real, probe, score in rows:
            words = [_word(str(field)) for field in (claimed, model, real, probe)]
            file.write(f"{' '.join(words)} {score:.9g}\n")


def _word(text: str) -> str:
    """A text as one column, without blanks."""
    return re.sub(r"\s", "_", text)
