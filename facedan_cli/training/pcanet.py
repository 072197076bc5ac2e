"""Training of PCANet in place of stage 1: filters and whitening from faces without labels (Chan et al. 2015)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facedan_cli.config.common import PCANET_OPTIONS, hashed_options, options
from facedan_cli.config.fields import check_choices
from facedan_cli.config.models import PCANET
from facedan_cli.config.training import PretrainConfig
from facedan_cli.data.batches import read_faces
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.images import UnreadableImage
from facedan_cli.data.same_images import keep_images
from facedan_cli.devices import resolve_device, worker_count
from facedan_cli.distributed import DistEnv
from facedan_cli.embedding.extractor import FRAMED_FROM, framed, framed_by
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import ModelCard, save_tensors
from facedan_cli.models.pcanet import FRAME, PCANet, Spec, fit
from facedan_cli.report import SILENT, Report
from facedan_cli.run_plan import plan_run
from facedan_cli.runs import Run, running
from facedan_cli.training.datasets import TrainingResult, describe, found_finished, warn_of_changes
from facedan_cli.workspace import Workspace, write_set_aside, write_text

MOST_IMAGES = 5000
"""Largest training set; a sample is taken from more images. Whitening costs O(n²), and the authors use no more."""


@dataclass(frozen=True)
class PCANetJob:
    """A checked and planned training of a PCANet.

    Args:
        config: options, of which PCANet reads `PCANET_OPTIONS`.
        source: faces that the filters are learnt from.
        gallery: faces that the whitening is learnt from; None: those of the source.
        run: run of the result.
    """

    config: PretrainConfig
    source: FaceDataset
    gallery: FaceDataset | None
    run: Run


def plan_pcanet(config: PretrainConfig, workspace: Workspace) -> PCANetJob:
    """Plan the training: check its inputs, without writing anything. Unlabelled faces are a source too.

    Raises:
        FacedanError: an input is missing, or an option cannot be.
    """
    check_choices(config)
    if DistEnv.of(os.environ).count > 1:
        raise UsageError("pcanet is learnt by one process", "start it without torchrun")
    datasets = {"source": workspace.dataset(config.source)}
    if config.gallery is not None:
        datasets["gallery"] = workspace.dataset(config.gallery)
    folders = {role: read_dataset(dataset.root).remembered_in(workspace.root) for role, dataset in datasets.items()}
    run = plan_run(
        workspace,
        "pretrain",
        [dataset.name for dataset in datasets.values()],
        config=_pcanet_options(options(config)),
        hashed_options=_pcanet_options(hashed_options(config)),
        inputs={role: describe(datasets[role], folder) for role, folder in folders.items()},
        images=folders,
    )
    return PCANetJob(config, folders["source"], folders.get("gallery"), run)


def learn_pcanet(job: PCANetJob, *, force: bool = False, report: Report = SILENT) -> TrainingResult:
    """Carry out a planned training; a finished run is kept, an interrupted one starts again.

    Raises:
        FacedanError: another job works in the run, or the faces are too few.
    """
    config, run = job.config, job.run
    folders = [folder for folder in (job.source, job.gallery) if folder is not None]
    if found := found_finished(run, folders, force=force, report=report):
        return found
    device = resolve_device(config.device)
    with running(run, force=force, device=str(device)):
        keep_images(run.directory, {"source": job.source})
        unreadable: list[tuple[str, str]] = []
        images = _windows(job.source, config, device, unreadable, report)
        gallery = None if job.gallery is None else _windows(job.gallery, config, device, unreadable, report)
        whitened_on = images if gallery is None else gallery
        for folder in filter(None, (job.source, job.gallery)):
            unreadable.extend(folder.skipped)
            if folder.remark:
                report.note(folder.remark)
        with report.progress("learning", 2 * len(images) + len(whitened_on)) as advance:
            network = _fit(images, gallery, device, lambda count: advance(count, ""))
        facts = {"images": len(images), "whitened_on": len(whitened_on), "dimensions": network.spec.dimensions}
        write_text(run.log, json.dumps(facts) + "\n")
        set_aside = write_set_aside(run.directory / "set-aside.tsv", unreadable)
        warn_of_changes(report, *folders)
        card = ModelCard(PCANET, (), run.stage, run.name, _pcanet_options(hashed_options(config)))
        tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        save_tensors(run.checkpoint, tensors, card)
    return TrainingResult(run, False, facts, set_aside)


def _pcanet_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that PCANet reads."""
    return {key: value for key, value in values.items() if key in PCANET_OPTIONS}


def _windows(
    folder: FaceDataset,
    config: PretrainConfig,
    device: torch.device,
    unreadable: list[tuple[str, str]],
    report: Report,
) -> Tensor:
    """The grey windows of a data set's faces, or of a sample, uint8, shape (n, height, width), on the CPU.

    Raises:
        FacedanError: not one image can be read.
    """
    rows = np.arange(len(folder))
    if len(folder) > MOST_IMAGES:
        rows = np.sort(np.random.default_rng(config.seed).choice(rows, MOST_IMAGES, replace=False))
        report.note(f"{MOST_IMAGES} of the {len(folder)} images of {folder.root} are taken")
    aligned = framed_by(folder, report)
    windows = []
    with (
        ThreadPoolExecutor(worker_count(config.workers)) as pool,
        report.progress(f"reading {folder.root.name}", len(rows)) as advance,
    ):
        for row, face in read_faces(folder, rows.tolist(), FRAMED_FROM, pool):
            if isinstance(face, UnreadableImage):
                unreadable.append((folder.paths[row], str(face)))
            else:
                windows.append(framed(face[None], FRAME, aligned, device).cpu())
            advance(1, "")
    if not windows:
        raise FacedanError(f"no image under {folder.root} can be read", "check what the files are")
    return torch.cat(windows)


def _fit(images: Tensor, gallery: Tensor | None, device: torch.device, advance: Callable[[int], None]) -> PCANet:
    try:
        return fit(images, Spec(), gallery=gallery, device=device, advance=advance)
    except ValueError as error:
        raise FacedanError(f"no PCANet can be learnt: {error}", "give more, and different, faces") from error
