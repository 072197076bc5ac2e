"""A reader of the layers of a MatConvNet network (SimpleNN, as in vgg-face.mat), MATLAB versions 5 and 7.3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.models.pretrained.hdf5 import arrays_in, opened
from facedan_cli.models.pretrained.matlab5 import read_matlab5


def matconvnet_layers(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer that has them, by name, in order.

    Returns:
        Weights as outputs, inputs, height, width: MatConvNet has height, width, inputs, outputs.

    Raises:
        FacedanError: a file of version 7.3, and h5py is missing.
        ValueError: it is something else.
    """
    with path.open("rb") as file:
        recent = file.read(10) == b"MATLAB 7.3"
    found = _version_7(path) if recent else _version_5(path)
    layers = {}
    for name, (weight, bias) in found.items():
        if weight.ndim != 4:
            raise ValueError(f"the filters of its layer {name[:40]!r} have {weight.ndim} dimensions, not four")
        layers[name] = (weight.transpose(3, 2, 0, 1), bias.reshape(-1))
    return layers


def _version_5(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    content = read_matlab5(path.read_bytes(), {"layers", "net"})
    layers = content["layers"] if "layers" in content else content.get("net", {}).get("layers", [])
    return {fields["name"]: pair for fields in layers if (pair := _filters_and_biases(fields)) is not None}


def _filters_and_biases(fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Filters and biases of a layer: in the cell `weights`, or in two fields in files before 2015."""
    if "filters" in fields:
        return fields["filters"], fields["biases"]
    weights = fields.get("weights", [])
    return (weights[0], weights[1]) if len(weights) == 2 else None


def _version_7(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The layers of a file of version 7.3: HDF5, with references for cells, codes for text, and reversed dimensions."""
    with opened(path) as file:
        cells = file["layers"] if "layers" in file else file["net"]["layers"]
        pairs = {}
        for cell in _small(cells):
            fields = file[cell]
            pair = [fields["filters"], fields["biases"]] if "filters" in fields else []
            if "weights" in fields and fields["weights"].size == 2:
                pair = [file[reference] for reference in _small(fields["weights"])]
            if pair:
                pairs["".join(map(chr, _small(fields["name"])))] = pair
        arrays = iter(arrays_in([dataset for pair in pairs.values() for dataset in pair]))
        return {name: (next(arrays).T, next(arrays).T) for name in pairs}


def _small(dataset: Any) -> np.ndarray:
    """The elements of a short array, such as a list or a text."""
    return arrays_in([dataset], most=10_000)[0].reshape(-1)
