"""dlib's serialisation of its face recognition network, read as plain data.

The layout is that of dlib's serialize.h, float_details.h, cuda/tensor.h and dnn/core.h, layers.h, input.h, loss.h. The
types of a network are not in the file but in the C++ program: it is read by the layers of `models.dlib_resnet`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from facedan_cli.models.dlib_resnet import BLOCKS

MEAN = (122.782, 117.001, 104.298)
"""What dlib takes from red, green and blue before it divides by 256."""

_WRAPPERS = ("tag", "skip")
_CONVOLUTIONS = {"con_4": 0, "con_5": 1, "con_6": 2}  # how many switches stand at the end
_FULLY_CONNECTED = {"fc_2": 0, "fc_3": 1}


class _Layer(NamedTuple):
    """A layer of the C++ type: its kind, our name, and rows, columns, strides and paddings of its window."""

    kind: str
    name: str = ""
    window: tuple[int, ...] = ()


def _layers() -> Iterator[_Layer]:
    """The layers from the image on."""

    def convolution(name: str, side: int, stride: int) -> _Layer:
        padding = side // 2 if stride == 1 else 0
        return _Layer("con", name, (side, side, stride, stride, padding, padding))

    yield from (convolution("conv1", 7, 2), _Layer("affine", "scale1"), _Layer("relu"))
    yield _Layer("max_pool", window=(3, 3, 2, 2, 0, 0))
    for number, (_, stride) in enumerate(BLOCKS):
        block = f"blocks.{number}."
        yield from (_Layer("tag"), convolution(f"{block}conv1", 3, stride), _Layer("affine", f"{block}scale1"))
        yield from (_Layer("relu"), convolution(f"{block}conv2", 3, 1), _Layer("affine", f"{block}scale2"))
        if stride > 1:
            yield from (_Layer("tag"), _Layer("skip"), _Layer("avg_pool", window=(2, 2, 2, 2, 0, 0)))
        yield from (_Layer("add_prev"), _Layer("relu"))
    yield from (_Layer("avg_pool", window=(0, 0, 1, 1, 0, 0)), _Layer("fc", "fc"))


def dlib_tensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a dlib face recognition network by the names of `dlib_resnet`'s state dict.

    Args:
        content: the whole file, of a network with scales (`anet_type`) or with the batch normalisation that it was
            trained with, which becomes scales.

    Raises:
        ValueError: it ends early, or is something else.
    """
    reader = _Reader(content)
    layers = list(_layers())
    reader.loss()
    versions = [_version(reader, layer, last=place == 0) for place, layer in reversed([*enumerate(layers)])]
    versions.reverse()
    reader.input()
    tensors: dict[str, np.ndarray] = {}
    for place, (layer, version) in enumerate(zip(layers, versions, strict=True)):
        if layer.kind not in _WRAPPERS:
            tensors |= {f"{layer.name}.{kind}": array for kind, array in reader.details(layer).items()}
            reader.state(gradients=place == 0 or version > 1, expansion=place == 0 and version > 2)
    reader.end()
    return tensors


