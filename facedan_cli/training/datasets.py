"""The parts that pretrain and adapt share: the labelled source, held-out samples, seeds and the result."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.data.alignments import template_and_size
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.levels import check_levels, warn_of_levels
from facedan_cli.data.same_images import contents_that_are_there
from facedan_cli.embedding.alignment import Expected, misfits, training_misalignments
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.report import Report
from facedan_cli.runs import Run, tidy
from facedan_cli.workspace import Dataset, Workspace, find_manifest, read_set_aside, write_set_aside

SOURCE_SEED, TARGET_SEED, BANDWIDTH_SEED = 1, 2, 3
"""Second part of the seed of each batch stream; the first is the seed of the training (`going_on`)."""

METHOD = 2
"""Version of trainings that start from a network of facedan; raised where the same configuration gives another one.

It is part of the identity of their runs: a run of an earlier method keeps its name, and is not resumed by another.
"""

LEAST_SAMPLE = 10
"""Smallest held-out sample worth a test."""

IMAGES_TO_KEEP = 3
"""Smallest number of training images of an identity whose image is held out."""


@dataclass(frozen=True)
class Source:
    """A labelled data set: the images in identity folders.

    Args:
        dataset: the data set.
        folder: training images.
        identities: identities in the order of the classes.
        unlabelled: images outside identity folders.
        held_out: images of held-out identities, which no training sees.
    """

    dataset: Dataset
    folder: FaceDataset
    identities: tuple[str, ...]
    unlabelled: tuple[str, ...]
    held_out: FaceDataset

    def labels_of(self, folder: FaceDataset) -> np.ndarray:
        """The class of each image of the data set or a part of it, int64, shape (images,)."""
        order = {name: index for index, name in enumerate(self.identities)}
        return np.array([order[name] for name in folder.names], np.int64)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training stage.

    Args:
        run: run with the checkpoint.
        skipped: whether the run was finished before.
        metrics: last line of its log.
        set_aside: list of images that could not be used; None if there are none.
    """

    run: Run
    skipped: bool
    metrics: Mapping[str, Any]
    set_aside: Path | None


