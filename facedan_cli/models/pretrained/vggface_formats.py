"""Names and shapes of VGG-Face's published weights in five frameworks, translated to ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from facedan_cli.models.vggface import CONVOLUTIONS_PER_BLOCK, VGGFace

Array = np.ndarray | Tensor


_CONVOLUTIONS = tuple(
    f"conv{block}_{index}"
    for block, depth in enumerate(CONVOLUTIONS_PER_BLOCK, start=1)
    for index in range(1, depth + 1)
)
_OURS = (*_CONVOLUTIONS, "fc6", "fc7")
_ALL = (*_OURS, "fc8")
_SPELLING = re.compile(r"(?:features\.|fc\.)?(?P<layer>conv_?[1-5]_[1-3]|fc[678])")


def by_name(tensors: Mapping[str, Array], network: VGGFace) -> dict[str, Array]:
    """The tensors with our names, and in our shapes where only the notation differs; unknown names are kept.

    Args:
        tensors: tensors by VGG's names in any spelling, or by torchvision's positions.
        network: the network with our shapes.
    """
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    channels = network.spec.widths[-1]
    named = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition(".")
        ours = f"{_our_name(name)}.{kind}"
        named[ours] = _reshaped(value, shapes[ours], channels) if ours in shapes else value
    return named


def by_name_or_order(tensors: Mapping[str, Array], network: VGGFace) -> dict[str, Array]:
    """The tensors as by `by_name`; if no layer has a name of VGG's, they are named in VGG's order."""
    names = _layers(tensors)
    if not {_our_name(name) for name in names} & set(_OURS) and len(names) in {len(_OURS), len(_ALL)}:
        ours = dict(zip(names, _ALL, strict=False))
        split = ((key.rpartition("."), value) for key, value in tensors.items())
        tensors = {f"{ours[name]}.{kind}": value for (name, _, kind), value in split}
    return by_name(tensors, network)


def has_dense_fc7(tensors: Mapping[str, Array]) -> bool:
    """Whether fc7 is a matrix, as in keras-vggface."""
    return "fc7.weight" in tensors and tensors["fc7.weight"].ndim == 2


def is_torchvision(tensors: Mapping[str, Array]) -> bool:
    """Whether layers are named by their positions in torchvision's VGG-16."""
    return "features.0" in _layers(tensors)


def is_underscored(tensors: Mapping[str, Array]) -> bool:
    """Whether convolutions are spelt conv_1_1, as in vgg-face.pytorch."""
    return not {"conv_1_1", "features.conv_1_1"}.isdisjoint(_layers(tensors))


def has_convolutional_fc6(tensors: Mapping[str, Array]) -> bool:
    """Whether fc6 is a convolution, as in DeepFace."""
    return "fc6.weight" in tensors and tensors["fc6.weight"].ndim == 4


def is_whole(tensors: Mapping[str, Array]) -> bool:
    """Whether the layers are exactly VGG's."""
    return _layers(tensors).keys() == set(_ALL)


def _layers(tensors: Mapping[str, Array]) -> dict[str, None]:
    """The names of the layers that tensors belong to, in order."""
    return dict.fromkeys(key.rpartition(".")[0] for key in tensors)


def _our_name(name: str) -> str:
    """Our name of a layer named as in VGG (any spelling) or torchvision (position); other names are kept."""
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
    """A weight or bias in our shape if its own is an equivalent notation; else unchanged.

    Args:
        array: the tensor, outputs first.
        shape: our shape.
        channels: number of channels of the feature map below fc6.
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
