"""Networks by their names: those of the table, of libraries and other packages, and users' functions.

It imports no torch, for the command line's sake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

from facedan_cli.config.models import EMBEDDING, IMAGENET, NETWORKS, ONNX, STRONG, STRONG_ADAPT, NetworkEntry
from facedan_cli.config.preprocessing import parse_normalisation, parse_size
from facedan_cli.errors import FacedanError, UsageError, did_you_mean

ENTRY_POINTS = "facedan.networks"
"""The group of entry points by which other packages bring networks."""

SETTINGS = ("input", "mean", "std", "channels", "layers")
"""The options that describe a network which no row describes, by their names."""

ONNX_NETWORK = "onnx-network"
"""A network that was an ONNX graph, which its settings keep as `graph`."""

_LIBRARIES = {
    "timm": "facedan_cli.models.libraries:timm_backbone",
    "torchvision": "facedan_cli.models.libraries:torchvision_backbone",
}
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_own(name: str) -> bool:
    """Whether a network's name is somebody's function, as in package.module:function."""
    return _OWN.fullmatch(name) is not None and name.partition(":")[0] not in _LIBRARIES


def is_library(name: str) -> bool:
    """Whether a network's name is that of a library, whose networks begin with random weights."""
    return name.partition(":")[0] in _LIBRARIES


def is_network(name: str) -> bool:
    """Whether a name may be a network's: of a row, a library, an installed package, or a function's."""
    return name in (*NETWORKS, ONNX_NETWORK) or is_own(name) or is_library(name) or name in brought_networks()


def release_of(name: str) -> str | None:
    """The network of a published release; None where no release has this name."""
    return next((model for model, entry in NETWORKS.items() if name in entry.releases), None)


def network_entry(name: str, settings: Mapping[str, str] | None = None) -> NetworkEntry:
    """The row of a network: of the table, or made for one that the table does not name.

    Args:
        name: of a row; timm:NAME or torchvision:NAME; an entry point of another package; or package.module:function,
            a function without arguments that returns an `nn.Module`.
        settings: values of `SETTINGS` for a network without a row, as the options have them.

    Raises:
        UsageError: there is no such network, or its row leaves no settings open.
        FacedanError: another package's network cannot be loaded.
    """
    settings = {key: value for key, value in (settings or {}).items() if value is not None}
    library, _, argument = name.partition(":")
    if name in NETWORKS:
        return _without_settings(NETWORKS[name], name, settings)
    if library in _LIBRARIES and re.fullmatch(r"\w+([.-]\w+)*", argument):
        # timm says itself what its networks expect; none of these libraries' names leads to a download.
        return _described(_LIBRARIES[library], (argument,), argument, {**IMAGENET, **settings})
    if name == ONNX_NETWORK and "graph" in settings:
        body = "facedan_cli.models.pretrained.onnx_import:graph_body"
        return replace(_described(body, (), "ONNX", settings), arguments=(settings["graph"],))
    if is_own(name) or name == ONNX:
        return _described(name, (), name.partition(":")[2] or name, settings)
    if point := brought_networks().get(name):
        try:
            brought = point.load()
        except Exception as error:  # another package's code may raise anything
            raise FacedanError(
                f"the network {name} of the package {point.dist and point.dist.name} cannot be loaded: {error}",
                "mend or remove that package",
            ) from error
        if isinstance(brought, NetworkEntry):
            return _without_settings(brought, name, settings)
        return _described(point.value, (), name, settings)
    known = (*NETWORKS, *brought_networks())
    raise UsageError(f"there is no network '{name}'", did_you_mean(name, known, of="networks"))


def network_settings(config: Any) -> dict[str, str] | None:
    """The settings of a network among a configuration's fields; None without any."""
    given = {name: getattr(config, name, None) for name in SETTINGS}
    given["channels"] = None if given["channels"] == "auto" else given["channels"]  # as the weights or the default say
    return {name: value for name, value in given.items() if value is not None} or None


def brought_networks() -> dict[str, Any]:
    """The entry points of installed packages that bring networks, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _without_settings(entry: NetworkEntry, name: str, settings: Mapping[str, str]) -> NetworkEntry:
    if idle := [key for key in settings if key != "channels"]:  # the order of channels may be that of its weights
        raise UsageError(f"--{idle[0]} means nothing for {name}, which says it itself", f"leave --{idle[0]} out")
    return entry


def _described(body: str, arguments: tuple[str, ...], family: str, settings: Mapping[str, str]) -> NetworkEntry:
    height, width = parse_size(settings.get("input", "112"))
    mean, std = parse_normalisation(settings.get("mean"), settings.get("std"))
    asked = [path.strip() for path in settings.get("layers", EMBEDDING).split(",")]
    return NetworkEntry(
        body=body,
        arguments=(*arguments, f"{height}x{width}") if arguments else (),
        family=family,
        layers=tuple(dict.fromkeys([*(path for path in asked if path not in ("", EMBEDDING)), EMBEDDING])),
        image_size=max(height, width),
        crop=max(height, width),
        width=width if width < height else 0,
        mean=mean,
        std=std,
        channels=settings.get("channels", "rgb"),
        template="arcface5",
        pretrain=STRONG,
        adapt=STRONG_ADAPT,
    )
