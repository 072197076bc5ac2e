"""`facedan export`: a trained network for other programs."""

from __future__ import annotations

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.options import console_of, workspace_of
from facedan_cli.config.common import ExportConfig
from facedan_cli.config.networks import network_settings
from facedan_cli.errors import UsageError


@command(ExportConfig)
def export(context: typer.Context, settings: ExportConfig) -> None:
    """Export a network with its preprocessing for other programs; prints the file, read back and compared.

    Input `images`: aligned RGB faces, float 0-255, (batch, 3, S, S). Output `features`: L2-normalised, as of `embed`.

    The file's metadata name S, crop, normalisation, model, layer and run. safetensors and original hold the weights
    alone; hub makes a folder with a model card.

    Example: facedan export adapt-casia-frgc-1a2b3c4d model.onnx
    """
    from facedan_cli.embedding.model import check_settings, find_model
    from facedan_cli.export.export import choose_format
    from facedan_cli.export.export import export as run
    from facedan_cli.onnx_graph import is_onnx

    console = console_of(context)
    chosen = choose_format(settings)
    place = workspace_of(context)
    described = network_settings(settings)
    model = find_model(place, settings.model, described, channels=settings.channels, report=console)
    check_settings([model], described)
    if model.classical or is_onnx(model.file):
        raise UsageError(f"{model} is no network whose weights could be written", "name a network")
    console.note(f"exporting {model}")
    if context.params["dry_run"]:
        console.result(f"{model} as {chosen} to {settings.out}")
        return
    result = run(settings, model.file, results=place.root / "results", report=console)
    if console.as_json:
        facts = {"path": str(result.path), "format": result.format, "largest_difference": result.difference}
        console.json(facts | {"metadata": dict(result.metadata)})
    else:
        console.path(result.path)
