"""`facedan pretrain`: stage 1."""

from __future__ import annotations

import os

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.options import console_of, of_others, refuse_typed, workspace_of
from facedan_cli.cli.outcome import finish, print_plan
from facedan_cli.config.common import PCANET_OPTIONS
from facedan_cli.config.models import PCANET
from facedan_cli.config.training import PretrainConfig


@command(PretrainConfig)
def pretrain(context: typer.Context, settings: PretrainConfig) -> None:
    """Stage 1: train a classifier of the source's identities; prints the path of its checkpoint.

    The paper starts from VGG-Face's published weights (--init) and trains on CASIA-WebFace. It names no optimiser,
    momentum or weight decay: those of `vggface` are VGG's own.

    Example: facedan pretrain --source casia --init vgg_face_dag.pth
    """
    from facedan_cli.distributed import DistEnv
    from facedan_cli.training.pretrain import plan_pretrain
    from facedan_cli.training.pretrain import pretrain as train

    console, first = console_of(context), DistEnv.of(os.environ).first
    console.quiet |= not first
    if settings.model == PCANET:
        refuse_typed(context, of_others(PretrainConfig, PCANET_OPTIONS), "--model pcanet")
    job = plan_pretrain(settings, workspace_of(context))
    if context.params["dry_run"]:
        print_plan(console, job.run)
        return
    result = train(job, force=context.params["force"], report=console)
    if first:
        finish(console, result)
