"""How a published state dict is wrapped, so that an export can give the same layout back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from facedan_cli.models.pretrained.state_dict import load_any

_COUNT = ".num_batches_tracked"


def publisher_names(network: nn.Module) -> dict[str, str]:
    """The publisher's names of a network's tensors by ours, in the order of its modules; those of no classifier."""
    return {name: name.removeprefix("body.") for name in network.state_dict() if not name.startswith("classifier.")}


def is_count(name: str) -> bool:
    """Whether a tensor counts the batches of a batch normalisation."""
    return name.endswith(_COUNT)


def layout_of(path: Path, network: nn.Module) -> dict[str, str]:
    """What is unusual in the file of a state dict; empty where it holds the network's names alone, in float32.

    Returns:
        `within`: the key of the state dict in a checkpoint; `prefix`: of every name; `dtype`: of all weights;
        `counts`: "none" where batch normalisation counts no batches.
    """
    names = list(publisher_names(network).values())
    weights = [name for name in names if not is_count(name)]
    for within, tensors in _dictionaries(load_any(path, objects=True)):
        ends = [name for name in tensors if f".{name}".endswith(f".{weights[0]}")]
        for prefix in (name.removesuffix(weights[0]) for name in ends):
            if all(prefix + weight in tensors for weight in weights):
                types = {tensors[prefix + weight].dtype for weight in weights}
                counts = [prefix + name for name in names if is_count(name)]
                found = {
                    "within": within,
                    "prefix": prefix,
                    "dtype": str(types.pop()).removeprefix("torch.") if len(types) == 1 else "",
                    "counts": "none" if counts and not any(name in tensors for name in counts) else "",
                }
                return {key: value for key, value in found.items() if value not in ("", "float32")}
    return {}


def _dictionaries(found: Any) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The state dicts in a file, by their keys: those in its dictionary, and last that itself.

    Where objects were left out it is flat: the names begin with the key.
    """
    if not isinstance(found, dict):
        return
    inner: dict[str, dict[str, Tensor]] = {}
    for key, value in found.items():
        outer, _, name = str(key).partition(".")
        if isinstance(value, dict):
            inner[str(key)] = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
        elif isinstance(value, Tensor) and "state_dict" in outer:
            inner.setdefault(outer, {})[name] = value
    yield from inner.items()
    yield "", {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
