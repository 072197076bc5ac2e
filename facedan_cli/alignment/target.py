"""The target of an alignment: template, size and number of fitted points, also by a network's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facedan_cli.config.common import AlignConfig
from facedan_cli.config.fields import spelling
from facedan_cli.config.models import CLASSICAL, NETWORKS, NetworkEntry
from facedan_cli.config.networks import is_network, network_entry, network_settings, release_of
from facedan_cli.config.templates import TEMPLATES
from facedan_cli.data.manifest import GIVEN
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.runs import find_checkpoint
from facedan_cli.workspace import Workspace

DEFAULT_TEMPLATE = "vggface"

_GIVEN_SIZE = 250
"""Side of copied faces without a stated template or size, pixels."""


@dataclass(frozen=True)
class Target:
    """The target of aligned faces.

    Args:
        template: a name of `config.templates.TEMPLATES`; "given" for copied faces without a stated one.
        size: side of the aligned face, pixels.
        points: number of points that the similarity fits if all five are known, 3 or 5.
    """

    template: str
    size: int
    points: int

    @classmethod
    def of(cls, config: AlignConfig) -> Target:
        """The target of a configuration, with the template's defaults for options that are None."""
        if config.no_align and config.template is None:
            return cls(GIVEN, _GIVEN_SIZE if config.size is None else config.size, 3)
        name = config.template or DEFAULT_TEMPLATE
        entry = TEMPLATES[name]
        size = entry.size if config.size is None else config.size
        return cls(name, size, entry.fitted if config.points is None else config.points)


def resolved(config: AlignConfig, workspace: Workspace | None = None) -> AlignConfig:
    """The configuration with the options that --for stands for instead of it.

    Args:
        config: configuration of an alignment.
        workspace: workspace of the runs; by default the current directory.

    Raises:
        UsageError: other options contradict the network, or it takes faces on any template.
        FacedanError: there is no such network, or it does not say what it expects.
    """
    if config.for_ is None:
        if config.input is not None:
            raise UsageError("--input means nothing without --for", "give --size")
        return config
    wanted = expected_by(config.for_, workspace or Workspace.open(Path()), network_settings(config))
    values: dict[str, Any] = {"template": wanted.template, "size": wanted.size, "points": wanted.points}
    for name, value in values.items():
        given = getattr(config, name)
        if given is not None and given != value:
            raise UsageError(
                f"{spelling(name)} {given} contradicts --for {config.for_}, which takes {value}",
                f"leave {spelling(name)} out, or give --template, --size and --points without --for",
            )
    return replace(config, for_=None, input=None, **values)


def expected_by(name: str, workspace: Workspace, settings: Mapping[str, str] | None = None) -> Target:
    """The target that a network expects, by its row or by the faces that its checkpoint learnt from.

    Args:
        name: a network's, as `config.networks.network_entry` takes it, or of published weights or a run in the
            workspace; or the path of a run, a checkpoint or published weights.
        workspace: workspace of the runs.
        settings: settings of a network without a row (`config.networks.SETTINGS`).

    Raises:
        UsageError: it is LBP or PCANet, which take faces on any template.
        FacedanError: there is no such network, or it learnt from faces that others had aligned.
    """
    if name in CLASSICAL and not Path(name).exists():
        raise UsageError(
            f"{CLASSICAL[name]} takes faces on any template", "leave --for out, or name a template by --template"
        )
    if model := _network_named(name, workspace):
        entry = network_entry(model, settings)
        return _target(entry.template, entry)
    from facedan_cli.models.checkpoint import (  # torch is slow to import, and names need none
        card_of_graph,
        is_checkpoint,
        read_card,
    )
    from facedan_cli.models.pretrained.formats import network_of
    from facedan_cli.models.pretrained.hub import download, is_hub_name
    from facedan_cli.onnx_graph import is_onnx, read_graph

    if is_hub_name(name):
        name = str(download(name))
    if is_onnx(Path(name)):
        card = card_of_graph(read_graph(Path(name)))
        return _target(card.template or card.entry.template, card.entry)
    if Path(name).is_file() and not is_checkpoint(Path(name)):
        entry = network_entry(network_of(Path(name)))
        return _target(entry.template, entry)
    card = read_card(find_checkpoint(workspace, name))
    if card.template == GIVEN:
        raise FacedanError(
            f"{name} learnt from faces that others had aligned, and their template is unknown",
            "align by the same means, and take the faces in by --no-align",
        )
    if card.model in CLASSICAL:
        if not card.template:
            raise FacedanError(f"{name} does not say which template it learnt from", "name one by --template")
        return _target(card.template, None)
    return _target(card.template or card.entry.template, card.entry)


def _network_named(name: str, workspace: Workspace) -> str | None:
    """The network that a name or the name of a published release means; None of anything that lies on disk."""
    if name in NETWORKS:
        return name
    if Path(name).exists() or (workspace.root / "runs" / name).exists():
        return None
    return release_of(name) or (name if is_network(name) else None)


def _target(template: str, network: NetworkEntry | None) -> Target:
    """A template in the size that a network reads."""
    known = TEMPLATES.get(template)
    if known is None:
        raise FacedanError(f"this version has no template '{template}'", "update facedan, or name one by --template")
    # Only faces that scale about the image's edge may have any size; others keep the one that they are known by.
    fits = network is not None and (known.scaling == "edge" or template == network.template)
    return Target(template, network.image_size if network is not None and fits else known.size, known.fitted)
