"""`facedan adapt`: stage 2, the adaptation itself."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
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
from facedan_cli.config.common import BANDWIDTHS, BETAS, DISCREPANCIES, ESTIMATORS, OPTIMIZERS, SCHEDULES, check_choice
from facedan_cli.config.training import ADAPT_RECIPES, PRESETS, AdaptConfig

_RECIPES = ADAPT_RECIPES

_PLACES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""Where an option's value can come from, as the command line's library calls it; --config and facedan.toml are one."""


def configured_adapt(context: typer.Context) -> AdaptConfig:
    """The configuration of a command line of `adapt`; what a preset sets goes before what weaker places say of it.

    A typed preset goes before the environment and the files, but not before what is typed itself; one in a file only
    before the defaults.

    Raises:
        UsageError: there is no such preset.
    """
    config, preset = configured(AdaptConfig, context), context.params["preset"]
    if preset is None:
        return config
    check_choice("--preset", preset, tuple(PRESETS))

    def strength(name: str) -> int:
        source = context.get_parameter_source(name)
        return _PLACES.index(source.name) if source is not None else 0

    own = strength("preset")
    return replace(config, **{name: value for name, value in PRESETS[preset].items() if strength(name) < own})


def adapt(
    context: typer.Context,
    source: Annotated[
        str, option("Labelled faces, one folder a person: a path or a data set's name.", complete=complete_datasets)
    ],
    target: Annotated[
        str,
        option(
            "Unlabelled faces: any tree of images, whose folder names are not read, or a sigset such as a training set "
            "of GBU (protocols/gbu/GBU_Training_Uncontrolledx8.xml: its images in the data set gbu).",
            complete=complete_datasets,
        ),
    ],
    init: Annotated[
        str | None,
        option(
            "Run or checkpoint to start from. Default: the newest finished pretraining on the source.",
            show_default=False,
            complete=complete_runs,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        option(
            "Set all of the penalty but what is typed: paper (eq. 2 to the letter, 5 kernels, λ = 0.5) or strong (the"
            " defaults with λ = 10, for domains that differ much).",
            show_default=False,
            complete=tuple(PRESETS),
        ),
    ] = None,
    layers: Annotated[
        str | None,
        option(
            "Layers whose features are brought together; fc6:0.5,fc7 weighs them. Default: fc6,fc7; of facenet "
            "pool,embedding.",
            show_default=False,
            complete=("fc6,fc7", "fc7", "fc6", "pool,embedding"),
        ),
    ] = AdaptConfig.layers,
    kernels: Annotated[
        int, option("Gaussian kernels, of bandwidths γ, 2γ, 4γ …: the paper uses 1 and 5.")
    ] = AdaptConfig.kernels,
    lambda_: Annotated[
        float, option("λ, the weight of the penalty; 0 is the control.", "--lambda", envvar="FACEDAN_ADAPT_LAMBDA")
    ] = AdaptConfig.lambda_,
    lambda_ramp: Annotated[
        int, option("Steps over which λ rises from 0; 0: it is constant.", min=0)
    ] = AdaptConfig.lambda_ramp,
    discrepancy: Annotated[
        str,
        option(
            "mk-mmd (the paper's); for comparison jmmd (of the layers jointly), coral or energy.",
            complete=DISCREPANCIES,
        ),
    ] = AdaptConfig.discrepancy,
    estimator: Annotated[
        str, option("unbiased, biased as the paper's eq. 2 stands, or linear (noisy).", complete=ESTIMATORS)
    ] = AdaptConfig.estimator,
    bandwidth: Annotated[
        str,
        option(
            "γ: frozen (median before training starts), ema (which then follows the batches' medians), batch (each"
            " batch's own) or a number.",
            complete=BANDWIDTHS,
        ),
    ] = AdaptConfig.bandwidth,
    multipliers: Annotated[
        str | None, option("Bandwidths as multiples of γ, as in 0.25,1,4, instead of --kernels.", show_default=False)
    ] = AdaptConfig.multipliers,
    betas: Annotated[
        str, option("Kernel weights: equal, or optimal (Gretton et al. 2012, from running means).", complete=BETAS)
    ] = AdaptConfig.betas,
    queue: Annotated[
        int, option("Compare each batch with so many past rows of each domain as well.", min=0)
    ] = AdaptConfig.queue,
    select: Annotated[
        bool,
        option(
            "Adapt with each λ of --strengths, and choose the network, λ and step, without any label of the target.",
            "--select",
        ),
    ] = AdaptConfig.select,
    strengths: Annotated[str, option("The λ that --select tries.")] = AdaptConfig.strengths,
    hold_aside: HoldAsideOption = AdaptConfig.hold_aside,
    hold_people: HoldPeopleOption = AdaptConfig.hold_people,
    iterations: Annotated[int | None, recipe_option("Training steps.", _RECIPES, "iterations")] = None,
    batch: Annotated[
        int | None, recipe_option("Source images a step, and as many target images.", _RECIPES, "batch")
    ] = None,
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
    seed: SeedOption = AdaptConfig.seed,
    head: Annotated[str | None, head_option("that of --init's")] = AdaptConfig.head,
    margin: MarginOption = AdaptConfig.margin,
    scale: ScaleOption = AdaptConfig.scale,
    sample_rate: SampleRateOption = AdaptConfig.sample_rate,
    shard_classifier: ShardOption = AdaptConfig.shard_classifier,
    precision: PrecisionOption = AdaptConfig.precision,
    compile: CompileOption = AdaptConfig.compile,
    grad_accum: GradAccumOption = AdaptConfig.grad_accum,
    cache: CacheOption = AdaptConfig.cache,
    checkpoint_every: CheckpointEveryOption = AdaptConfig.checkpoint_every,
    keep_every: KeepEveryOption = AdaptConfig.keep_every,
    log_every: LogEveryOption = AdaptConfig.log_every,
    tensorboard: TensorboardOption = AdaptConfig.tensorboard,
    workers: WorkersOption = AdaptConfig.workers,
    device: DeviceOption = AdaptConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Stage 2: adapt the network to the target without its labels; prints the path of its checkpoint.

    Source classification plus λ times MK-MMD² between the source's and the target's features of each layer (eq. 4).
    Before and after, a permutation test of images held aside says whether the domains differ beyond chance.

    Example: facedan adapt --source casia --target frgc --kernels 5 --layers fc6,fc7
    """
    from facedan_cli.stages.adapt import adapt as run_adapt
    from facedan_cli.stages.adapt import plan_adapt
    from facedan_cli.stages.selection import plan_selection
    from facedan_cli.stages.selection import select as run_selection
    from facedan_cli.training.distributed import Ranks

    console, first = console_of(context), Ranks.of(os.environ).first
    console.quiet |= not first
    config_given, place = configured_adapt(context), workspace_of(context)
    if config_given.select:
        selection = plan_selection(config_given, place)
        runs = [*(job.run for job in selection.jobs.values()), selection.run]
        train = partial(run_selection, selection)
    else:
        job = plan_adapt(config_given, place)
        runs, train = [job.run], partial(run_adapt, job)
    if dry_run:
        for run in runs:
            print_plan(console, run)
        return
    result = train(force=force, report=console)
    if first:
        finish(console, result)
