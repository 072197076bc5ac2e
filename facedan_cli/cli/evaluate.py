"""`facedan evaluate`: verification and identification by the field's protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.evaluate_options import (
    FARS,
    BatchOption,
    CiOption,
    ConventionOption,
    CsvOption,
    FarOption,
    FlipOption,
    FuseOption,
    ImagesOption,
    LayerOption,
    ModelOption,
    PlotOption,
    ReplicatesOption,
    SaveScoresOption,
    evaluate_config,
)
from facedan_cli.cli.evaluate_sets import identify, scores, verify
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
    console_of,
    option,
    workspace_of,
)
from facedan_cli.config.common import EvaluateConfig

app = typer.Typer(
    help="Measure models: verification at a false-accept rate, identification, by the field's protocols.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("gbu")
def gbu(
    context: typer.Context,
    model: ModelOption = None,
    far: FarOption = FARS,
    images: ImagesOption = "gbu",
    protocol: Annotated[
        Path | None, option("Directory of the sigsets. Default: protocols/gbu in the workspace.", show_default=False)
    ] = None,
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
    """Verification on the Good, the Bad and the Ugly (Phillips et al. 2012), the paper's Table I.

    Reads GBU_{Good,Bad,Ugly}_{Target,Query}.xml and finds the images by base name. VR is the largest true-accept rate
    whose false accepts stay within floor(FAR × impostors). Of several models those that differ from the first are
    marked.

    Example: facedan evaluate gbu --far 0.001 --model RUN_BEFORE --model RUN_AFTER
    """
    from facedan_cli.stages.evaluate import evaluate_gbu

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    sigsets = protocol or place.protocol("gbu")
    result = evaluate_gbu(evaluate_config(context), place, place.dataset(images), sigsets, report=console)
    show(context, console, result)


@app.command("feret")
def feret(
    context: typer.Context,
    model: ModelOption = None,
    images: ImagesOption = "feret",
    protocol: Annotated[
        Path | None, option("Directory of the lists. Default: protocols/feret in the workspace.", show_default=False)
    ] = None,
    any_lists: Annotated[
        bool, option("Take lists that are not the published ones; their figures compare with nothing.", "--any-lists")
    ] = False,
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
    """Rank-1 identification by the FERET protocol: fb, fc, dup1, dup2 and their plain mean, the paper's Table II.

    Reads fa, fb, fc, dup1 and dup2 as sigsets or .srt, checks them against the published lists, and finds the images of
    the grey release by base name. Colour FERET cannot run this protocol.

    Example: facedan evaluate feret --model RUN
    """
    from facedan_cli.stages.evaluate import evaluate_feret

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    lists = protocol or place.protocol("feret")
    result = evaluate_feret(
        evaluate_config(context), place, place.dataset(images), lists, check_lists=not any_lists, report=console
    )
    show(context, console, result)


@app.command("lfw")
def lfw(
    context: typer.Context,
    model: ModelOption = None,
    far: FarOption = FARS,
    images: ImagesOption = "lfw",
    pairs: Annotated[
        Path | None,
        option("The list of pairs. Default: protocols/lfw/pairs.txt in the workspace.", show_default=False),
    ] = None,
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
    """Accuracy by View 2 of LFW (Huang et al. 2007): ten folds, the threshold for each chosen on the other nine.

    Example: facedan evaluate lfw --pairs pairs.txt
    """
    from facedan_cli.stages.evaluate import evaluate_lfw

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    listed = pairs or place.protocol("lfw") / "pairs.txt"
    show(context, console, evaluate_lfw(evaluate_config(context), place, place.dataset(images), listed, report=console))


@app.command("pairs")
def pairs(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="LFW's pairs.txt, or lines of two paths and a label (1 or 0).", show_default=False, show_envvar=False
        ),
    ],
    images: ImagesOption,
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
    """Verification on a list of pairs.

    Example: facedan evaluate pairs pairs.txt --images lfw --far 0.01 --far 0.001
    """
    from facedan_cli.stages.evaluate import evaluate_pairs

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    show(context, console, evaluate_pairs(evaluate_config(context), place, place.dataset(images), file, report=console))


app.command("identify")(identify)
app.command("verify")(verify)
app.command("scores")(scores)
