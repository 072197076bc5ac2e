"""What both training stages do alike: to hold a run, alone or among processes, and to train in it."""

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
    """A training at work.

    Args:
        config: resolved.
        run: where it writes.
        ranks: which of several processes this one is.
        device: where it computes.
        pool: its threads decode images.
        caches: directory of decoded faces.
        report: told of what goes on; silent in all processes but the first.
    """

    config: TrainingConfig
    run: Run
    ranks: DistEnv
    device: torch.device
    pool: ThreadPoolExecutor
    caches: Path
    report: Report

    def images(self, folder: FaceDataset, size: int) -> FaceStore:
        """The faces of a data set, kept as --cache says."""
        return FaceStore(folder, size, self.pool, self.report, Cache(self.config.cache, self.caches))

    def rows(self, batch: int) -> range:
        """The rows of each batch that this process takes."""
        return shard_range(batch, self.ranks.rank, self.ranks.count)

    def head(self, classes: int) -> dict[str, Any]:
        """The classifier's settings, with the local classes of this process."""
        local = shard_range(classes, self.ranks.rank, self.ranks.count) if self.config.shard_classifier else None
        config = self.config
        return {"head": config.head, "margin": config.margin, "scale": config.scale, "local_classes": local}

    def train(
        self, network: FaceNetwork, domains: DomainBatches, card: ModelCard, examination: Validation, seed: int
    ) -> dict[str, Any]:
        """Train, and draw how it went, also of a training that is interrupted.

        Args:
            network: trained in place.
            domains: what it is trained on.
            card: what the networks' files say of them.
            examination: what is measured on images held aside.
            seed: of dropout, and of the classes that a step takes.

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
                    examination=examination,
                    report=self.report,
                )
        finally:
            self._draw()

    def unusable(self, *images: FaceStore) -> dict[str, str]:
        """Images that could not be read, by any process, with the reason; for the first, others learn nothing."""
        found = [(path, reason) for faces in images for path, reason in faces.unreadable.items()]
        return dict(self.ranks.gather(found))

    def _draw(self) -> None:
        if not (self.ranks.first and self.run.last_metrics.get("step")):
            return
        try:
            draw_curves(self.run.log, self.run.directory / "learning-curves.png")
        except Exception as error:  # a picture that cannot be drawn costs no training
            self.report.warn(f"the learning curves could not be drawn: {error}")


@contextmanager
def training_session(
    config: TrainingConfig, run: Run, caches: Path, *, force: bool, report: Report
) -> Iterator[Session]:
    """Hold a run and what its training needs; of several processes the first holds it for all.

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
            ranks.gather([])  # the first one still writes the state; torchrun ends it soon after another has ended
            raise
        ranks.gather([])


def training_plan(config: TrainingConfig) -> Plan:
    """The part of a resolved configuration that the loop reads."""
    values = options(config)
    return Plan(**{name: values[name] for name in Plan.__dataclass_fields__})
