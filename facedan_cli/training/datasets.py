"""What pretrain and adapt have in common: the labelled source, the seeds, and the result they give."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.levels import check_levels, warn_of_levels
from facedan_cli.data.manifest import template_and_size
from facedan_cli.data.same_images import contents_that_are_there
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.report import Report
from facedan_cli.runs import Run, tidy
from facedan_cli.workspace import Dataset, Workspace, find_manifest, read_set_aside, write_set_aside

SOURCE_SEED, TARGET_SEED, BANDWIDTH_SEED = 1, 2, 3
"""Second parts of the seeds of independent streams; the first is the training's seed (`going_on`)."""

METHOD = 2
"""Of trainings that go on from a network of facedan; raised where the same configuration gives another network.

It is a part of what names their runs: a finished run of an earlier method stays as it is, under its own name, and an
interrupted one is not gone on with by another method.
"""

LEAST_SAMPLE = 10
"""Of fewer images nothing can be said."""

IMAGES_TO_KEEP = 3
"""A person of the source keeps at least so many images when one is held aside."""


@dataclass(frozen=True)
class Source:
    """A labelled data set: the images that lie in identity folders.

    Args:
        dataset: where it lies.
        folder: images to train on.
        identities: their people, in the order of the classes.
        nameless: images in no folder of a person.
        aside: images of people whom no training sees.
    """

    dataset: Dataset
    folder: FaceDataset
    identities: tuple[str, ...]
    unlabelled: tuple[str, ...]
    aside: FaceDataset

    def labels_of(self, folder: FaceDataset) -> np.ndarray:
        """Class of each image of (a part of) the data set, int64, shape (images,)."""
        order = {name: index for index, name in enumerate(self.identities)}
        return np.array([order[name] for name in folder.names], np.int64)


@dataclass(frozen=True)
class TrainingResult:
    """What a training stage made.

    Args:
        run: the run; its checkpoint is what a pipeline wants.
        skipped: the run was finished before.
        metrics: the last line of its log.
        set_aside: the list of images that could not be used, if there are any.
    """

    run: Run
    skipped: bool
    metrics: Mapping[str, Any]
    set_aside: Path | None


