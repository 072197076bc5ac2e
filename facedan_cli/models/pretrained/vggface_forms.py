"""VGG-Face's weights as they are published: files in the layouts of five frameworks → our names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from facedan_cli.errors import FacedanError
from facedan_cli.models.pretrained.caffemodel import caffemodel_layers
from facedan_cli.models.pretrained.keras_h5 import keras_layers
from facedan_cli.models.pretrained.matconvnet import matconvnet_layers
from facedan_cli.models.pretrained.state_dict import is_ours, read_state_dict
from facedan_cli.models.pretrained.torch7 import torch7_layers
from facedan_cli.models.vggface import CONVOLUTIONS_PER_BLOCK, VGGFace

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Form:
    """A layout in which weights are published.

    Args:
        name: what it is called.
        channels: the order of channels that weights in it usually expect, "rgb" or "bgr".
        sure: whether nobody is known to publish weights of the other order in it.
        licensed: whether what is published in it are VGG-Face's own weights.
        warning: what the user should check; may be empty.
    """

    name: str
    channels: str
    sure: bool = True
    licensed: bool = True
    warning: str = ""


FACEDAN = Form("facedan", "rgb", licensed=False)
_TORCHVISION = Form(
    "torchvision",
    "rgb",
    licensed=False,
    warning="its inputs must be RGB in 0-255 less VGG-Face's mean; ImageNet's weights expect others",
)
_DAG = Form("vgg_face_dag", "rgb")
_LIKE_DAG = Form("names of vgg_face_dag", "rgb", sure=False)
_DEEPFACE = Form("deepface", "bgr", sure=False)
_FROM_TORCH7 = Form("vgg-face.pytorch", "bgr")  # converted from VGG_FACE.t7, as PyVGGFace's
_TORCH7 = Form("torch7", "bgr")
_CAFFE = Form("caffe", "bgr")
_MATCONVNET = Form("matconvnet", "rgb")
_KERAS = Form("keras-vggface", "bgr")
_KERAS_SEQUENTIAL = Form("keras", "bgr", sure=False)  # DeepFace's among others

_READERS: Mapping[str, tuple[Form, Callable[[Path], Mapping[str, tuple[np.ndarray, np.ndarray]]]]] = {
    ".t7": (_TORCH7, lambda path: torch7_layers(path.read_bytes())),
    ".caffemodel": (_CAFFE, lambda path: caffemodel_layers(path.read_bytes())),
    ".mat": (_MATCONVNET, matconvnet_layers),
    ".h5": (_KERAS, keras_layers),
    ".hdf5": (_KERAS, keras_layers),
}

_CONVOLUTIONS = tuple(
    f"conv{block}_{index}"
    for block, depth in enumerate(CONVOLUTIONS_PER_BLOCK, start=1)
    for index in range(1, depth + 1)
)
_OURS = (*_CONVOLUTIONS, "fc6", "fc7")
_ALL = (*_OURS, "fc8")
_SPELLING = re.compile(r"(?:features\.|fc\.)?(?P<layer>conv_?[1-5]_[1-3]|fc[678])")


def read_vggface(path: Path, network: VGGFace) -> tuple[Form, dict[str, Array]]:
    """The layout of a file, and its tensors by our names, in our shapes where theirs mean the same.

    Args:
        path: .t7, .caffemodel, .mat, .h5 or a state dict.
        network: whose shapes are wanted.

    Raises:
        FacedanError: the file cannot be read.
    """
    form, tensors = _read_layers(path) if path.suffix.lower() in _READERS else _read_state_dict(path)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    channels = network.spec.widths[-1]
    return form, {
        key: _reshaped(value, shapes[key], channels) if key in shapes else value for key, value in tensors.items()
    }


def _read_layers(path: Path) -> tuple[Form, dict[str, Array]]:
    """What a file of another framework holds; layers without names of VGG's are taken to come in its order."""
    form, reader = _READERS[path.suffix.lower()]
    try:
        layers = reader(path)
    except FacedanError:
        raise
    except Exception as error:  # scipy and h5py raise errors of every type on damaged files
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise FacedanError(
            f"{path} cannot be read as weights of {form.name}{reason}", "fetch the file again, or give another form"
        ) from error
    if form is _KERAS and not ("fc7" in layers and layers["fc7"][0].ndim == 2):
        form = _KERAS_SEQUENTIAL  # keras-vggface has VGG's names and dense layers
    named = {_our_name(name): pair for name, pair in layers.items()}
    if not named.keys() & set(_OURS) and len(layers) in {len(_OURS), len(_ALL)}:
        named = dict(zip(_ALL, layers.values(), strict=False))
    tensors: dict[str, Array] = {}
    for name, (weight, bias) in named.items():
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return form, tensors


def _read_state_dict(path: Path) -> tuple[Form, dict[str, Array]]:
    state = read_state_dict(path)
    tensors: dict[str, Array] = {}
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        tensors[f"{_our_name(name)}.{kind}"] = value
    return FACEDAN if is_ours(path) else _form_of_state_dict(state), tensors


def _form_of_state_dict(state: Mapping[str, Tensor]) -> Form:
    names = {key.rpartition(".")[0] for key in state}
    if "classifier" in names:
        return FACEDAN
    if "features.0" in names:
        return _TORCHVISION
    if names & {"conv_1_1", "features.conv_1_1"}:
        return _FROM_TORCH7
    if "fc6.weight" in state and state["fc6.weight"].ndim == 4:
        return _DEEPFACE
    return _DAG if names == set(_ALL) else _LIKE_DAG


def _our_name(name: str) -> str:
    """Our name of a layer, by VGG's names in any spelling or torchvision's positions; else the name as it is."""
    spelt = _SPELLING.fullmatch(name)
    return spelt["layer"].replace("conv_", "conv") if spelt else _torchvision_names().get(name, name)


def _torchvision_names() -> dict[str, str]:
    names = {"classifier.0": "fc6", "classifier.3": "fc7"}
    position = 0
    for block, depth in enumerate(CONVOLUTIONS_PER_BLOCK, start=1):
        for index in range(1, depth + 1):
            names[f"features.{position}"] = f"conv{block}_{index}"
            position += 2  # the convolution and its ReLU
        position += 1  # the pooling that ends the block
    return names


def _reshaped(array: Array, shape: tuple[int, ...], channels: int) -> Array:
    """A weight or bias in our shape, where its own is another way to write the same; else as it is.

    Args:
        array: outputs first.
        shape: ours.
        channels: of the picture that fc6 sees.
    """
    outputs, inputs = shape[0], math.prod(shape[1:])
    if len(shape) == 1:
        same = {(1, outputs), (outputs, 1), (1, 1, 1, outputs)}
    elif len(shape) == 4:
        same = {(outputs, inputs)}  # nn.SpatialConvolutionMM
    else:
        side = math.isqrt(inputs // channels)
        same = {(1, 1, outputs, inputs), (outputs, inputs, 1, 1)}  # of old Caffe; of a convolution
        if side * side * channels == inputs:
            same.add((outputs, channels, side, side))
    return array.reshape(shape) if tuple(array.shape) in same else array
