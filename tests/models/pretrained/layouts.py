"""Files as other frameworks write them, by code that shares nothing with the readers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAMES = tuple(
    f"conv{block}_{index}" for block, depth in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)) for index in range(1, depth + 1)
)
Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Weight (outputs, inputs, height, width) and bias of every layer; fc6, fc7 and fc8 are written as convolutions."""


def random_weights(widths: tuple[int, ...], hidden: int, identities: int, *, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    layers = {}
    inputs = 3
    for name in NAMES:
        outputs = widths[int(name[4]) - 1]
        layers[name] = (outputs, inputs, 3, 3)
        inputs = outputs
    layers |= {"fc6": (hidden, inputs, 7, 7), "fc7": (hidden, hidden, 1, 1), "fc8": (identities, hidden, 1, 1)}
    return {
        name: (
            generator.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32),
            generator.normal(0, 1, shape[0]).astype(np.float32),
        )
        for name, shape in layers.items()
    }


# State dicts


def state_dict(weights: Weights, rename: Mapping[str, str], *, flat: bool) -> dict[str, torch.Tensor]:
    """Under other names; fully connected layers as matrices where flat."""
    state = {}
    for name, (weight, bias) in weights.items():
        shaped = weight.reshape(len(weight), -1) if flat and name.startswith("fc") else weight
        state[f"{rename[name]}.weight"] = torch.tensor(shaped)
        state[f"{rename[name]}.bias"] = torch.tensor(bias)
    return state


# Torch7


