"""`facedan pretrain`: stage 1."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.options import (
    ConfigOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    HoldAsideOption,
    JsonOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WorkersOption,
    WorkspaceOption,
    complete_datasets,
    complete_runs,
    configured,
    console_of,
    option,
    recipe_option,
    workspace_of,
)
from facedan_cli.cli.outcome import finish, print_plan
from facedan_cli.cli.training_options import (
    CacheOption,
    CheckpointEveryOption,
    CompileOption,
    GradAccumOption,
    HoldPeopleOption,
    KeepEveryOption,
    LogEveryOption,
    MarginOption,
    PrecisionOption,
    SampleRateOption,
    ScaleOption,
    ShardOption,
    TensorboardOption,
    head_option,
)
from facedan_cli.config.common import CHANNELS, MODEL_NAMES, OPTIMIZERS, PCANET_OPTIONS, SCHEDULES
from facedan_cli.config.training import PRETRAIN_RECIPES, PretrainConfig
from facedan_cli.errors import UsageError

_RECIPES = PRETRAIN_RECIPES


def pretrain(
    context: typer.Context,
    source: Annotated[
        str, option("Labelled faces, one folder a person: a path or a data set's name.", complete=complete_datasets)
    ],
    model: Annotated[
        str,
        option("Network: vggface, vggface-mini or facenet; or pcanet, which needs no labels.", complete=MODEL_NAMES),
    ] = PretrainConfig.model,
    init: Annotated[
        str | None,
        option(
            "Weights or checkpoint to start from: any public form of VGG-Face; for facenet vggface2 or casia-webface.",
            show_default=False,
            complete=complete_runs,
        ),
    ] = None,
    channels: Annotated[
        str,
        option(
            "Order of the input channels that --init was trained with, where its form does not tell.", complete=CHANNELS
        ),
    ] = PretrainConfig.channels,
    gallery: Annotated[
        str | None,
        option(
            "Faces from which pcanet learns its whitening. Default: the source's.",
            show_default=False,
            complete=complete_datasets,
        ),
    ] = None,
    hold_aside: HoldAsideOption = PretrainConfig.hold_aside,
    hold_people: HoldPeopleOption = PretrainConfig.hold_people,
    iterations: Annotated[int | None, recipe_option("Training steps.", _RECIPES, "iterations")] = None,
    batch: Annotated[int | None, recipe_option("Images a step.", _RECIPES, "batch")] = None,
    lr: Annotated[float | None, recipe_option("Base learning rate.", _RECIPES, "lr")] = None,
    conv_lr: Annotated[
        float | None,
        recipe_option("Convolutions' rate, a multiple of --lr; 0 keeps them as they are.", _RECIPES, "conv_lr"),
    ] = None,
    classifier_lr: Annotated[
        float | None, recipe_option("Last layer's rate, a multiple of --lr.", _RECIPES, "classifier_lr")
    ] = None,
    optimizer: Annotated[str | None, recipe_option("sgd or adamw.", _RECIPES, "optimizer", complete=OPTIMIZERS)] = None,
    schedule: Annotated[
        str | None, recipe_option("constant or onecycle.", _RECIPES, "schedule", complete=SCHEDULES)
    ] = None,
    momentum: Annotated[float | None, recipe_option("Momentum of sgd.", _RECIPES, "momentum")] = None,
    weight_decay: Annotated[float | None, recipe_option("Weight decay.", _RECIPES, "weight_decay")] = None,
    label_smoothing: Annotated[
        float | None, recipe_option("Share of the label spread over all people.", _RECIPES, "label_smoothing")
    ] = None,
    seed: SeedOption = PretrainConfig.seed,
    head: Annotated[str | None, head_option("softmax")] = PretrainConfig.head,
    margin: MarginOption = PretrainConfig.margin,
    scale: ScaleOption = PretrainConfig.scale,
    sample_rate: SampleRateOption = PretrainConfig.sample_rate,
    shard_classifier: ShardOption = PretrainConfig.shard_classifier,
    precision: PrecisionOption = PretrainConfig.precision,
    compile: CompileOption = PretrainConfig.compile,
    grad_accum: GradAccumOption = PretrainConfig.grad_accum,
    cache: CacheOption = PretrainConfig.cache,
    checkpoint_every: CheckpointEveryOption = PretrainConfig.checkpoint_every,
    keep_every: KeepEveryOption = PretrainConfig.keep_every,
    log_every: LogEveryOption = PretrainConfig.log_every,
    tensorboard: TensorboardOption = PretrainConfig.tensorboard,
    workers: WorkersOption = PretrainConfig.workers,
    device: DeviceOption = PretrainConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Stage 1: train a classifier of the source's people; prints the path of its checkpoint.

    The paper starts from VGG-Face's published weights (--init) and trains on CASIA-WebFace. It names no optimiser,
    momentum or weight decay: those of `vggface` are VGG's own.

    Example: facedan pretrain --source casia --init vgg_face_dag.pth
    """
    from facedan_cli.stages.pretrain import plan_pretrain
    from facedan_cli.stages.pretrain import pretrain as train
    from facedan_cli.training.distributed import Ranks

    console, first = console_of(context), Ranks.of(os.environ).first
    console.quiet |= not first
    if model == "pcanet":
        _refuse_meaningless(context)
    job = plan_pretrain(configured(PretrainConfig, context), workspace_of(context))
    if dry_run:
        print_plan(console, job.run)
        return
    result = train(job, force=force, report=console)
    if first:
        finish(console, result)


def _refuse_meaningless(context: typer.Context) -> None:
    """Refuse the options of networks where they are typed; those in a file or the environment are for other runs."""
    of_networks = {field.name for field in fields(PretrainConfig)} - {*PCANET_OPTIONS}
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in of_networks and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} means nothing for --model pcanet", f"leave {parameter.opts[0]} out")
