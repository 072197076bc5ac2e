"""`facedan models`: the networks that can be trained and adapted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from facedan_cli.cli.command import command
from facedan_cli.cli.console import table
from facedan_cli.cli.options import console_of
from facedan_cli.config.common import ModelsConfig
from facedan_cli.config.networks import is_own, network_settings

if TYPE_CHECKING:
    from facedan_cli.models.catalogue import NetworkFacts

_COLUMNS = ("network", "layers", "input", "template", "parameters", "licence of known weights")
_WORDS = (0, 1, 3, 5)


@command(ModelsConfig, common=("as_json", "quiet"))
def models(context: typer.Context, settings: ModelsConfig) -> None:
    """List the networks; of one network, list its layers too.

    Beside these, --model takes timm:NAME, torchvision:NAME and package.module:function, a function of yours without
    arguments that returns an nn.Module. Installed packages bring networks by entry points (group facedan.networks).

    Naming a function here, or in another command, allows facedan to run its code for checkpoints that name it.

    Example: facedan models iresnet50
    """
    from facedan_cli.models.catalogue import facts_of, known_networks, layer_lengths
    from facedan_cli.own_networks import allow

    console, described = console_of(context), network_settings(settings)
    if settings.name is None:
        found = known_networks()
        if console.as_json:
            console.json([asdict(facts) for facts in found])
        else:
            console.result(table(_COLUMNS, [_row(facts) for facts in found], left=_WORDS))
            console.note("also timm:NAME, torchvision:NAME, package.module:function; facedan models NAME lists layers")
        return
    if is_own(settings.name):
        allow(settings.name)
    facts, shapes = facts_of(settings.name, described), layer_lengths(settings.name, described)
    if console.as_json:
        console.json(asdict(facts) | {"modules": {path: list(shape) for path, shape in shapes.items()}})
        return
    console.result(table(_COLUMNS, [_row(facts)], left=_WORDS))
    console.result("")
    console.result(table(("layer", "features"), [(path, "x".join(map(str, shape))) for path, shape in shapes.items()]))


def _row(facts: NetworkFacts) -> tuple[str, ...]:
    also = f" ({', '.join(facts.also)})" if facts.also else ""
    sides = "x".join(map(str, facts.input))
    cut = "" if facts.image_size == max(facts.input) else f" of {facts.image_size}"
    return (
        facts.name,
        ", ".join(facts.layers) + also,
        sides + cut,
        facts.template,
        f"{facts.parameters / 1e6:.1f} M",
        facts.licence or "-",
    )
