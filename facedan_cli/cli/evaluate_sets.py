"""The protocols of `facedan evaluate` that need no list: whole data sets, and scores that others made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.evaluate_options import (
    FARS,
    FPIRS,
    BatchOption,
    CiOption,
    ConventionOption,
    CsvOption,
    FarOption,
    FlipOption,
    FpirOption,
    FuseOption,
    LayerOption,
    ModelOption,
    PlotOption,
    ReplicatesOption,
    SaveScoresOption,
    evaluate_config,
)
from facedan_cli.cli.evaluate_show import refuse_two_forms, show
from facedan_cli.cli.options import (
    ConfigOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WorkersOption,
    WorkspaceOption,
    complete_datasets,
    console_of,
    option,
    workspace_of,
)
from facedan_cli.config.common import EvaluateConfig


def identify(
    context: typer.Context,
    gallery: Annotated[
        str,
        option("Known people, one folder each, or a list of path<TAB>person.", complete=complete_datasets),
    ],
    probe: Annotated[str, option("Faces to be recognised, in folders or a list likewise.", complete=complete_datasets)],
    model: ModelOption = None,
    fpir: FpirOption = FPIRS,
    ci: CiOption = EvaluateConfig.ci,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    fuse: FuseOption = EvaluateConfig.fuse,
    save_scores: SaveScoresOption = EvaluateConfig.save_scores,
    plot: PlotOption = EvaluateConfig.plot,
    layer: LayerOption = EvaluateConfig.layer,
    flip: FlipOption = EvaluateConfig.flip,
    batch: BatchOption = EvaluateConfig.batch,
    workers: WorkersOption = EvaluateConfig.workers,
    device: DeviceOption = EvaluateConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EvaluateConfig.force,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Identification: rank-1 rate and CMC; ties count against the mate.

    Where some probes have no mate in the gallery: also the rate of detection and identification (DIR, TPIR) at a
    false-positive identification rate.

    Example: facedan evaluate identify --gallery gate/enrolled --probe gate/today
    """
    from facedan_cli.stages.evaluate import evaluate_identify

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    datasets = place.dataset(gallery), place.dataset(probe)
    show(context, console, evaluate_identify(evaluate_config(context), place, *datasets, report=console))


def verify(
    context: typer.Context,
    query: Annotated[
        str,
        typer.Argument(
            help="Faces in folders of people: a path or a data set's name.",
            show_default=False,
            show_envvar=False,
            autocompletion=complete_datasets,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            help="Faces to compare them with. Default: each other.",
            show_default=False,
            show_envvar=False,
            autocompletion=complete_datasets,
        ),
    ] = None,
    model: ModelOption = None,
    far: FarOption = FARS,
    convention: ConventionOption = EvaluateConfig.convention,
    ci: CiOption = EvaluateConfig.ci,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    fuse: FuseOption = EvaluateConfig.fuse,
    save_scores: SaveScoresOption = EvaluateConfig.save_scores,
    plot: PlotOption = EvaluateConfig.plot,
    layer: LayerOption = EvaluateConfig.layer,
    flip: FlipOption = EvaluateConfig.flip,
    batch: BatchOption = EvaluateConfig.batch,
    workers: WorkersOption = EvaluateConfig.workers,
    device: DeviceOption = EvaluateConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EvaluateConfig.force,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Verification of every face of a data set with every face of another, or with each other.

    More than ten million comparisons are streamed in two passes: the same rates in memory that does not grow, with
    Wilson's intervals. Under torchrun (--nproc-per-node 8 -m facedan_cli evaluate verify …) processes share them.

    Example: facedan evaluate verify lfw --far 1e-6
    """
    from facedan_cli.stages.verify import evaluate_verify

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    datasets = place.dataset(query), place.dataset(target or query)
    result = evaluate_verify(evaluate_config(context), place, *datasets, report=console)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first speaks
        show(context, console, result)


def scores(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="BEE matrices (.mtx); or text: label and score, or Bob's 4 or 5 columns; a row each.",
            show_default=False,
            show_envvar=False,
        ),
    ],
    far: FarOption = FARS,
    mask: Annotated[
        Path | None,
        option("The mask of the matrices. Default: what the sigsets beside them say.", show_default=False),
    ] = None,
    convention: ConventionOption = EvaluateConfig.convention,
    ci: CiOption = EvaluateConfig.ci,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    plot: PlotOption = EvaluateConfig.plot,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Verification figures of the scores of any other system; a higher score means more alike (BEE distances: lower).

    Intervals over people need a file that tells whose the comparisons are: Bob's columns, or a matrix with its sigsets
    beside it. Else they are Wilson's.

    Example: facedan evaluate scores openbr.mtx --mask mask.mtx --far 0.001 --convention openbr
    """
    from facedan_cli.stages.evaluate_scores import evaluate_scores

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    show(context, console, evaluate_scores(evaluate_config(context), place, files, mask, report=console))
