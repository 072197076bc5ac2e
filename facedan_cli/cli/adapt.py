"""`facedan adapt`: stage 2, the adaptation itself."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.options import console_of, of_others, option, refuse_typed, workspace_of
from facedan_cli.cli.outcome import finish, print_plan
from facedan_cli.config.common import UNTRAINED_OPTIONS, EvaluateConfig
from facedan_cli.config.fields import check_choice
from facedan_cli.config.methods import METHODS, idle_options, methods_of, stages_of, trains
from facedan_cli.config.training import PRESETS, AdaptConfig

_PLACES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""The sources of an option's value, by rising precedence; --config and facedan.toml count as one."""


def preset_adapt(config: AdaptConfig, preset: str | None, context: typer.Context) -> AdaptConfig:
    """The configuration of `adapt` with the values of a preset.

    A preset on the command line overrides the environment and the files, but no option beside it; one in a file
    overrides the defaults alone.

    Raises:
        UsageError: there is no such preset.
    """
    if preset is None:
        return config
    check_choice("--preset", preset, tuple(PRESETS))

    def precedence(name: str) -> int:
        source = context.get_parameter_source(name)
        return _PLACES.index(source.name) if source is not None else 0

    own = precedence("preset")
    return replace(config, **{name: value for name, value in PRESETS[preset].items() if precedence(name) < own})


def _idle(method: str) -> set[str]:
    """The parameters that mean nothing for a method."""
    idle = {*idle_options(method)} | (set() if "mmd" in methods_of(method) else {"preset"})
    if not trains(stages_of(method)[0]):
        own = [name for one in methods_of(method) for name in METHODS[one].options]
        idle |= of_others(AdaptConfig, (*UNTRAINED_OPTIONS, *own))
    return idle


@command(AdaptConfig)
def adapt(
    context: typer.Context,
    settings: AdaptConfig,
    preset: Annotated[
        str | None,
        option(
            "Preset of the penalty's options: paper (biased estimator, λ = 0.5) or strong (λ = 10).",
            show_default=False,
            complete=tuple(PRESETS),
        ),
    ] = None,
    check: Annotated[
        Path | None,
        option(
            "Labelled pairs of target images, as `evaluate pairs` takes them: after the adaptation the verification "
            "rates before and after, with the interval of their difference. They choose nothing.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Stage 2: adapt the network to the target without its labels; prints the path of its checkpoint.

    Minimises source classification plus λ times the sum over layers of MK-MMD² between source and target.
    Before and after, a permutation test on held-out images says whether the domains differ beyond chance.

    Example: facedan adapt --source casia --target frgc --kernels 5 --layers fc6,fc7
    """
    from facedan_cli.distributed import DistEnv
    from facedan_cli.evaluation.check import check_adaptation, refuse_pairs
    from facedan_cli.training.adapt import adapt as run_adapt
    from facedan_cli.training.adapt import plan_adapt
    from facedan_cli.training.selection import plan_selection
    from facedan_cli.training.selection import select as run_selection

    console, first = console_of(context), DistEnv.of(os.environ).first
    console.quiet |= not first
    settings, place = preset_adapt(settings, preset, context), workspace_of(context)
    refuse_typed(context, _idle(settings.method), f"--method {settings.method}")
    if check is not None:
        refuse_pairs(check)
    if settings.select:
        selection = plan_selection(settings, place, console)
        job = selection.keep
        runs = [*(job.run for job in selection.jobs.values()), selection.run]
        train = partial(run_selection, selection)
    else:
        job = plan_adapt(settings, place, console)
        runs, train = [job.run], partial(run_adapt, job)
    if context.params["dry_run"]:
        for run in runs:
            print_plan(console, run)
        for stage in stages_of(settings.method)[1:]:
            console.note(f"then --method {stage}, a run of its own")
        return
    result = train(force=context.params["force"], report=console)
    if not first:
        return
    checked = None
    if check is not None:
        how = EvaluateConfig(flip=settings.whiten_flip, workers=settings.workers, device=settings.device)
        images = job.target.dataset
        checked = check_adaptation(job.init, result.run.checkpoint, images, check, place, how, console)
        console.note(str(checked))
    finish(console, result, checked)