def read_source(
    dataset: Dataset, holdout_identities: int = 0, workspace: Path | None = None, *, least_kept: int = 10
) -> Source:
    """The labelled images of a data set.

    Args:
        dataset: the data set.
        holdout_identities: number of held-out identities. The choice depends on the names alone, and a smaller sample
            is part of a larger one.
        workspace: workspace that keeps digests of the images; None: none.
        least_kept: one identity in so many is held out at most.

    Raises:
        FacedanError: there is no identity folder, only one, or identity folders lie a level deeper.
    """
    folder = read_dataset(dataset.root)
    if workspace is not None:
        folder = folder.remembered_in(workspace)
    check_levels(dataset, folder)
    named = [row for row, name in enumerate(folder.names) if name]
    identities = tuple(sorted({folder.names[row] for row in named}))
    layout = f"a source has one folder per identity: {dataset.root}/IDENTITY/image.jpg"
    if not identities:
        raise FacedanError(f"the source '{dataset.name}' has no identity folders", layout)
    if len(identities) == 1:
        raise FacedanError(
            f"the source '{dataset.name}' has one identity only ('{identities[0]}'): there is nothing to tell apart",
            layout,
        )
    unlabelled = tuple(path for path, name in zip(folder.paths, folder.names, strict=True) if not name)
    held_out = set(sorted(identities, key=by_digest)[: min(holdout_identities, len(identities) // least_kept)])
    return Source(
        dataset,
        part_of(folder, [row for row in named if folder.names[row] not in held_out]),
        tuple(name for name in identities if name not in held_out),
        unlabelled,
        part_of(folder, [row for row in named if folder.names[row] in held_out]),
    )


def going_on(stage: str, seed: int, init: str) -> int:
    """The seed of a training that starts from a trained network.

    With the plain seed it would replay the crops and dropout masks of that network's training.

    Args:
        stage: "pretrain" or "adapt".
        seed: seed of the run.
        init: SHA-256 of the network's file, hexadecimal.

    Returns:
        A seed of 32 bits.
    """
    return int.from_bytes(hashlib.sha256(f"{stage} {seed} {init}".encode()).digest()[:4])


def part_of(folder: FaceDataset, rows: Sequence[int]) -> FaceDataset:
    """The data set of some rows of a data set."""
    paths, names = (tuple(column[row] for row in rows) for column in (folder.paths, folder.names))
    return replace(folder, paths=paths, names=names)


def hold_out(folder: FaceDataset, most: int, *, labelled: bool) -> tuple[FaceDataset, FaceDataset]:
    """Divide a data set into training images and a held-out sample.

    The sample is at most a tenth of the images, and empty where that is fewer than `LEAST_SAMPLE`. It depends on their
    names alone, so that both stages hold out the same images; a smaller sample is part of a larger one. In a labelled
    data set it has one image an identity, for independence, and only of identities that keep three or more.

    Args:
        folder: the data set.
        most: images in the sample at most; 0: none.
        labelled: whether `folder.names` are identities.

    Returns:
        Training images, and the sample.
    """
    ordered = sorted(range(len(folder)), key=lambda row: by_digest(folder.paths[row]))
    count = min(most, len(folder) // 10)
    if labelled:
        images_of = Counter(folder.names)
        first: dict[str, int] = {}
        for row in ordered:
            if images_of[folder.names[row]] > IMAGES_TO_KEEP:
                first.setdefault(folder.names[row], row)
        ordered = list(first.values())
    rows_out = set(ordered[:count]) if min(count, len(ordered)) >= LEAST_SAMPLE else set()
    rows = range(len(folder))
    return part_of(folder, [row for row in rows if row not in rows_out]), part_of(folder, sorted(rows_out))


def by_digest(name: str) -> bytes:
    """The sort key of a name, for an order that is unrelated to the names and the same everywhere."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def describe(dataset: Dataset, folder: FaceDataset) -> dict[str, Any]:
    """The entry of a data set in run.json."""
    return {
        "name": dataset.name,
        "root": str(dataset.root.resolve()),
        "images": len(folder),
        "contents": folder.fingerprint,
    }


def found_finished(run: Run, folders: Iterable[FaceDataset], *, force: bool, report: Report) -> TrainingResult | None:
    """The result of a finished run; None if it must be trained.

    Args:
        run: planned.
        folders: its data sets, whose digests are kept from now on.
        force: whether to train again.
        report: receives remarks on the run.
    """
    for folder in folders:
        folder.contents.keep()
    if run.remark and not force:
        report.note(run.remark)
    if run.warning and not force:
        report.warn(run.warning)
    if run.finished and not force:
        tidy(run)
        return TrainingResult(run, True, run.last_metrics, run.set_aside)
    if run.damaged:
        report.warn(f"{run.checkpoint} is damaged: it is not what its run wrote, and is made again")
    return None


def is_of_images(dataset: Dataset, workspace: Workspace) -> Callable[[Mapping[str, Any]], bool]:
    """The test of run records for whether a run was trained on these source images, under any name of the data set."""

    @cache
    def contents(holdout_identities: int) -> str:
        return read_source(dataset, holdout_identities, workspace.root).folder.fingerprint

    def accept(record: Mapping[str, Any]) -> bool:
        known = record.get("inputs", {}).get("source", {}).get("contents")
        config = record.get("config", {})
        held = config.get("holdout_identities", config.get("hold_people")) or 0  # the latter in earlier versions
        return isinstance(known, str) and isinstance(held, int) and known == contents(held)

    return accept


def warn_of_changes(report: Report, *folders: FaceDataset) -> None:
    """Warn if data sets changed while a run read them."""
    for folder in folders:
        if not folder.is_as_it_was():
            report.warn(f"images of {folder.root} changed during the run: it may have learnt from either; repeat it")


def check_alignment(report: Report, expected: Expected, *datasets: Dataset) -> None:
    """Warn if faces are not aligned as the network expects, or not alike; all need one alignment (Section IV-C)."""
    manifests = {}
    misaligned = training_misalignments(expected, datasets, report)
    for warning in (*misaligned, *misfits({dataset.name: dataset.root for dataset in datasets})):
        report.warn(str(warning))
    for dataset in datasets:
        manifest = find_manifest(dataset.root)
        if manifest is None:
            report.note(f"'{dataset.name}' has no aligned.jsonl: its images are taken to be aligned already")
        else:
            manifests[dataset.name] = template_and_size(manifest)
    if len(set(manifests.values())) > 1 and not misaligned:
        stated = ", ".join(f"{name} on {template}" for name, template in manifests.items())
        report.warn(f"the faces are aligned differently ({stated}); align all of them alike")


def tell_of_inputs(report: Report, source: Source, *others: FaceDataset) -> None:
    """Report remarks on the data sets, and warn if identities may not be the first level of folders."""
    for folder in (source.folder, *others):
        if folder.remark:
            report.note(folder.remark)
    warn_of_levels(report, source.dataset, source.folder)


def write_unusable(
    run: Run, unreadable: Mapping[str, str], unlabelled: tuple[str, ...], skipped: Iterable[tuple[str, str]]
) -> Path | None:
    """Write the list of unusable images, with those from before an interruption; None if there are none."""
    unused = dict.fromkeys(unlabelled, "not in an identity folder") | dict(skipped)
    known = read_set_aside(run.set_aside) | unused | dict(unreadable)
    return write_set_aside(run.directory / "set-aside.tsv", sorted(known.items()))


def refuse_same(source: Dataset, target: Dataset) -> None:
    """Raise an error if source and target are one data set.

    Raises:
        UsageError: they are one, or one is a folder of the other.
    """
    roots = {"source": source.root.resolve(), "target": target.root.resolve()}
    if roots["source"] == roots["target"]:
        raise UsageError(
            f"source and target are the same data set ({source.root})",
            "give --target the unlabelled faces that the network should be adapted to",
        )
    for inner, outer in (("source", "target"), ("target", "source")):
        if roots[inner].is_dir() and roots[inner].is_relative_to(roots[outer]):
            raise UsageError(
                f"the {inner} {roots[inner]} lies inside the {outer} {roots[outer]}",
                f"keep them beside each other, or name the images of the {outer} in a list",
            )


def refuse_shared(source: FaceDataset, target: FaceDataset) -> int:
    """Raise an error if the target holds images of the source, by a list, links or copies.

    Returns:
        The number of shared images, where they are few.

    Raises:
        UsageError: at least half of the images of one are in the other.
    """
    shared = len(np.intersect1d(contents_that_are_there(source), contents_that_are_there(target)))
    if shared and 2 * shared >= min(len(source), len(target)):
        raise UsageError(
            f"{shared} images of the target {target.root} ({len(target)}) are images of the source {source.root} "
            f"({len(source)}) too: the same files, links or copies",
            "give --target other images: what is labelled in the source is no unlabelled target",
        )
    return shared
