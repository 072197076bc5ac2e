"""`facedan export`: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facedan_cli.cli.options import (
    ConfigOption,
    DryRunOption,
    ForceOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    WorkspaceOption,
    complete_runs,
    configured,
    console_of,
    option,
    workspace_of,
)
from facedan_cli.config.common import EXPORT_SUFFIXES, MODEL_LAYERS, ExportConfig

_FORMATS = tuple(dict.fromkeys(EXPORT_SUFFIXES.values()))
_LAYERS = tuple(dict.fromkeys(layer for layers in MODEL_LAYERS.values() for layer in layers))


def export(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Run or checkpoint.", show_default=False, show_envvar=False, autocompletion=complete_runs),
    ],
    out: Annotated[Path, typer.Argument(help="File to write.", show_default=False, show_envvar=False)],
    format: Annotated[
        str | None,
        option(
            f"{', '.join(_FORMATS)}. Default: what the file's suffix says ({', '.join(EXPORT_SUFFIXES)}).",
            show_default=False,
            complete=_FORMATS,
        ),
    ] = ExportConfig.format,
    layer: Annotated[
        str | None,
        option("Layer whose features are given. Default: the model's last.", show_default=False, complete=_LAYERS),
    ] = ExportConfig.layer,
    flip: Annotated[bool, option("Add the features of the mirrored face.", "--flip")] = ExportConfig.flip,
    workspace: WorkspaceOption = Path("."),
    config: ConfigOption = None,
    force: ForceOption = ExportConfig.force,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """A network with its preprocessing inside, for other programs; prints the file, which was read back and compared.

    Input `images`: aligned RGB faces, float 0-255, (batch, 3, S, S). Output `features`: L2-normalised, as embed's.

    The file's metadata say S, crop, normalisation, model, layer and run. safetensors holds the weights alone.

    Example: facedan export adapt-casia-frgc-1a2b3c4d model.onnx
    """
    from facedan_cli.runs import find_checkpoint
    from facedan_cli.stages.export import choose_format
    from facedan_cli.stages.export import export as run

    console = console_of(context)
    settings = configured(ExportConfig, context)
    checkpoint = find_checkpoint(workspace_of(context), model)
    console.note(f"exporting {checkpoint}")
    if dry_run:
        console.result(f"{checkpoint} as {choose_format(settings)} to {out}")
        return
    result = run(settings, checkpoint, report=console)
    if console.as_json:
        facts = {"path": str(result.path), "format": result.format, "largest_difference": result.difference}
        console.json(facts | {"metadata": dict(result.metadata)})
    else:
        console.result(str(result.path))
