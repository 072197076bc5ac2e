"""Loading of published weights, in the formats of five frameworks (`formats.FORMATS`), into our networks.

Our networks take RGB; where a file's weights
expect BGR, the input channels of the first convolution are turned round once. Means stay those of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from facedan_cli.errors import FacedanError
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.pretrained.formats import STATE_DICT_READERS, network_of, read_weights
from facedan_cli.models.pretrained.layout import layout_of
from facedan_cli.models.pretrained.vggface_formats import Array
from facedan_cli.models.whitening import PREFIX, left_out
from facedan_cli.workspace import sha256_file

_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class PublicWeights:
    """The weights that a network was started from.

    Args:
        format: name of the recognised format.
        sha256: digest of the file.
        channels: order of the channels that the weights expect, "rgb" or "bgr".
        remarks: notes to the user.
        warnings: warnings to the user.
        layout: what is unusual in a state dict's file, as `layout_of` gives it.
    """

    format: str
    sha256: str
    channels: str
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    layout: Mapping[str, str] = field(default_factory=dict, compare=False)

    def record(self) -> dict[str, str]:
        """The entry of these weights in a checkpoint (`ModelCard.init`)."""
        return {"form": self.format, "sha256": self.sha256, "channels": self.channels, **self.layout}


def load_public_weights(path: Path, network: FaceNetwork, *, channels: str | None = None) -> PublicWeights:
    """Load published weights into a network; the classifier stays as it is, since identities differ.

    VGG-Face is read from .pth, .pt and .safetensors (vgg_face_dag, DeepFace, vgg-face.pytorch, PyVGGFace, torchvision,
    our own), VGG_FACE.t7, VGG_FACE.caffemodel, vgg-face.mat (MatConvNet) and Keras's .h5; FaceNet from state dicts of
    facenet-pytorch and our own; the networks of InsightFace's arcface_torch, AdaFace, CVLFace and foamliu from state
    dicts and checkpoints of trainings, such as Lightning's; dlib's from its .dat. No code in a file is run.

    Args:
        path: the file.
        network: the network; unchanged if the file does not fit.
        channels: order of channels that the weights expect, "rgb" or "bgr"; None: the usual one of the format.

    Raises:
        FacedanError: the file cannot be read, or its tensors do not fit the network; the message names them.
        ValueError: `channels` is neither.
    """
    if channels not in {None, *_ORDERS}:
        raise ValueError(f"channels must be one of {_ORDERS}, not {channels!r}")
    if not path.is_file():
        raise FacedanError(f"there are no weights at {path}", "check the path")
    found_as, found = read_weights(path, network)
    tensors = _fitting(path, network, found)
    order = channels or found_as.channels
    if order == "bgr":
        first = next(f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
        tensors[first] = tensors[first].flip(1)
    network.load_state_dict(tensors, strict=False)
    warnings = [found_as.warning] if found_as.warning else []
    if any(name.startswith(PREFIX) for name in found):
        warnings.append(left_out(str(path)))
    if not found_as.sure and channels is None:
        warnings.append(f"{path} does not say in which order its weights expect the channels: taken as {order.upper()}")
    remarks = (found_as.licence,) if found_as.licence else ()
    layout = layout_of(path, network) if found_as.reader in STATE_DICT_READERS else {}
    return PublicWeights(found_as.name, sha256_file(path), order, remarks, tuple(warnings), layout)


def _fitting(path: Path, network: FaceNetwork, found: Mapping[str, Array]) -> dict[str, Tensor]:
    """The tensors of a file for the network without its classifier."""
    ours = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    missing = sorted(key for key in ours.keys() - found.keys() if not key.endswith(".num_batches_tracked"))
    if missing:
        raise FacedanError(
            f"{path} does not fit: it lacks {_some(missing)} and has {_some(sorted(found))}",
            _mend(path, network) or "give weights of the network that --model names, in a format that is read",
        )
    modules = {_outermost(key) for key in ours} - {""}
    more = sorted(key for key in found.keys() - ours.keys() if _outermost(key) in modules)
    if more:  # a deeper network, which needs these layers
        raise FacedanError(
            f"{path} does not fit: it has {_some(more)} beside what the network has",
            _mend(path, network) or "choose the --model that these weights were made for",
        )
    wrong = [
        f"{key} {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in sorted(ours.items())
        if key in found and tuple(found[key].shape) != tuple(value.shape)
    ]
    if wrong:
        raise FacedanError(
            f"{path} does not fit: {_some(wrong)}",
            _mend(path, network) or "choose the --model that these weights were made for",
        )
    return {key: _tensor(found[key]).to(value.dtype) for key, value in ours.items() if key in found}


def _mend(path: Path, network: FaceNetwork) -> str:
    """What to do with weights of another network that is recognised; "" where none is."""
    try:
        name = network_of(path)
    except FacedanError:
        return ""
    return f"they are weights of {name}: give --model {name}" if name != network.architecture else ""


def _outermost(key: str) -> str:
    """The outermost module of a body that a tensor belongs to; "" for any other tensor, and for a count of batches."""
    body, *names = key.split(".")
    return names[0] if body == "body" and len(names) > 1 and names[-1] != "num_batches_tracked" else ""


def _tensor(array: Array) -> Tensor:
    # A copy of an array: those that lie in a file's bytes are read-only, and may be of another byte order.
    return array if isinstance(array, Tensor) else torch.tensor(array.astype(array.dtype.newbyteorder("=")))


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