def read_source(dataset: Dataset, holdout_identities: int = 0, workspace: Path | None = None) -> Source:
    """The labelled images of a data set.

    Args:
        dataset: where it lies.
        hold_people: how many people to hold aside, a tenth at most. Who they are depends on the names alone, and fewer
            are a part of more.
        workspace: where what the images hold is remembered; None: nowhere.

    Raises:
        FacedanError: no image lies in a folder that names a person, all are of one person, or people's folders lie a
            level deeper.
    """
    folder = read_dataset(dataset.root)
    if workspace is not None:
        folder = folder.remembered_in(workspace)
    check_levels(dataset, folder)
    named = [row for row, name in enumerate(folder.names) if name]
    identities = tuple(sorted({folder.names[row] for row in named}))
    layout = f"a source has one folder a person: {dataset.root}/PERSON/image.jpg"
    if not identities:
        raise FacedanError(f"the source '{dataset.name}' has no identity folders", layout)
    if len(identities) == 1:
        raise FacedanError(
            f"the source '{dataset.name}' has one identity only ('{identities[0]}'): there is nothing to tell apart",
            layout,
        )
    unlabelled = tuple(path for path, name in zip(folder.paths, folder.names, strict=True) if not name)
    aside = set(sorted(identities, key=_falling)[: min(holdout_identities, len(identities) // 10)])
    return Source(
        dataset,
        part_of(folder, [row for row in named if folder.names[row] not in aside]),
        tuple(name for name in identities if name not in aside),
        unlabelled,
        part_of(folder, [row for row in named if folder.names[row] in aside]),
    )


def going_on(stage: str, seed: int, init: str) -> int:
    """The seed of a training that goes on from a network which was trained with a seed, perhaps the same one.

    Else it would replay, crop by crop and mask by mask, what that training saw.

    Args:
        stage: "pretrain" or "adapt".
        seed: that of the run.
        init: SHA-256 of the file of the network, in hexadecimal digits.

    Returns:
        32 bits that have nothing to do with that seed.
    """
    return int.from_bytes(hashlib.sha256(f"{stage} {seed} {init}".encode()).digest()[:4])


def part_of(folder: FaceDataset, rows: Sequence[int]) -> FaceDataset:
    """Some of a data set's images."""
    paths, names = (tuple(column[row] for row in rows) for column in (folder.paths, folder.names))
    return replace(folder, paths=paths, names=names)


def hold_out(folder: FaceDataset, most: int, *, labelled: bool) -> tuple[FaceDataset, FaceDataset]:
    """Divide a data set into the images to train on and a sample that no training sees.

    The sample is at most a tenth of the images, and none where that would be fewer than ten. It depends on their names
    alone: both stages hold the same ones aside. Of a labelled data set it has one image a person, of people who keep at
    least three: images of one person are no independent sample. A smaller sample is a part of a larger one.

    Args:
        folder: the data set.
        most: images in the sample at most; 0: none.
        labelled: whether `folder.names` are people.

    Returns:
        What to train on, and the sample.
    """
    falling = sorted(range(len(folder)), key=lambda row: _falling(folder.paths[row]))
    count = min(most, len(folder) // 10)
    if labelled:
        images_of = Counter(folder.names)
        first: dict[str, int] = {}
        for row in falling:
            if images_of[folder.names[row]] > IMAGES_TO_KEEP:
                first.setdefault(folder.names[row], row)
        falling = list(first.values())
    held = set(falling[:count]) if min(count, len(falling)) >= LEAST_SAMPLE else set()
    rows = range(len(folder))
    return part_of(folder, [row for row in rows if row not in held]), part_of(folder, sorted(held))


def _falling(name: str) -> bytes:
    """An order that has nothing to do with what the names mean, and is the same everywhere."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def describe(dataset: Dataset, folder: FaceDataset) -> dict[str, Any]:
    """What run.json says of a data set that was read."""
    return {
        "name": dataset.name,
        "root": str(dataset.root.resolve()),
        "images": len(folder),
        "contents": folder.fingerprint,
    }


def found_finished(run: Run, folders: Iterable[FaceDataset], *, force: bool, report: Report) -> TrainingResult | None:
    """The result of a run that is finished already; None where it has to be made.

    Args:
        run: as it is planned.
        folders: the data sets that it reads; what their files hold is remembered from now on.
        force: whether it is to be made again.
        report: told of what is to be known of the run as it lies there.
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
    """Whether a run's record is of these source images, whatever their data set was called then."""

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
    """Say which data sets were written to while a run read them: nobody knows which images it has seen."""
    for folder in folders:
        if not folder.is_as_it_was():
            report.warn(f"images of {folder.root} changed during the run: it may have learnt from either; repeat it")


def warn_of_alignment(report: Report, *datasets: Dataset) -> None:
    """Say where faces may not stand on one template: the paper's gains rest on one alignment for all (Section IV-C)."""
    manifests = {}
    for dataset in datasets:
        manifest = find_manifest(dataset.root)
        if manifest is None:
            report.note(f"'{dataset.name}' has no aligned.jsonl: its images are taken to be aligned already")
        else:
            manifests[dataset.name] = template_and_size(manifest)
    if len(set(manifests.values())) > 1:
        stated = ", ".join(f"{name} on {template}" for name, template in manifests.items())
        report.warn(f"the faces are aligned differently ({stated}); align all of them alike")


def tell_of_inputs(report: Report, source: Source, *others: FaceDataset) -> None:
    """Say what else lies in the data sets of a training, and where the source's people may not be its first folders."""
    for folder in (source.folder, *others):
        if folder.remark:
            report.note(folder.remark)
    warn_of_levels(report, source.dataset, source.folder)


def write_unusable(
    run: Run, unreadable: Mapping[str, str], unlabelled: tuple[str, ...] = (), skipped: Iterable[tuple[str, str]] = ()
) -> Path | None:
    """List what was set aside in the run's directory, also before an interruption; None where nothing was."""
    lost = dict.fromkeys(unlabelled, "not in an identity folder") | dict(skipped)
    known = read_set_aside(run.set_aside) | lost | dict(unreadable)
    return write_set_aside(run.directory / "set-aside.tsv", sorted(known.items()))


def refuse_same(source: Dataset, target: Dataset) -> None:
    """Source and target must be two data sets.

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
    """The source may not be the target by another name: a list over its tree, links, a copy.

    Returns:
        How many images are in both, where they are few.

    Raises:
        UsageError: half of the images of one of them or more are in the other as well.
    """
    shared = len(np.intersect1d(contents_that_are_there(source), contents_that_are_there(target)))
    if shared and 2 * shared >= min(len(source), len(target)):
        raise UsageError(
            f"{shared} images of the target {target.root} ({len(target)}) are images of the source {source.root} "
            f"({len(source)}) too: the same files, links or copies",
            "give --target other images: what is labelled in the source is no unlabelled target",
        )
    return shared
