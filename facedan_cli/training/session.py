"""The training session of both stages, which locks a run, joins the processes and trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facedan_cli.config.common import options
from facedan_cli.config.training import TrainingConfig
from facedan_cli.data.alignments import side_to_read
from facedan_cli.data.batches import FaceStore
from facedan_cli.data.cache import Cache
from facedan_cli.data.dataset import FaceDataset
from facedan_cli.devices import keep_freed_memory, resolve_device, worker_count
from facedan_cli.distributed import DistEnv, shard_range
from facedan_cli.errors import Interrupted
from facedan_cli.figures.learning_curves import draw_curves
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import SILENT, Report
from facedan_cli.runs import Run, running
from facedan_cli.training.log import check_tensorboard
from facedan_cli.training.loop import DomainBatches, Validation, train
from facedan_cli.training.plan import Plan
from facedan_cli.training.state import Checkpoints


@dataclass(frozen=True)
class Session:
    """The resources of a running training.

    Args:
        config: resolved.
        run: its directory.
        ranks: which process this is.
        device: device of the network.
        pool: threads that decode images.
        caches: directory of decoded faces.
        report: silent in all processes but the first.
    """

    config: TrainingConfig
    run: Run
    ranks: DistEnv
    device: torch.device
    pool: ThreadPoolExecutor
    caches: Path
    report: Report

    def images(self, folder: FaceDataset, image_size: int, template: str) -> FaceStore:
        """The faces of a data set for a network of this image size and template, with the cache of --cache."""
        size = side_to_read(folder, template, image_size)
        return FaceStore(folder, size, self.pool, self.report, Cache(self.config.cache, self.caches))

    def rows(self, batch: int) -> range:
        """The rows of each batch that this process takes."""
        return shard_range(batch, self.ranks.rank, self.ranks.count)

    def head(self, classes: int) -> dict[str, Any]:
        """The settings of the classifier, with the local classes of this process."""
        local = shard_range(classes, self.ranks.rank, self.ranks.count) if self.config.shard_classifier else None
        config = self.config
        return {"head": config.head, "margin": config.margin, "scale": config.scale, "local_classes": local}

    def train(
        self, network: FaceNetwork, domains: DomainBatches, card: ModelCard, validation: Validation, seed: int
    ) -> dict[str, Any]:
        """Train, and draw the learning curves, also after an interruption.

        Args:
            network: trained in place.
            domains: training batches.
            card: of the network files.
            validation: measured on held-out images.
            seed: of dropout, and of the classes that a step samples.

        Returns:
            The last line of the log.
        """
        run, config = self.run, self.config
        board = run.directory / "tensorboard" if config.tensorboard else None
        try:
            with Checkpoints(run.checkpoint.parent, card, config.keep_every) as checkpoints:
                return train(
                    network,
                    domains,
                    replace(training_plan(config), seed=seed),
                    checkpoints=checkpoints,
                    log=run.log,
                    tensorboard=board,
                    validation=validation,
                    report=self.report,
                )
        finally:
            self._draw()

    def unusable(self, *images: FaceStore) -> dict[str, str]:
        """The images that a process could not read, with the reasons; empty in all processes but the first."""
        found = [(path, reason) for faces in images for path, reason in faces.unreadable.items()]
        return dict(self.ranks.gather(found))

    def _draw(self) -> None:
        if not (self.ranks.first and self.run.last_metrics.get("step")):
            return
        try:
            draw_curves(self.run.log, self.run.directory / "learning-curves.png")
        except Exception as error:  # a failed figure must not cost a training
            self.report.warn(f"the learning curves could not be drawn: {error}")


@contextmanager
def training_session(
    config: TrainingConfig, run: Run, caches: Path, *, force: bool, report: Report
) -> Iterator[Session]:
    """Lock a run and open the resources of its training; the first process locks it for all.

    Raises:
        FacedanError: another job works in it, or another process of this one has ended.
    """
    if config.tensorboard:
        check_tensorboard()
    keep_freed_memory()
    ranks = DistEnv.of(os.environ)
    device = ranks.device(resolve_device(config.device))
    workers = config.workers or max(1, worker_count(0) // ranks.local_count)
    with ExitStack() as held:
        held.enter_context(ranks.joined(device))
        if ranks.first:
            held.enter_context(running(run, force=force, device=str(device)))
        ranks.gather([])
        pool = held.enter_context(ThreadPoolExecutor(workers))
        try:
            yield Session(config, run, ranks, device, pool, caches, report if ranks.first else SILENT)
        except Interrupted:
            ranks.gather([])  # the first one still writes the state: torchrun ends it once another has ended
            raise
        ranks.gather([])


def training_plan(config: TrainingConfig) -> Plan:
    """The fields of a resolved configuration that the loop reads."""
    values = options(config)
    return Plan(**{name: values[name] for name in Plan.__dataclass_fields__})
