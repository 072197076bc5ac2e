"""A reader of the layers of a Keras network in HDF5, saved as weights or as a whole model."""

from __future__ import annotations

import math
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.models.pretrained.hdf5 import arrays_in, opened


def keras_layers(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer that has both, by name, in order.

    Returns:
        Weights as outputs, inputs (, height, width). Keras has outputs last, and flattens feature maps channels last:
        the first dense layer after a convolution is given as a convolution too.

    Raises:
        FacedanError: h5py is missing.
        ValueError: it is something else.
    """
    layers = {}
    channels = 0  # channels of the feature map that a dense layer gets flattened
    for name, (kernel, bias) in _kernels(path).items():
        if kernel.ndim == 4:
            weight = kernel.transpose(3, 2, 0, 1)
            channels = len(weight)
        else:
            weight = _dense(kernel, channels)
            channels = 0
        layers[name] = (weight, bias)
    return layers


def _kernels(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    with opened(path) as file:
        root = file.get("model_weights", file)
        datasets = {
            layer: [root[layer][name] for name in _names(root[layer], "weight_names")]
            for layer in _names(root, "layer_names")
        }
        pairs = {layer: pair for layer, pair in datasets.items() if len(pair) == 2 and pair[0].ndim in {2, 4}}
        arrays = iter(arrays_in([dataset for pair in pairs.values() for dataset in pair]))
        return {layer: (next(arrays), next(arrays)) for layer in pairs}


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names in a group's attributes; Keras divides a long list into name0, name1, …."""
    if attribute in group.attrs:
        names = list(group.attrs[attribute])
    else:
        parts = takewhile(group.attrs.__contains__, (f"{attribute}{part}" for part in count()))
        names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _dense(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The weight of a dense layer; on a square feature map, that of the equivalent convolution."""
    side = math.isqrt(len(kernel) // channels) if channels else 0
    if side * side * channels != len(kernel):
        return kernel.T
    return kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)
