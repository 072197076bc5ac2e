"""The table of the formats of published weights, a row each.

A new format is a file with its reader and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedan_cli.errors import FacedanError
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.pretrained import vggface_formats
from facedan_cli.models.pretrained.backbone_formats import (
    ADAFACE,
    DLIB,
    IRESNET,
    MBF,
    MOBILEFACENET,
    Family,
    by_own_names,
)
from facedan_cli.models.pretrained.caffemodel import caffemodel_layers
from facedan_cli.models.pretrained.dlib_dat import dlib_tensors
from facedan_cli.models.pretrained.keras_h5 import keras_layers
from facedan_cli.models.pretrained.matconvnet import matconvnet_layers
from facedan_cli.models.pretrained.state_dict import is_ours, read_state_dict, read_tensors
from facedan_cli.models.pretrained.torch7 import torch7_layers
from facedan_cli.models.pretrained.vggface_formats import Array

Weights = Mapping[str, Array]
Layers = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """A format in which weights are published.

    Args:
        name: name of the format.
        architecture: networks published in this format (`FaceNetwork.architecture`); None: any.
        suffixes: suffixes of its files, in lower case; empty: all suffixes that no other row has.
        reader: reads the tensors of a file by their names; may raise any error on another file.
        recognises: whether tensors of the reader are in this format; the first matching row counts.
        network: gives the name of the network of such tensors, None for tensors of no network; no function if the
            format does not tell.
        as_ours: renames such tensors to our names, and reshapes them to our shapes where only the notation differs.
        channels: order of channels that such weights usually expect, "rgb" or "bgr".
        sure: whether no published weights in this format are known to expect the other order.
        licence: a note on the licence of weights published in this format; "" if unknown.
        warning: a note on what the user should check; "" without one.
    """

    name: str
    architecture: str | None = None
    suffixes: tuple[str, ...] = ()
    reader: Callable[[Path], Weights] = read_state_dict
    recognises: Callable[[Weights], bool] = lambda tensors: True
    network: Callable[[Weights], str | None] | None = None
    as_ours: Callable[[Weights, Any], dict[str, Array]] = lambda tensors, network: {**tensors}
    channels: str = "rgb"
    sure: bool = True
    licence: str = ""
    warning: str = ""


def _tensors_of(layers: Callable[[Path], Layers]) -> Callable[[Path], Weights]:
    """A reader of tensors, made from a reader of layers with a weight and a bias each."""

    def read(path: Path) -> Weights:
        pairs = layers(path).items()
        return {
            f"{name}.{kind}": array
            for name, pair in pairs
            for kind, array in zip(("weight", "bias"), pair, strict=True)
        }

    return read


_caffe = _tensors_of(lambda path: caffemodel_layers(path.read_bytes()))
_keras = _tensors_of(keras_layers)
_matconvnet = _tensors_of(matconvnet_layers)
_torch7 = _tensors_of(lambda path: torch7_layers(path.read_bytes()))

_VGG_LICENCE = "VGG-Face's published weights are licensed CC BY-NC 4.0: not for commercial use"


def _vggface(name: str, **facts: Any) -> WeightFormat:
    """A row for VGG-Face's weights, by default as a state dict."""
    usual = {
        "architecture": "vggface",
        "network": lambda tensors: "vggface",
        "as_ours": vggface_formats.by_name,
        "licence": _VGG_LICENCE,
    }
    return WeightFormat(name=name, **{**usual, **facts})


def _vggface_layers(name: str, reader: Callable[[Path], Weights], *suffixes: str, **facts: Any) -> WeightFormat:
    """A row for VGG-Face's weights in another framework's file of layers."""
    return _vggface(name, suffixes=suffixes, reader=reader, as_ours=vggface_formats.by_name_or_order, **facts)


def _backbone(name: str, family: Family, **facts: Any) -> WeightFormat:
    """A row for a family's weights, alone or in the checkpoint of a training."""
    usual = {
        "reader": read_tensors,
        "recognises": lambda tensors: family.wrapper(tensors) is not None,
        "network": family.network,
        "as_ours": family.as_ours,
    }
    return WeightFormat(name=name, **{**usual, **facts})


def _adaface(name: str, wrapper: str, **facts: Any) -> WeightFormat:
    """A row for AdaFace's weights whose names have a prefix that ends like this."""
    return _backbone(
        name,
        ADAFACE,
        recognises=lambda tensors: (found := ADAFACE.wrapper(tensors)) is not None and found.endswith(wrapper),
        **facts,
    )


_INSIGHTFACE_LICENCE = "InsightFace's published weights are for non-commercial research only"

STATE_DICT_READERS = frozenset({read_state_dict, read_tensors})

FACEDAN = WeightFormat(name="facedan")
"""The format that facedan writes, for any network."""

