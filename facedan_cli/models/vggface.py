"""VGG-Face (Parkhi et al. 2015): VGG-16 whose two adapted layers, fc6 and fc7, are given by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.config.models import NETWORKS
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.dropout import BatchDropout
from facedan_cli.models.network import FaceNetwork


@dataclass(frozen=True)
class Spec:
    """The shape of a VGG-16 and the images it takes.

    Args:
        widths: channels of the five convolution blocks.
        hidden: units of fc6 and fc7.
        image_size: side of the aligned image from which crops are taken, pixels.
        crop: side of the crop that the network sees, pixels; a multiple of 32.
        mean: subtracted from R, G and B in 0-255.
        scale: divisor after the mean is subtracted.
        dropout: probability after fc6 and after fc7.
    """

    widths: tuple[int, int, int, int, int]
    hidden: int
    image_size: int
    crop: int
    mean: tuple[float, float, float] = (129.1863, 104.7624, 93.5940)
    scale: float = 1.0
    dropout: float = 0.5


CONVOLUTIONS_PER_BLOCK = (2, 2, 3, 3, 3)


class VGGFace(FaceNetwork):
    """VGG-16 with VGG-Face's names: conv1_1 … conv5_3, fc6, fc7; the classifier takes the place of fc8.

    Images are RGB in 0-255, of which it subtracts its own mean. Features are taken after ReLU and before dropout.

    Args:
        spec: widths and input.
        classes: identities of the source.
        head: settings of the classifier (`Classifier`).
    """

    layers = NETWORKS["vggface"].layers
    architecture = "vggface"
    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec, classes: int, **head: Any) -> None:
        super().__init__()
        self.spec = spec
        self.image_size, self.crop = spec.image_size, spec.crop
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(spec.scale), persistent=False)
        channels = 3
        for block, (width, depth) in enumerate(zip(spec.widths, CONVOLUTIONS_PER_BLOCK, strict=True), start=1):
            for index in range(1, depth + 1):
                self.add_module(f"conv{block}_{index}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.fc6 = nn.Linear(channels * (spec.crop // 32) ** 2, spec.hidden)
        self.dropout = BatchDropout(spec.dropout)
        self.fc7 = nn.Linear(spec.hidden, spec.hidden)
        self.apply(_he_initialise)
        self.classifier = Classifier(spec.hidden, classes, dropout=spec.dropout, **head)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features {"fc6": (b, hidden), "fc7": (b, hidden)} of images, shape (b, 3, crop, crop)."""
        x = (images.to(self.mean.dtype) - self.mean) / self.scale
        for block, depth in enumerate(CONVOLUTIONS_PER_BLOCK, start=1):
            for index in range(1, depth):
                x = F.relu(self.get_submodule(f"conv{block}_{index}")(x), inplace=True)
            # The ReLU of a maximum is the maximum of the ReLUs, at a quarter of the cost.
            x = F.relu(F.max_pool2d(self.get_submodule(f"conv{block}_{depth}")(x), 2), inplace=True)
        fc6 = F.relu(self.fc6(x.flatten(1)))
        fc7 = F.relu(self.fc7(self.dropout(fc6)))
        return {"fc6": fc6, "fc7": fc7}

    def convolutions(self) -> list[nn.Parameter]:
        """The parameters of conv1_1 … conv5_3."""
        return [parameter for name, parameter in self.named_parameters() if name.startswith("conv")]


def vggface(classes: int, *, image_size: int, crop: int, **head: Any) -> VGGFace:
    """VGG-Face itself: 145 million parameters and the classifier."""
    spec = Spec(widths=(64, 128, 256, 512, 512), hidden=4096, image_size=image_size, crop=crop)
    return VGGFace(spec, classes, **head)


def vggface_mini(classes: int, *, image_size: int, crop: int, **head: Any) -> VGGFace:
    """The same topology with an eighth to a quarter of the channels, which trains on a CPU.

    Inputs of unit variance suit He initialisation; VGG-Face's own weights want the plain 0-255 range.
    """
    widths = (8, 16, 32, 64, 128)
    spec = Spec(widths=widths, hidden=256, image_size=image_size, crop=crop, scale=64.0, dropout=0.0)
    return VGGFace(spec, classes, **head)


def _he_initialise(module: nn.Module) -> None:
    """Initialise as He et al. 2015; a deep ReLU network without batch normalisation needs it to start learning."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