class Torch7Writer:
    def __init__(self) -> None:
        self.content = bytearray()
        self.numbers = 0

    def int(self, value: int) -> None:
        self.content += struct.pack("<i", value)

    def long(self, *values: int) -> None:
        self.content += struct.pack(f"<{len(values)}q", *values)

    def text(self, value: str) -> None:
        self.int(len(value))
        self.content += value.encode()

    def reference(self, kind: int) -> None:
        self.int(kind)
        self.numbers += 1
        self.int(self.numbers)

    def value(self, value: Any) -> None:
        if value is None:
            self.int(0)
        elif isinstance(value, bool):
            self.int(5)
            self.int(value)
        elif isinstance(value, int | float):
            self.int(1)
            self.content += struct.pack("<d", value)
        elif isinstance(value, str):
            self.int(2)
            self.text(value)
        elif isinstance(value, dict):
            self.reference(3)
            self.int(len(value))
            for key, inner in value.items():
                self.value(key)
                self.value(inner)
        elif isinstance(value, list):
            self.value(dict(enumerate(value, start=1)))
        elif isinstance(value, np.ndarray):
            self.tensor(value, "Double" if value.dtype == np.float64 else "Float")
        else:
            name, fields = value
            self.begin(name)
            self.value(fields)

    def begin(self, name: str) -> None:
        self.reference(4)
        self.text("V 1")
        self.text(name)

    def tensor(self, array: np.ndarray, kind: str, *, before: int = 3) -> None:
        """A tensor that starts some elements into its storage."""
        self.begin(f"torch.{kind}Tensor")
        self.int(array.ndim)
        self.long(*array.shape, *(stride // array.itemsize for stride in np.ascontiguousarray(array).strides))
        self.long(before + 1)
        self.begin(f"torch.{kind}Storage")
        self.long(before + array.size)
        self.content += bytes(before * array.itemsize) + array.tobytes()


def torch7(weights: Weights, *, matrices: bool = False, double: bool = False) -> bytes:
    """VGG_FACE.t7: a Sequential; convolutions 4-D, or matrices as in nn.SpatialConvolutionMM."""
    modules: list[Any] = []
    for name, (weight, bias) in weights.items():
        is_convolution = name.startswith("conv")
        flat = matrices or not is_convolution
        shaped = (weight.reshape(len(weight), -1) if flat else weight).astype(np.float64 if double else np.float32)
        kind = ("nn.SpatialConvolutionMM" if matrices else "nn.SpatialConvolution") if is_convolution else "nn.Linear"
        if name == "fc6":
            modules.append(("nn.View", {"numElements": 392, "size": None}))
        fields = {"weight": shaped, "bias": bias.astype(shaped.dtype), "train": True, "_type": "torch.FloatTensor"}
        modules += [(kind, {**fields, "kW": 3}), ("nn.ReLU", {"inplace": True})]
        if name in {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}:
            modules.append(("nn.SpatialMaxPooling", {"kW": 2, "dW": 2}))
    writer = Torch7Writer()
    inner = ("nn.Sequential", {"modules": modules[:4]})
    writer.value(("nn.Sequential", {"modules": [inner, *modules[4:]], "output": np.zeros(0, np.float32)}))
    return bytes(writer.content)


# Caffe


def varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def blob(array: np.ndarray, style: str) -> bytes:
    if style == "old":  # four sizes, those that are missing in front being 1
        sizes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(number(field, size) for field, size in enumerate(sizes, start=1))
        return shape + message(5, array.astype("<f4").tobytes())
    if style == "double":
        shape = b"".join(number(1, size) for size in array.shape)
        return message(7, shape) + message(8, array.astype("<f8").tobytes())
    shape = message(7, message(1, b"".join(map(varint, array.shape))))
    if style == "unpacked":
        return shape + b"".join(varint(5 << 3 | 5) + value.tobytes() for value in array.astype("<f4").reshape(-1))
    values = array.astype("<f4").tobytes()
    return shape + message(5, values[:8]) + message(5, values[8:])


def caffemodel(weights: Weights, style: str = "new") -> bytes:
    """A NetParameter: with V1 layers in the old style, else with those of 2015 and later."""
    old = style == "old"
    content = message(1, b"VGG_FACE_16_layers")
    for name, (weight, bias) in weights.items():
        shaped = weight.reshape(len(weight), -1) if name.startswith("fc") else weight
        blobs = b"".join(message(6 if old else 7, blob(array, style)) for array in (shaped, bias))
        title, kind = message(4 if old else 1, name.encode()), number(5, 4) if old else message(2, b"Convolution")
        content += message(2 if old else 100, message(3, b"top") + title + kind + blobs)
        content += message(2 if old else 100, message(4 if old else 1, f"relu_{name}".encode()))
    return content


# MatConvNet


def _matconvnet_layers(weights: Weights) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for name, (weight, bias) in weights.items():
        filters = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        layers.append({"name": name, "type": "conv", "filters": filters, "biases": bias.reshape(1, -1), "stride": 1.0})
        layers.append({"name": f"relu{name[-1]}", "type": "relu"})
    return layers


def _cell(values: list[Any]) -> np.ndarray:
    cell = np.empty((1, len(values)), object)
    for index, value in enumerate(values):
        cell[0, index] = value
    return cell


def matconvnet(path: Path, weights: Weights, *, compressed: bool, in_one_cell: bool, in_net: bool) -> None:
    from scipy.io import savemat

    layers = _matconvnet_layers(weights)
    for layer in layers:
        if in_one_cell and "filters" in layer:
            layer["weights"] = _cell([layer.pop("filters"), layer.pop("biases")])
    content = {"layers": _cell(layers), "meta": {"normalization": {"averageImage": [129.1863, 104.7624, 93.5940]}}}
    savemat(path, {"net": content} if in_net else content, do_compression=compressed)


def matconvnet_7_3(path: Path, weights: Weights, *, in_one_cell: bool) -> None:
    """Version 7.3, as MATLAB writes it: dimensions in reverse, cells of references into #refs#."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        heap = file.create_group("#refs#")

        def put(value: Any) -> Any:
            place = str(len(heap))
            if isinstance(value, str):
                heap[place] = np.array([[ord(letter)] for letter in value], np.uint16)
            else:
                heap.create_dataset(place, data=np.asarray(value).T, compression="gzip")
            return heap[place].ref

        cells = []
        for layer in _matconvnet_layers(weights):
            group = heap.create_group(str(len(heap)))
            group["name"] = file[put(layer["name"])][()]
            if "filters" in layer and in_one_cell:
                pair = [[put(layer["filters"])], [put(layer["biases"])]]
                group.create_dataset("weights", data=np.array(pair, h5py.ref_dtype), dtype=h5py.ref_dtype)
            elif "filters" in layer:
                group["filters"], group["biases"] = layer["filters"].T, layer["biases"].T
            cells.append([group.ref])
        file.create_dataset("layers", data=np.array(cells, h5py.ref_dtype), dtype=h5py.ref_dtype)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


# Keras


def keras(path: Path, weights: Weights, *, dense: bool, named: bool, whole: bool) -> None:
    """Weights alone or within the whole model; fc6 a dense layer after Flatten, or a convolution of 7×7."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        titles = ["input_1"]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for position, (name, (weight, bias)) in enumerate(weights.items()):
            kernel = weight.transpose(2, 3, 1, 0)
            if dense and name.startswith("fc"):
                kernel = kernel.reshape(-1, kernel.shape[3])
            title = name if named else f"conv2d_{position + 1}"
            names = [f"{title}/kernel:0", f"{title}/bias:0"]
            group = root.create_group(title)
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            group[names[0]], group[names[1]] = kernel, bias
            titles.append(title)
        # Keras divides lists that are too long for one attribute.
        root.attrs["layer_names0"] = np.array([title.encode() for title in titles[:5]])
        root.attrs["layer_names1"] = np.array([title.encode() for title in titles[5:]])
        if not whole:
            del root.attrs["layer_names0"], root.attrs["layer_names1"]
            root.attrs["layer_names"] = titles  # newer versions write text
