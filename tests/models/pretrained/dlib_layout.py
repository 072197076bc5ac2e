"""dlib's serialisation, written from its headers: networks of the layers that dlib's face recognition has."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

# dnn_face_recognition_ex.cpp: channels, and whether it halves, of each residual block from the image on.
BLOCKS = (
    *3 * [(32, False)],
    (64, True),
    *3 * [(64, False)],
    (128, True),
    *2 * [(128, False)],
    (256, True),
    *2 * [(256, False)],
    (256, True),
)
EPSILON = 1e-4

State = Mapping[str, np.ndarray]


class DlibWriter:
    """Writes values as dlib's `serialize` does."""

    def __init__(self) -> None:
        self.content = bytearray()

    def integers(self, *values: int) -> None:
        for value in values:
            length = max(1, (abs(value).bit_length() + 7) // 8)
            self.content.append(length | (0x80 if value < 0 else 0))
            self.content += abs(value).to_bytes(length, "little")

    def text(self, text: str) -> None:
        self.integers(len(text))
        self.content += text.encode()

    def floats(self, *values: float) -> None:
        for value in values:
            mantissa, exponent = math.frexp(value)
            self.integers(int(mantissa * 2**53), exponent - 53)

    def booleans(self, text: str) -> None:
        self.content += text.encode()

    def tensor(self, *shape: int, values: np.ndarray | None = None) -> None:
        self.integers(2, *shape)
        self.content += np.zeros(shape, "<f4").tobytes() if values is None else values.astype("<f4").tobytes()


def written(state: State, *, trained: bool = False, version: int = 2, convolution: str = "con_4") -> bytes:
    """A face recognition network.

    Args:
        state: by our names; where `trained`, scales have `running_mean` and `running_var` too.
        trained: with batch normalisation, and an input of any size, as dlib's example of training saves it.
        version: of its layers; those of the first have no gradients.
        convolution: "con_4" or one of the later versions, which end in switches.
    """
    writer = DlibWriter()
    writer.integers(1)
    writer.text("loss_metric_2" if version > 1 else "loss_metric_")
    if version > 1:
        writer.floats(0.04, 0.6)
    writer.integers(version, version)  # fully connected, pooling
    for _, halves in reversed(BLOCKS):
        # ReLU and sum; pooling, skip and tag; scale, convolution, ReLU, scale and convolution; tag.
        writer.integers(version, version, *([version, 1, 1] if halves else []), *5 * [version], 1)
    writer.integers(*3 * [version], version + 1)  # pooling, ReLU, scale, convolution
    _input(writer, trained)
    weights = _Layers(writer, state, trained, version, convolution)
    weights.convolution("conv1", 7, halves=True)
    writer.integers(*([1] if version > 1 else []))  # how many samples it makes of one image
    weights.scale("scale1")
    weights.plain("relu_")
    weights.window("max_pool_2", 3, 3, 2, 2, 0, 0)
    for number, (_, halves) in enumerate(BLOCKS):
        weights.convolution(f"blocks.{number}.conv1", 3, halves=halves)
        weights.scale(f"blocks.{number}.scale1")
        weights.plain("relu_")
        weights.convolution(f"blocks.{number}.conv2", 3)
        weights.scale(f"blocks.{number}.scale2")
        if halves:
            weights.window("avg_pool_2", 2, 2, 2, 2, 0, 0)
        weights.plain("add_prev_")
        weights.plain("relu_")
    weights.window("avg_pool_2", 0, 0, 1, 1, 0, 0)
    weights.fully_connected("fc")
    return bytes(writer.content)


def _input(writer: DlibWriter, trained: bool) -> None:
    writer.text("input_rgb_image" if trained else "input_rgb_image_sized")
    writer.floats(122.782, 117.001, 104.298)
    writer.integers(*([] if trained else [150, 150]))


class _Layers:
    """Writes layers with what stands behind each: what it last computed, and gradients."""

    def __init__(self, writer: DlibWriter, state: State, trained: bool, version: int, convolution: str) -> None:
        self._writer, self._state, self._trained = writer, state, trained
        self._version, self._convolution = version, convolution
        self._first = True

    def convolution(self, name: str, side: int, *, halves: bool = False) -> None:
        weight, bias = self._state[f"{name}.weight"], self._state[f"{name}.bias"]
        stride, padding = (2, 0) if halves else (1, side // 2)
        self._writer.text(self._convolution)
        values = np.concatenate([weight.reshape(-1), bias])
        self._writer.tensor(len(values), 1, 1, 1, values=values)
        self._writer.integers(len(weight), side, side, stride, stride, padding, padding)
        self._writer.integers(1, *weight.shape, 1, 1, len(weight), 1, 1)
        self._writer.floats(1, 1, 1, 0)
        self._writer.booleans({"con_4": "", "con_5": "1", "con_6": "10"}[self._convolution])
        self._end()

    def scale(self, name: str) -> None:
        weight, bias = self._state[f"{name}.weight"], self._state[f"{name}.bias"]
        shape = (1, len(weight), 1, 1)
        self._writer.text("bn_con2" if self._trained else "affine_")
        self._writer.tensor(1, 2 * len(weight), 1, 1, values=np.concatenate([weight, bias]))
        self._writer.integers(1, *shape, 1, *shape)
        if self._trained:
            for kind in ("running_mean", "running_var", "running_mean", "running_var"):  # of the last batch; of all
                self._writer.tensor(*shape, values=self._state[f"{name}.{kind}"])
            self._writer.integers(1000, 100)
            self._writer.floats(1, 0, 1, 1, EPSILON)
        else:
            self._writer.integers(0)
        self._end()

    def fully_connected(self, name: str) -> None:
        weight = self._state[f"{name}.weight"].T  # inputs, outputs
        self._writer.text("fc_2")
        self._writer.integers(weight.shape[1], weight.shape[0])
        self._writer.tensor(*weight.shape, 1, 1, values=weight)
        self._writer.integers(1, *weight.shape, 1, 1, 1, 0, 0, 0, 0, 1)
        self._writer.floats(1, 1, 1, 0)
        self._end()

    def window(self, name: str, *numbers: int) -> None:
        self._writer.text(name)
        self._writer.integers(*numbers)
        self._end()

    def plain(self, name: str) -> None:
        self._writer.text(name)
        self._end()

    def _end(self) -> None:
        self._writer.booleans("110")
        self._writer.tensor(0, 0, 0, 0)
        self._writer.tensor(2, 3, 1, 1)  # what it last computed
        if self._version > 1 or self._first:
            self._writer.tensor(0, 0, 0, 0)
        self._first = False
