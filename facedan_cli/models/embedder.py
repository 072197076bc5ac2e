"""The features that are compared: rows of length one, from aligned faces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.errors import UsageError
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.network import FaceNetwork

_BRIGHTEST = 255.0


class Embedder(nn.Module):
    """The features of `embed`: those of the centre crop, to which those of the mirrored crop may be added.

    Args:
        network: the network, in evaluation mode.
        layer: the layer of the features, or the dotted path of a module.
        flip: whether those of the mirrored face are added.
    """

    def __init__(self, network: FaceNetwork, layer: str, *, flip: bool) -> None:
        super().__init__()
        network.offer([layer])
        self.network = network
        self.layer = layer
        self.flip = flip

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        return self.network.image_size, self.network.image_size

    def forward(self, images: Tensor) -> Tensor:
        """Rows of length one, (b, d), from RGB images in 0-255, uint8 or float, (b, 3, image_size, image_size).

        Raises:
            ValueError: the images have another shape or type, or run from 0 to 1.
        """
        self._check(images)
        margin, side = (self.network.image_size - self.network.crop) // 2, self.network.crop
        crops = images[:, :, margin : margin + side, margin : margin + side]
        features = self.network(crops)[self.layer]
        if self.flip:
            features = features + self.network(crops.flip(3))[self.layer]
        return F.normalize(features.float())

    def _check(self, images: Tensor) -> None:
        _check_shape(images, self.sides)
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or floating-point, not {images.dtype}")
        if _has_values(images) and images.is_floating_point() and 0 < images.max() <= 1:
            raise ValueError("images from 0 to 255 are needed, not from 0 to 1")


class RawEmbedder(nn.Module):
    """The features of a publisher's network as its own graph gives them: normalised images in, rows of any length out.

    Args:
        network: the network, in evaluation mode.
        layer: the layer of the features, or the dotted path of a module.
        flip: whether those of the mirrored face are added.

    Raises:
        UsageError: the network does more with its images than (x − mean) / std.
    """

    def __init__(self, network: FaceNetwork, layer: str, *, flip: bool) -> None:
        super().__init__()
        if not isinstance(network, Backbone) or network.image_size != network.crop:
            raise UsageError(
                f"--raw means nothing for this network: it takes crops of {network.crop} from {network.image_size} "
                "pixels, not whole images that are (x - mean) / std",
                "leave --raw out: the preprocessing is then inside",
            )
        network.offer([layer])
        self.network = network
        self.layer = layer
        self.flip = flip

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        return self.network.crop, self.network.width

    @property
    def limits(self) -> tuple[float, float]:
        """What black and white are at most, when they are normalised."""
        mean, std = self.network.mean, self.network.std
        return float((-mean / std).min()), float(((_BRIGHTEST - mean) / std).max())

    def forward(self, images: Tensor) -> Tensor:
        """Features, (b, d), from RGB images that are (x − mean) / std, float, (b, 3, crop, width).

        Raises:
            ValueError: the images have another shape or type, or are not normalised.
        """
        self._check(images)
        features = self.network.of_normalised(images)[self.layer]
        if self.flip:
            features = features + self.network.of_normalised(images.flip(3))[self.layer]
        return features.float()

    def _check(self, images: Tensor) -> None:
        _check_shape(images, self.sides)
        if not images.is_floating_point():
            raise ValueError(f"images must be normalised, and so floating-point, not {images.dtype}")
        if _has_values(images) and not within(images, *self.limits):
            raise ValueError(f"normalised images, from {self.limits[0]:.3g} to {self.limits[1]:.3g}, are needed")


def within(images: Tensor, least: float, most: float) -> bool:
    """Whether normalised images keep to the range that pixels can have, but for rounding; TorchScript compiles it."""
    slack = 0.01 * (most - least)
    return float(images.min()) >= least - slack and float(images.max()) <= most + slack


def _check_shape(images: Tensor, sides: tuple[int, int]) -> None:
    height, width = sides
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise ValueError(f"images of shape (batch, 3, {height}, {width}) are needed, not {tuple(images.shape)}")


def _has_values(images: Tensor) -> bool:
    """Whether values can be looked at: a graph that is traced or exported knows nothing of them."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not traced and not torch.compiler.is_compiling() and len(images) > 0
