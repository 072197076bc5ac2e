"""The images of a protocol as the two sides of comparisons, with subjects by lists or folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.data.origins import is_directory
from facedan_cli.evaluation.failures import all_pairs_failures, identification_failures
from facedan_cli.evaluation.identification import Identification, identification
from facedan_cli.evaluation.models import EmbeddedSet, find_images
from facedan_cli.evaluation.trials import ImageSet, Trials, all_pairs_trials, identification_trials
from facedan_cli.evaluation.verification import Verification, verification
from facedan_cli.protocols.sigset import Record


def measure_verification(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Verification:
    """The verification rates of a partition."""
    what = "the protocol" if name == "all" else f"partition {name}"
    return verification(trials.compare(scores), config, what)


def measure_identification(trials: Trials, scores: np.ndarray, config: EvaluateConfig, name: str) -> Identification:
    """The identification rates of a probe set."""
    return identification(trials, scores, config)


@dataclass(frozen=True)
class LabelledImages:
    """The images of a data set whose subjects are known.

    Args:
        images: images with features.
        subjects: the subject of every image, those without features last, strings, shape (n,).
        acquired: which of them have features, bool, shape (n,).
        unlabelled: images without features and without a known subject.
        lost: paths of the images without features, in the order of `subjects`.
    """

    images: ImageSet
    subjects: np.ndarray
    acquired: np.ndarray
    unlabelled: int
    lost: Sequence[str]


def labelled_images(embedded: EmbeddedSet, missing: dict[str, str]) -> LabelledImages:
    """The images whose subject a folder or a list names; others are left out.

    Args:
        embedded: a data set's features.
        missing: gets the images that are left out or have no features, with the reasons.
    """
    failed = [image for image in embedded.failed if image.in_dataset]
    left_out = {image.path: image.reason for image in failed} | {
        path: "not in an identity folder"
        for path, subject in zip(embedded.paths, embedded.subjects, strict=True)
        if not subject
    }
    missing.update({str(embedded.root / path): reason for path, reason in left_out.items()})
    rows = np.array([row for row, subject in enumerate(embedded.subjects) if subject], np.int64)
    acquired = [embedded.subjects[row] for row in rows]
    not_acquired = [image.identity for image in failed if image.identity]
    return LabelledImages(
        images=image_set(embedded, rows, np.array(acquired, str)),
        subjects=np.array([*acquired, *not_acquired], str),
        acquired=np.arange(len(acquired) + len(not_acquired)) < len(acquired),
        unlabelled=sum(not (image.identity or image.face or is_directory(image.path)) for image in failed),
        lost=[os.path.realpath(embedded.root / image.path) for image in failed if image.identity],
    )


def image_set(embedded: EmbeddedSet, rows: np.ndarray, subjects: np.ndarray) -> ImageSet:
    """One side of comparisons: some images of a data set, which may repeat."""
    contents = None if embedded.contents is None else embedded.contents[rows]
    return ImageSet(rows, subjects, [embedded.files[row] for row in rows], contents)


def trials_of_lists(
    query: Sequence[Record],
    target: Sequence[Record],
    embedded: EmbeddedSet,
    missing: dict[str, str],
    *,
    search: bool = False,
) -> Trials:
    """The comparisons of every query with every target, among images with features.

    Args:
        query: the queries or probes, whose files are matched by base name.
        target: the targets or the gallery, likewise.
        embedded: the features of the images.
        missing: gets the images of the lists that have no features, with the reasons.
        search: whether queries are searched among the targets, else each pair is verified.
    """
    match, _ = find_images([record.file_name for record in (*query, *target)], embedded, by_base_name=True)
    missing.update(match.missing)
    subjects = [np.array([record.subject for record in records], str) for records in (query, target)]
    acquired = [np.array([record.file_name in match.rows for record in records], bool) for records in (query, target)]

    def side(place: int) -> ImageSet:
        records = (query, target)[place]
        rows = [match.rows[record.file_name] for record in records if record.file_name in match.rows]
        return image_set(embedded, np.array(rows, np.int64), subjects[place][acquired[place]])

    named = subjects[0], subjects[1], acquired[0], acquired[1], len(match.missing)
    absent = [[record.file_name for record in side if record.file_name in match.missing] for side in (query, target)]
    lost = absent[0], absent[1]
    if not search:
        return all_pairs_trials(side(0), side(1), all_pairs_failures(*named, lost=lost))
    failures, searched = identification_failures(*named, lost=lost)
    return identification_trials(side(0).part(searched), side(1), failures)