FORMATS: tuple[WeightFormat, ...] = (
    _vggface_layers("torch7", _torch7, ".t7", channels="bgr"),
    _vggface_layers("caffe", _caffe, ".caffemodel", channels="bgr"),
    _vggface_layers("matconvnet", _matconvnet, ".mat"),
    _vggface_layers("keras-vggface", _keras, ".h5", ".hdf5", recognises=vggface_formats.has_dense_fc7, channels="bgr"),
    _vggface_layers("keras", _keras, ".h5", ".hdf5", channels="bgr", sure=False),  # DeepFace's among others
    _vggface("facedan", recognises=lambda tensors: "classifier.weight" in tensors, network=None, licence=""),
    _vggface(
        "torchvision",
        recognises=vggface_formats.is_torchvision,
        licence="",
        warning="its inputs must be RGB in 0-255 less VGG-Face's mean; ImageNet's weights expect others",
    ),
    # Converted from VGG_FACE.t7, as PyVGGFace's.
    _vggface("vgg-face.pytorch", recognises=vggface_formats.is_underscored, channels="bgr"),
    _vggface("deepface", recognises=vggface_formats.has_convolutional_fc6, channels="bgr", sure=False),
    _vggface("vgg_face_dag", recognises=vggface_formats.is_whole),
    _vggface("names of vgg_face_dag", network=None, sure=False),
    WeightFormat(
        name="facenet-pytorch",
        architecture="facenet",
        recognises=lambda tensors: not any(name.startswith("body.") for name in tensors),
        network=lambda tensors: "facenet" if "conv2d_1a.conv.weight" in tensors else None,
        as_ours=lambda tensors, network: {f"body.{name}": value for name, value in tensors.items()},
    ),
    _backbone("arcface_torch", IRESNET, licence=_INSIGHTFACE_LICENCE),
    _backbone("arcface_torch's mbf", MBF, licence=_INSIGHTFACE_LICENCE),
    _backbone("foamliu's MobileFaceNet", MOBILEFACENET),
    _adaface("cvlface", "net."),
    _adaface("adaface", "model.", channels="bgr"),
    _adaface("names of adaface", "", channels="bgr", sure=False),
    _backbone("dlib", DLIB, suffixes=(".dat",), reader=lambda path: dlib_tensors(path.read_bytes())),
    WeightFormat(
        name="names of the network",
        reader=read_tensors,
        recognises=lambda tensors: not all(name.startswith(("body.", "classifier.")) for name in tensors),
        as_ours=by_own_names,
    ),
    FACEDAN,
)
"""The formats; the first that recognises a file's tensors counts."""


def read_weights(path: Path, network: FaceNetwork) -> tuple[WeightFormat, dict[str, Array]]:
    """The format of a file, and its tensors by the network's names and in its shapes as far as possible.

    Raises:
        FacedanError: the file cannot be read, or is in none of the formats of this network.
    """
    tensors: dict[Callable[[Path], Weights], Weights] = {}
    for row in _of_suffix(path, [row for row in FORMATS if row.architecture in (None, network.architecture)]):
        if row.reader not in tensors:
            tensors[row.reader] = _read(path, row)
        found = tensors[row.reader]
        if row.reader in STATE_DICT_READERS and is_ours(path):
            return FACEDAN, {**found}
        if row.recognises(found):
            return row, row.as_ours(found, network)
    raise FacedanError(f"{path} is in no format that is read for this network", "see docs/training.md for the formats")


def _of_suffix(path: Path, rows: list[WeightFormat]) -> list[WeightFormat]:
    """The rows that name a file's suffix; else those that name none."""
    return [row for row in rows if path.suffix.lower() in row.suffixes] or [row for row in rows if not row.suffixes]


def _read(path: Path, row: WeightFormat) -> Weights:
    try:
        return row.reader(path)
    except FacedanError:
        raise
    except Exception as error:  # scipy and h5py raise errors of every type on damaged files
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise FacedanError(
            f"{path} cannot be read as weights of {row.name}{reason}", "fetch the file again, or give another format"
        ) from error


def network_of(path: Path) -> str:
    """The name of the network whose published weights a file holds, by its suffix or by names and shapes of tensors.

    Raises:
        FacedanError: it cannot be read, or is of no network that is recognised.
    """
    tensors: dict[Callable[[Path], Weights], Weights] = {}
    refused: dict[Callable[[Path], Weights], FacedanError] = {}
    for row in _of_suffix(path, [row for row in FORMATS if row.network is not None]):
        if row.reader not in {*tensors, *refused}:
            try:
                tensors[row.reader] = _read(path, row)
            except FacedanError as error:  # a checkpoint of a training is no state dict, but has readers of its own
                refused[row.reader] = error
        found = tensors.get(row.reader, {})
        if found and row.recognises(found) and row.network is not None and (name := row.network(found)):
            return name
    if not tensors:
        raise next(iter(refused.values()))
    raise FacedanError(
        f"{path} holds no weights of a network that is recognised", "see `facedan models`, and docs/training.md"
    )
