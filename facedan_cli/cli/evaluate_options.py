"""The options that the protocols of `facedan evaluate` share."""

from __future__ import annotations

from typing import Annotated

import typer

from facedan_cli.cli.options import complete_datasets, complete_models, configured, option
from facedan_cli.config.common import CONVENTIONS, INTERVALS, PLOT_FORMATS, EvaluateConfig

ModelOption = Annotated[
    list[str] | None,
    option(
        "Run, checkpoint or lbp; repeat it for a row each. Default: the newest finished adaptation, else pretraining.",
        show_default=False,
        complete=complete_models,
    ),
]
FarOption = Annotated[list[str], option("False-accept rate; may be repeated.")]
FpirOption = Annotated[
    list[str], option("False-positive identification rate, where some probes have no mate; may be repeated.")
]
ConventionOption = Annotated[
    str,
    option(
        f"Rule for the threshold at a FAR: {', '.join(CONVENTIONS)}; the first is ours, the others are other tools'.",
        complete=CONVENTIONS,
    ),
]
CiOption = Annotated[
    str, option("95 % intervals: bootstrap over people, wilson (binomial: too narrow) or none.", complete=INTERVALS)
]
ReplicatesOption = Annotated[int, option("Bootstrap replicates; 0: no intervals.", min=0)]
FuseOption = Annotated[bool, option("Add a row that sums the z-normalised scores of the models.", "--fuse")]
SaveScoresOption = Annotated[
    bool, option("Write the scores too: BEE matrices, or Bob's columns of lists of pairs.", "--save-scores")
]
PlotOption = Annotated[str, option("Format of the pictures: png, svg or pdf.", complete=PLOT_FORMATS)]
CsvOption = Annotated[bool, option("Print the figures as CSV.", "--csv", allow_from_autoenv=False)]
ImagesOption = Annotated[str, option("The aligned faces: a path or a data set's name.", complete=complete_datasets)]
LayerOption = Annotated[
    str | None,
    option(
        "fc7 or fc6; of facenet embedding or pool. Default: the first.",
        show_default=False,
        complete=("fc7", "fc6", "embedding", "pool"),
    ),
]
FlipOption = Annotated[bool, option("Add the features of the mirrored face.", "--flip")]
BatchOption = Annotated[int, option("Images at a time.", min=1)]

FARS, FPIRS = list(EvaluateConfig.far), list(EvaluateConfig.fpir)


def evaluate_config(context: typer.Context) -> EvaluateConfig:
    """The configuration that the command's options give."""
    given = context.params
    return configured(
        EvaluateConfig,
        context,
        model=tuple(given.get("model") or ()),
        far=tuple(given.get("far") or EvaluateConfig.far),
        fpir=tuple(given.get("fpir") or EvaluateConfig.fpir),
    )
