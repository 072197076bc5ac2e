"""`facedan evaluate`: verification and identification by the field's protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facedan_cli.cli.console import Console, table
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
    complete_runs,
    configured,
    console_of,
    option,
    workspace_of,
)
from facedan_cli.cli.outcome import set_aside_exit
from facedan_cli.config import EvaluateConfig

if TYPE_CHECKING:
    from facedan_cli.stages.measures import EvaluateResult

app = typer.Typer(
    help="Measure models: verification rate at a false-accept rate, or rank-1 identification.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ModelOption = Annotated[
    list[str] | None,
    option(
        "Run or checkpoint; repeat it for a row each. Default: the newest finished adaptation, else pretraining.",
        show_default=False,
        complete=complete_runs,
    ),
]
FarOption = Annotated[list[str], option("False-accept rate; may be repeated.")]
LayerOption = Annotated[str, option("fc7 or fc6.", complete=("fc7", "fc6"))]
FlipOption = Annotated[bool, option("Add the features of the mirrored face.", "--flip")]
ReplicatesOption = Annotated[
    int, option("Bootstrap replicates over people for the 95 % intervals; 0: no intervals.", min=0)
]
BatchOption = Annotated[int, option("Images at a time.", min=1)]

_FARS = list(EvaluateConfig.far)


@app.command("gbu")
def gbu(
    context: typer.Context,
    model: ModelOption = None,
    far: FarOption = _FARS,
    images: Annotated[
        str, option("The aligned faces: a path or a data set's name.", complete=complete_datasets)
    ] = "gbu",
    protocol: Annotated[
        Path | None, option("Directory of the sigsets. Default: protocols/gbu in the workspace.", show_default=False)
    ] = None,
    layer: LayerOption = EvaluateConfig.layer,
    flip: FlipOption = EvaluateConfig.flip,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    batch: BatchOption = EvaluateConfig.batch,
    workers: WorkersOption = EvaluateConfig.workers,
    device: DeviceOption = EvaluateConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EvaluateConfig.force,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Verification on the Good, the Bad and the Ugly (Phillips et al. 2012), the paper's Table I.

    Reads GBU_{Good,Bad,Ugly}_{Target,Query}.xml and finds the images by base name. VR is the largest true-accept rate
    whose false accepts stay within floor(FAR × impostors).

    Example: facedan evaluate gbu --far 0.001 --model RUN_BEFORE --model RUN_AFTER
    """
    from facedan_cli.stages.evaluate import evaluate_gbu

    console, place = console_of(context), workspace_of(context)
    sigsets = protocol or place.protocol("gbu")
    show(console, evaluate_gbu(_config(context), place, place.dataset(images), sigsets, report=console))


@app.command("pairs")
def pairs(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="LFW's pairs.txt, or lines of two paths and a label (1 or 0).", show_default=False, show_envvar=False
        ),
    ],
    images: Annotated[str, option("The aligned faces: a path or a data set's name.", complete=complete_datasets)],
    model: ModelOption = None,
    far: FarOption = _FARS,
    layer: LayerOption = EvaluateConfig.layer,
    flip: FlipOption = EvaluateConfig.flip,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    batch: BatchOption = EvaluateConfig.batch,
    workers: WorkersOption = EvaluateConfig.workers,
    device: DeviceOption = EvaluateConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EvaluateConfig.force,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Verification on a list of pairs.

    Example: facedan evaluate pairs pairs.txt --images lfw --far 0.01 --far 0.001
    """
    from facedan_cli.stages.evaluate import evaluate_pairs

    console, place = console_of(context), workspace_of(context)
    show(console, evaluate_pairs(_config(context), place, place.dataset(images), file, report=console))


@app.command("identify")
def identify(
    context: typer.Context,
    gallery: Annotated[
        str, option("Known people, one folder each: a path or a data set's name.", complete=complete_datasets)
    ],
    probe: Annotated[str, option("Faces to be recognised, in folders likewise.", complete=complete_datasets)],
    model: ModelOption = None,
    layer: LayerOption = EvaluateConfig.layer,
    flip: FlipOption = EvaluateConfig.flip,
    replicates: ReplicatesOption = EvaluateConfig.replicates,
    seed: SeedOption = EvaluateConfig.seed,
    batch: BatchOption = EvaluateConfig.batch,
    workers: WorkersOption = EvaluateConfig.workers,
    device: DeviceOption = EvaluateConfig.device,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = EvaluateConfig.force,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Closed-set identification: rank-1 rate and CMC; ties count against the mate.

    Example: facedan evaluate identify --gallery gate/enrolled --probe gate/today
    """
    from facedan_cli.stages.evaluate import evaluate_identify

    console, place = console_of(context), workspace_of(context)
    datasets = place.dataset(gallery), place.dataset(probe)
    show(console, evaluate_identify(_config(context), place, *datasets, report=console))


def show(console: Console, result: EvaluateResult) -> None:
    """Print an evaluation as a table or as JSON; exit code 3 where images were set aside."""
    if console.as_json:
        console.json(result.summary())
    else:
        console.result(as_table(result))
    console.note(f"results: {result.directory}, plot: {result.plot}")
    set_aside_exit(console, result.set_aside)


def as_table(result: EvaluateResult) -> str:
    """One row a model, as in the paper's tables: per cent, with 95 % intervals where they were asked for."""
    if result.protocol == "identify":
        rows = []
        for model in result.models:
            figures = [partition.summary() for partition in model.partitions.values()]
            rows.append([model.name, *(_cell(entry["rank1"], entry["interval"]) for entry in figures)])
        return table(["model", "rank 1"], rows)
    measured = {
        model.name: {name: part.summary() for name, part in model.partitions.items()} for model in result.models
    }
    first = next(iter(measured.values()))
    header = ["model"]
    rows = [[name] for name in measured]
    unresolved = False
    for far in next(iter(first.values()))["vr"]:
        for partition in first:
            header.append(f"{partition} @ FAR {far}" if partition != "all" else f"VR @ FAR {far}")
            for row, partitions in zip(rows, measured.values(), strict=True):
                entry = partitions[partition]
                starred = entry["budget"][far] == 0
                unresolved |= starred
                row.append(_cell(entry["vr"][far], entry["interval"].get(far)) + ("*" if starred else ""))
    text = table(header, rows)
    if unresolved:
        text += "\n* too few impostors for this FAR: not one false accept is allowed"
    return text


def _cell(rate: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{100 * rate:.2f}"
    return f"{100 * rate:.2f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _config(context: typer.Context) -> EvaluateConfig:
    given = context.params
    return configured(
        EvaluateConfig, context, model=tuple(given["model"] or ()), far=tuple(given.get("far") or EvaluateConfig.far)
    )
