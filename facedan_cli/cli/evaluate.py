"""`facedan evaluate`: the protocols, a command each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.evaluate_show import refuse_two_forms, show
from facedan_cli.cli.options import complete_datasets, console_of, option, workspace_of
from facedan_cli.config.common import EvaluateConfig

app = typer.Typer(
    help="Measure models by a protocol: verification at a false-accept rate, or identification.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_COMMON = ("force", "as_json", "as_csv", "quiet", "verbose")
_OF_MODELS = ("model", "fuse", "save_scores", "layer", "flip", "batch", "workers", "device")
"""Options that mean nothing where scores are given."""

Images = Annotated[str, option("Aligned faces: a path or a data set's name.", complete=complete_datasets)]


@app.command("gbu")
@command(EvaluateConfig, without=("fpir",), common=_COMMON)
def gbu(
    context: typer.Context,
    settings: EvaluateConfig,
    images: Images = "gbu",
    protocol: Annotated[
        Path | None, option("Directory of the sigsets. Default: protocols/gbu in the workspace.", show_default=False)
    ] = None,
) -> None:
    """Verification on the Good, the Bad and the Ugly (Phillips et al. 2012), the paper's Table I.

    Reads GBU_{Good,Bad,Ugly}_{Target,Query}.xml and finds the images by base name. VR is the largest true-accept rate
    with at most floor(FAR × impostors) false accepts. Models that differ from the first are marked.

    Example: facedan evaluate gbu --far 0.001 --model RUN_BEFORE --model RUN_AFTER
    """
    from facedan_cli.evaluation.protocols import evaluate_gbu

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    sigsets = protocol or place.protocol("gbu")
    show(context, console, evaluate_gbu(settings, place, place.dataset(images), sigsets, report=console))


@app.command("feret")
@command(EvaluateConfig, without=("far", "fpir", "convention"), common=_COMMON)
def feret(
    context: typer.Context,
    settings: EvaluateConfig,
    images: Images = "feret",
    protocol: Annotated[
        Path | None, option("Directory of the lists. Default: protocols/feret in the workspace.", show_default=False)
    ] = None,
    any_lists: Annotated[
        bool, option("Accept lists other than the published ones; their rates are not comparable.", "--any-lists")
    ] = False,
) -> None:
    """Rank-1 identification by the FERET protocol: fb, fc, dup1, dup2 and their mean, the paper's Table II.

    Reads fa, fb, fc, dup1 and dup2 as sigsets or .srt, checks them against the published lists, and finds the images of
    the grey release by base name. Colour FERET cannot run this protocol.

    Example: facedan evaluate feret --model RUN
    """
    from facedan_cli.evaluation.protocols import evaluate_feret

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    lists = protocol or place.protocol("feret")
    result = evaluate_feret(settings, place, place.dataset(images), lists, check_lists=not any_lists, report=console)
    show(context, console, result)


@app.command("lfw")
@command(EvaluateConfig, without=("fpir",), common=_COMMON)
def lfw(
    context: typer.Context,
    settings: EvaluateConfig,
    images: Images = "lfw",
    pairs: Annotated[
        Path | None,
        option("List of pairs. Default: protocols/lfw/pairs.txt in the workspace.", show_default=False),
    ] = None,
) -> None:
    """Accuracy by View 2 of LFW (Huang et al. 2007): ten folds, each with the threshold of the other nine.

    Example: facedan evaluate lfw --pairs pairs.txt
    """
    from facedan_cli.evaluation.protocols import evaluate_lfw

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    listed = pairs or place.protocol("lfw") / "pairs.txt"
    show(context, console, evaluate_lfw(settings, place, place.dataset(images), listed, report=console))


@app.command("pairs")
@command(EvaluateConfig, without=("fpir",), common=_COMMON)
def pairs(
    context: typer.Context,
    settings: EvaluateConfig,
    file: Annotated[
        Path,
        typer.Argument(
            help="LFW's pairs.txt, or lines of two paths and a label (1 or 0).", show_default=False, show_envvar=False
        ),
    ],
    images: Images,
) -> None:
    """Verification on a list of pairs.

    Example: facedan evaluate pairs pairs.txt --images lfw --far 0.01 --far 0.001
    """
    from facedan_cli.evaluation.protocols import evaluate_pairs

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    show(context, console, evaluate_pairs(settings, place, place.dataset(images), file, report=console))


@app.command("identify")
@command(EvaluateConfig, without=("far", "convention"), common=_COMMON)
def identify(
    context: typer.Context,
    settings: EvaluateConfig,
    gallery: Annotated[
        str, option("Known subjects: one folder each, or a list of path<TAB>subject.", complete=complete_datasets)
    ],
    probe: Annotated[str, option("Faces to identify: folders of subjects, or a list.", complete=complete_datasets)],
) -> None:
    """Identification: rank-1 rate and CMC; ties count against the mate.

    If some probes have no mate in the gallery, also the detection and identification rate (DIR, TPIR) at a
    false-positive identification rate.

    Example: facedan evaluate identify --gallery gate/enrolled --probe gate/today
    """
    from facedan_cli.evaluation.protocols import evaluate_identify

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    datasets = place.dataset(gallery), place.dataset(probe)
    show(context, console, evaluate_identify(settings, place, *datasets, report=console))


@app.command("verify")
@command(EvaluateConfig, without=("fpir",), common=_COMMON)
def verify(
    context: typer.Context,
    settings: EvaluateConfig,
    query: Annotated[
        str,
        typer.Argument(
            help="Faces, one folder per subject: a path or a data set's name.",
            show_default=False,
            show_envvar=False,
            autocompletion=complete_datasets,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            help="Faces to compare with. Default: those of QUERY, each other.",
            show_default=False,
            show_envvar=False,
            autocompletion=complete_datasets,
        ),
    ] = None,
) -> None:
    """Verification of every face of a data set with every face of another, or with each other.

    More than ten million comparisons are streamed in two passes: the same rates in bounded memory, with Wilson's
    intervals. Under torchrun (--nproc-per-node 8 -m facedan_cli evaluate verify …) the processes share them.

    Example: facedan evaluate verify lfw --far 1e-6
    """
    from facedan_cli.evaluation.all_pairs import evaluate_verify

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    datasets = place.dataset(query), place.dataset(target or query)
    result = evaluate_verify(settings, place, *datasets, report=console)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first speaks
        show(context, console, result)


@app.command("scores")
@command(EvaluateConfig, without=("fpir", *_OF_MODELS), common=("as_json", "as_csv", "quiet", "verbose"))
def scores(
    context: typer.Context,
    settings: EvaluateConfig,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="BEE matrices (.mtx), or text: label and score, or Bob's 4 or 5 columns; one row each.",
            show_default=False,
            show_envvar=False,
        ),
    ],
    mask: Annotated[
        Path | None,
        option("Mask of the matrices. Default: by the sigsets beside them.", show_default=False),
    ] = None,
) -> None:
    """Verification rates from the scores of any other system; a higher score is more alike (BEE distances: lower).

    Intervals over subjects need a file that names the subjects: Bob's columns, or a matrix with its sigsets beside it.
    Else the intervals are Wilson's.

    Example: facedan evaluate scores openbr.mtx --mask mask.mtx --far 0.001 --convention openbr
    """
    from facedan_cli.evaluation.external_scores import evaluate_scores

    refuse_two_forms(context)
    console, place = console_of(context), workspace_of(context)
    show(context, console, evaluate_scores(settings, place, files, mask, report=console))