def _version(reader: _Reader, layer: _Layer, *, last: bool) -> int:
    """The version number that each layer begins with; the layer above the image has a template of its own."""
    version = reader.integer()
    known = (1,) if layer.kind in _WRAPPERS else (2, 3) if last else (1, 2)
    if version not in known:
        raise ValueError(f"it is no such network: a layer {layer.kind} has the unknown version {version}")
    return version


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def loss(self) -> None:
        """The version of the network, and the loss that it was trained with."""
        version, name = self.integer(), self._text()
        if version != 1 or name not in {"loss_metric_", "loss_metric_2"}:
            raise ValueError("it is no dlib network that was trained by the metric loss")
        if name == "loss_metric_2":
            self._floats(2)

    def input(self) -> None:
        name = self._text()
        if name not in {"input_rgb_image", "input_rgb_image_sized"}:
            raise ValueError(f"its network takes the unknown input {name[:40]!r}")
        mean = self._floats(3)
        if not np.allclose(mean, MEAN, atol=1e-2):
            raise ValueError(f"its network expects images less {mean}, not {MEAN}")
        if name == "input_rgb_image_sized":
            self._integers(2)

    def details(self, layer: _Layer) -> dict[str, np.ndarray]:
        """The weight and bias of a layer, if it has them."""
        name = self._text()
        if layer.kind == "con" and name in _CONVOLUTIONS:
            return self._convolution(layer, _CONVOLUTIONS[name])
        if layer.kind == "affine" and name in {"affine_", "affine_2"}:
            return self._affine(switches=int(name == "affine_2"))
        if layer.kind == "affine" and name == "bn_con2":
            return self._batch_normalisation()
        if layer.kind == "fc" and name in _FULLY_CONNECTED:
            return self._fully_connected(_FULLY_CONNECTED[name])
        if layer.kind in {"max_pool", "avg_pool"} and name == f"{layer.kind}_2":
            self._window(layer)
        elif layer.kind == "relu" and name == "relu_2":
            self._switches(0)
        elif name != f"{layer.kind}_" or layer.kind not in {"relu", "add_prev"}:
            raise ValueError(f"it has a layer {name[:40]!r} where this network has {layer.kind}")
        return {}

    def state(self, *, gradients: bool, expansion: bool) -> None:
        """Read a layer's other data: switches, last outputs, and their gradients."""
        for _ in range(3):
            self._boolean()
        for _ in range(3 if gradients else 2):
            self._tensor()
        if expansion:
            self.integer()

    def end(self) -> None:
        if self._at < len(self._content):
            raise ValueError("it goes on behind its network")

    def _convolution(self, layer: _Layer, switches: int) -> dict[str, np.ndarray]:
        parameters = self._tensor()
        self.integer()  # the number of filters, which their shape says too
        self._window(layer)
        weight, bias = self._parts(parameters, self._alias(), self._alias())
        self._floats(4)
        self._switches(*(1, 0)[:switches])  # with biases; without a ReLU
        return {"weight": weight, "bias": bias.reshape(-1)}

    def _affine(self, switches: int) -> dict[str, np.ndarray]:
        scale, shift = self._parts(self._tensor(), self._alias(), self._alias())
        self.integer()  # of convolutions or of fully connected layers
        self._switches(*(0,)[:switches])
        return {"weight": scale.reshape(-1), "bias": shift.reshape(-1)}

    def _batch_normalisation(self) -> dict[str, np.ndarray]:
        """The affine_ of a bn_, made as in dlib."""
        scale, shift = self._parts(self._tensor(), self._alias(), self._alias())
        for _ in range(2):  # mean and deviation of the last batch
            self._tensor()
        mean, variance = self._tensor().reshape(scale.shape), self._tensor().reshape(scale.shape)
        self._integers(2)
        epsilon = self._floats(5)[-1]
        weight = scale / np.sqrt(variance + np.float32(epsilon))
        return {"weight": weight.reshape(-1), "bias": (shift - weight * mean).reshape(-1)}

    def _fully_connected(self, switches: int) -> dict[str, np.ndarray]:
        outputs, inputs = self._integers(2)
        parameters, shape, _ = self._tensor(), self._alias(), self._alias()
        mode = self.integer()
        self._floats(4)
        self._switches(*(1,)[:switches])
        if mode != 1 or parameters.size != inputs * outputs or math.prod(shape) != parameters.size:
            raise ValueError("its last layer has biases, or is not as large as it says")
        return {"weight": parameters.reshape(inputs, outputs).T}

    def _parts(
        self, parameters: np.ndarray, first: tuple[int, ...], second: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The two tensors that lie one behind the other in a layer's parameters."""
        border = math.prod(first)
        if border + math.prod(second) != parameters.size:
            raise ValueError(f"a layer of {parameters.size} parameters says to have the shapes {first} and {second}")
        flat = parameters.reshape(-1)
        return flat[:border].reshape(first), flat[border:].reshape(second)

    def _window(self, layer: _Layer) -> None:
        window = tuple(self._integers(6))
        if window != layer.window:
            raise ValueError(f"a layer {layer.kind} has rows, columns, strides and paddings {window}")

    def _alias(self) -> tuple[int, ...]:
        return self._sizes(version=1)

    def _tensor(self) -> np.ndarray:
        sizes = self._sizes(version=2)
        return np.frombuffer(self._take(4 * math.prod(sizes)), "<f4").reshape(sizes)

    def _sizes(self, version: int) -> tuple[int, ...]:
        """Samples, channels, rows and columns, behind the version of how they are written."""
        found, *sizes = self._integers(5)
        if found != version or min(sizes) < 0:
            raise ValueError("it has a tensor of an unknown version, or of a shape that no tensor has")
        if max(sizes) > len(self._content):
            raise ValueError("it ends before its values do")
        return tuple(sizes)

    def _switches(self, *wanted: int) -> None:
        """Check the switches that change a layer's function; only these values are known."""
        found = tuple(int(self._boolean()) for _ in wanted)
        if found != wanted:
            raise ValueError("a layer is fused with others or switched off")

    def _boolean(self) -> bool:
        text = bytes(self._take(1))
        if text not in {b"0", b"1"}:
            raise ValueError("it has a truth value that is neither 0 nor 1")
        return text == b"1"

    def _floats(self, count: int) -> tuple[float, ...]:
        return tuple(self._float() for _ in range(count))

    def _float(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1100:  # also how infinities are written
            raise ValueError("it has a number that is not finite")
        return mantissa * 2.0**exponent if exponent > -1022 else 0.0

    def _integers(self, count: int) -> list[int]:
        return [self.integer() for _ in range(count)]

    def integer(self) -> int:
        """A number: a byte of its length, with 128 for a negative one, and its bytes, least significant first."""
        control = self._take(1)[0]
        length = control & 0x0F
        if control & 0x70 or not 0 < length <= 8:
            raise ValueError("it has a number of an unknown form")
        size = int.from_bytes(self._take(length), "little")
        return -size if control & 0x80 else size

    def _text(self) -> str:
        return bytes(self._take(self.integer())).decode("latin-1")

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._content) - self._at:
            raise ValueError("it ends before its values do")
        self._at += count
        return self._content[self._at - count : self._at]
