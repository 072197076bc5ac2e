"""`facedan align`: from a tree of images to the same tree of aligned faces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from facedan_cli.alignment.aligner import EXCHANGED, Aligner
from facedan_cli.alignment.contact_sheet import write_contact_sheet
from facedan_cli.alignment.copied_fit import check_copied
from facedan_cli.alignment.copy import Copier
from facedan_cli.alignment.detector import Detector
from facedan_cli.alignment.index import ManifestIndex
from facedan_cli.alignment.landmarks import read_landmarks
from facedan_cli.alignment.output import Output
from facedan_cli.alignment.plan import CHUNK, Job, Plan
from facedan_cli.alignment.ranks import manifest_of, merge_parts
from facedan_cli.alignment.settings import SET_ASIDE, check_config, check_settings, start_over
from facedan_cli.alignment.target import Target, resolved
from facedan_cli.alignment.workers import Work, in_order, workers
from facedan_cli.config.common import REFERENCE_OFFSET, AlignConfig
from facedan_cli.data.manifest import ALIGNED, FAILED, GIVEN, ManifestWriter, OddLine, remove_lines
from facedan_cli.devices import resolve_device, worker_count
from facedan_cli.distributed import DistEnv
from facedan_cli.report import SILENT, Report
from facedan_cli.workspace import MANIFEST_FILE, locked, write_set_aside

FILE_BYTES_AT_ONCE = 1_000_000
"""A batch ends when its files have this many bytes: larger batches of large images are not faster."""


@dataclass(frozen=True)
class AlignResult:
    """Counts of an alignment; those of rank 0 cover all processes.

    Args:
        out: the aligned tree.
        manifest: its aligned.jsonl.
        aligned: faces aligned by this run.
        already: faces that earlier runs had aligned.
        failed: images set aside, by this run and by earlier ones.
        set_aside: their list with the reasons; None where there are none.
    """

    out: Path
    manifest: Path
    aligned: int
    already: int
    failed: int
    set_aside: Path | None


@dataclass(frozen=True)
class _Share:
    """Counts of one process.

    Args:
        aligned: faces aligned now.
        already: faces aligned by earlier runs.
        failures: path and reason of each image without a face.
        without_landmarks: images that the landmarks do not list.
        exchanged: images whose landmarks had left and right exchanged.
        unchecked: images that may have changed since an earlier version aligned them.
        odd: damaged lines of the manifest before this run; the same in all processes.
    """

    aligned: int
    already: int
    failures: list[tuple[str, str]]
    without_landmarks: int
    exchanged: int
    unchecked: int
    odd: list[OddLine]


def align(config: AlignConfig, report: Report = SILENT) -> AlignResult:
    """Align the face in every image of `config.raw` to the template and write it to the same path in `config.out`.

    The manifest has a line for each image. A second run aligns only what is missing or changed, also after an
    interruption; an image that fails is set aside and does not affect the others. Processes of torchrun share the work.

    Raises:
        UsageError: an option has an impossible value.
        FacedanError: there are no images, the aligned tree is in use or has other settings, the landmarks cannot
            be read, or another process of the job has failed.
        OSError: the aligned tree cannot be written. What is in it is whole, and the same command goes on from there.
    """
    config = resolved(config)
    check_config(config)
    ranks = DistEnv.of(os.environ)
    device = torch.device("cpu") if config.no_align else ranks.device(resolve_device(config.device))
    target = Target.of(config)
    work = _work(config, target, device)
    manifest = config.out / MANIFEST_FILE
    if isinstance(work, Aligner) and work.landmarks is not None and work.landmarks.eyes_alone and target.points == 5:
        report.note(f"{config.landmarks} has the eyes alone: its faces are fitted by two points, not by five")
    with ranks.joined(), _prepared(config, ranks):
        # All processes wait here until the first has prepared the tree; then each aligns its share of the images.
        ranks.gather([])
        share = _align_share(config, ranks, work, report, processes=device.type == "cpu")
        shares = ranks.gather([share])
        # Notes and warnings on the images of all processes.
        failures = sorted(failure for share in shares for failure in share.failures)
        without_landmarks = sum(share.without_landmarks for share in shares)
        if config.landmarks and without_landmarks:
            report.note(f"{without_landmarks} of the images are not in {config.landmarks}: they were searched")
        if exchanged := sum(share.exchanged for share in shares):
            report.warn(
                f"in {exchanged} lines of {config.landmarks} left and right are exchanged: these eyes were swapped, or "
                "their faces would be upside down; righteyex is the subject's right eye, on the left of the image"
            )
        if unchecked := sum(share.unchecked for share in shares):
            report.warn(
                f"{unchecked} images were copied or moved since an earlier version aligned them: size and time of "
                "writing are the same, their contents could not be checked; --force aligns them again"
            )
        # Last, when all have written: one manifest without damaged lines, the list of failures, the contact sheet.
        set_aside = None
        odd = [line for share in shares[:1] for line in share.odd]  # all processes found the same
        failures += [(f"{MANIFEST_FILE}, line {line.number}", _without(line)) for line in odd]
        if ranks.first:
            merge_parts(config.out)
            remove_lines(manifest, odd)
            set_aside = write_set_aside(config.out / SET_ASIDE, failures)
            if config.no_align and target.template != GIVEN:
                fit = check_copied(config.out, target, again=any(share.aligned for share in shares))
                if fit is not None and fit.problem is not None:
                    report.warn(
                        f"the faces of {config.out} do not seem to be on {target.template}: {fit.problem}, median of "
                        f"{fit.faces} faces that were searched; align the images without --no-align"
                    )
            if config.contact_sheet:
                write_contact_sheet(config.contact_sheet, manifest)
    aligned, already = sum(share.aligned for share in shares), sum(share.already for share in shares)
    return AlignResult(config.out, manifest, aligned, already, len(failures), set_aside)


def _without(line: OddLine) -> str:
    return f"damaged: {line.reason}; it was removed, and its image is treated as new"


def _work(config: AlignConfig, target: Target, device: torch.device) -> Work:
    """The function that the workers apply to a batch: an aligner, or a copier with `--no-align`."""
    if config.no_align:
        return Copier(Output(config, target))
    root = config.raw if config.raw.is_dir() else config.root
    landmarks = read_landmarks(config.landmarks, root) if config.landmarks else None
    reference = config.landmark_offset == REFERENCE_OFFSET
    detector = Detector(device, config.min_face, config.second_pass, reference=reference)
    return Aligner(Output(config, target), landmarks, detector)


@contextmanager
def _prepared(config: AlignConfig, ranks: DistEnv) -> Iterator[None]:
    """Lock the aligned tree for this job; the first process prepares it."""
    if not ranks.first:
        yield
        return
    with locked(config.out, f"the aligned tree {config.out}"):
        merge_parts(config.out)
        if config.force:
            start_over(config.out)
        check_settings(config)
        yield


def _align_share(config: AlignConfig, ranks: DistEnv, work: Work, report: Report, *, processes: bool) -> _Share:
    """Align the images of this process that are not done yet; the manifest gets each batch when it is done."""
    # Earlier results, and the images that remain.
    index = ManifestIndex(config.out / MANIFEST_FILE)
    plan = Plan(config, index, ranks)
    if ranks.first and plan.remark:
        report.note(plan.remark)
    # No more workers than images: each worker takes a batch from file to file.
    most = config.workers or worker_count(0) // ranks.local_count
    left = plan.total - plan.already - len(plan.failures)
    count = max(1, min(most, left))
    if left and isinstance(work, Aligner):
        work.prepare()
    counts = {ALIGNED: 0, FAILED: 0}
    failures = list(plan.failures)
    without_landmarks = exchanged = 0
    with (
        ManifestWriter(manifest_of(ranks, config.out)) as writer,
        # Before the progress, which has a thread of its own.
        workers(work, count, processes=processes) as begin,
        report.progress("aligning", plan.total, done=plan.already + len(failures)) as advance,
    ):
        # Images that were only moved or touched get a line with their new times, and are not read again next time.
        same = plan.found_same()
        while known := list(islice(same, CHUNK)):
            writer.append(known)
        # The rest; records come in the order of the images, whichever worker is ready first.
        for records in in_order(begin, _batches(plan.jobs(), config.detector_batch), 2 * count):
            writer.append(records)
            for record in records:
                counts[record.status] += 1
                without_landmarks += record.faces is not None
                exchanged += record.source == EXCHANGED
                if record.status == FAILED:
                    failures.append((record.path, record.reason))
                    report.detail(f"{record.path}: {record.reason}")
            advance(len(records), "")
    return _Share(counts[ALIGNED], plan.already, failures, without_landmarks, exchanged, plan.unchecked, index.odd)


def _batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Yield batches of `size` jobs, or of fewer where files are large, which bounds the memory."""
    batch: list[Job] = []
    for job in jobs:
        batch.append(job)
        if len(batch) == size or sum(job.image.size for job in batch) >= FILE_BYTES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
