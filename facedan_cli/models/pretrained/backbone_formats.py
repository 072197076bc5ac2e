"""Recognition of published networks by names and shapes of their tensors, and translation of the names to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from facedan_cli.config.models import NETWORKS, imported

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Family:
    """A family of networks whose tensors differ in names only by the number of blocks.

    What wrappers put before every name (`module.`, `backbone.`, `state_dict.model.`) is known by the name behind it.

    Args:
        known_by: a name that every state dict of the family has, and no other.
        networks: what makes each network, by its name in the table.
    """

    known_by: str
    networks: Mapping[str, Callable[[], nn.Module]]

    def network(self, tensors: Mapping[str, Array]) -> str | None:
        """The network with these names and shapes, wrapped or not; None if there is none or more than one.

        Tensors beside the network's modules, such as a classification head's, do not count; those inside of them that
        it does not have do, for they would be left out of what it computes.
        """
        found = {name: tuple(value.shape) for name, value in self.unwrapped(tensors).items() if not _is_count(name)}
        for name, make in self.networks.items() if found else ():
            shapes, modules = _shapes(make)
            if shapes == {key: shape for key, shape in found.items() if key.partition(".")[0] in modules}:
                return name
        return None

    def wrapper(self, tensors: Mapping[str, Array]) -> str | None:
        """The prefix of the network's names, such as "module."; None if there is no such network or more than one.

        Two are in a file of, for example, a model and its running average.
        """
        ends = [name for name in tensors if f".{name}".endswith(f".{self.known_by}")]
        return ends[0].removesuffix(self.known_by) if len(ends) == 1 else None

    def unwrapped(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors whose names have the wrapper, without it."""
        wrapper = self.wrapper(tensors)
        if wrapper is None:
            return {}
        return {name.removeprefix(wrapper): value for name, value in tensors.items() if name.startswith(wrapper)}

    def as_ours(self, tensors: Mapping[str, Array], _: object) -> dict[str, Array]:
        """The network's tensors by our names, `body.` and the publisher's."""
        modules = {module for make in self.networks.values() for module in _shapes(make)[1]}
        named = self.unwrapped(tensors).items()
        return {f"body.{name}": value for name, value in named if name.partition(".")[0] in modules}


def by_own_names(tensors: Mapping[str, Array], network: nn.Module) -> dict[str, Array]:
    """Tensors by our names, where theirs are those of the network's body, wrapped or not; else as they are."""
    own = [name.removeprefix("body.") for name in network.state_dict() if name.startswith("body.")]
    wrappers = {name.removesuffix(own[0]) for name in tensors if own and f".{name}".endswith(f".{own[0]}")}
    whole = [wrapper for wrapper in wrappers if all(wrapper + name in tensors or _is_count(name) for name in own)]
    if len(whole) != 1:
        return {**tensors}
    inside = {name.removeprefix(whole[0]): value for name, value in tensors.items() if name.startswith(whole[0])}
    return {f"body.{name}": value for name, value in inside.items()}


@cache
def _shapes(make: Callable[[], nn.Module]) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """The shapes of a network's tensors by name, and the names of its outermost modules."""
    with torch.device("meta"), _WithoutDraws():
        network = make()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items() if not _is_count(name)}
    return shapes, {name for name, _ in network.named_children()}


class _WithoutDraws(TorchFunctionMode):
    """Leaves weights undrawn: for `normal_` without memory torch imports its compiler, which takes seconds."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        return None if function in (Tensor.normal_, nn.init.normal_) else function(*arguments, **(named or {}))


def _is_count(name: str) -> bool:
    """Whether a tensor counts batches: weights of before torch 0.4.1 have none."""
    return name.endswith(".num_batches_tracked")


def _family(known_by: str, body: str) -> Family:
    """The networks of the table whose bodies' functions begin so."""
    found = {name: entry.body for name, entry in NETWORKS.items() if entry.body.startswith(f"{_MODELS}.{body}")}
    return Family(known_by, {name: imported(function) for name, function in found.items()})


_MODELS = "facedan_cli.models"

IRESNET = _family("layer1.0.prelu.weight", "iresnet:")
ADAFACE = _family("body.0.res_layer.0.weight", "adaface_ir:")
MOBILEFACENET = _family("dw_conv.depthwise.weight", "mobilefacenet:mobilefacenet")
MBF = _family("conv_sep.layers.0.weight", "mobilefacenet:mbf")
DLIB = _family("blocks.0.scale1.weight", "dlib_resnet:")
