"""The features that are compared: rows of length one, from aligned faces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models.network import FaceNetwork


class Embedder(nn.Module):
    """The features of `embed`: those of the centre crop, to which those of the mirrored crop may be added.

    A whitening that the network holds is applied to those of its last layer, and to no others.

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
        self.whitens = network.whitening is not None and layer == network.layers[-1]

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        return self.network.image_size, self.network.image_size

    def forward(self, images: Tensor) -> Tensor:
        """Rows of length one, (b, d), from RGB images in 0-255, uint8 or float, (b, 3, image_size, image_size).

        Raises:
            ValueError: the images have another shape or type, or run from 0 to 1.
        """
        self.check(images)
        margin, side = (self.network.image_size - self.network.crop) // 2, self.network.crop
        crops = images[:, :, margin : margin + side, margin : margin + side]
        rows = F.normalize(self.summed(self.network, crops))
        return self.network.whitening(rows) if self.whitens and self.network.whitening is not None else rows

    def summed(self, network: Callable[[Tensor], dict[str, Tensor]], images: Tensor) -> Tensor:
        """The layer's features, float32, (b, d), with those of the mirrored images added where `flip` says so."""
        features = network(images)[self.layer]
        if self.flip:
            features = features + network(images.flip(3))[self.layer]
        return features.float()

    def check(self, images: Tensor) -> None:
        """Refuse what `forward` does not take.

        Raises:
            ValueError: as `forward`.
        """
        check_shape(images, self.sides)
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or floating-point, not {images.dtype}")
        if has_values(images) and images.is_floating_point() and 0 < images.max() <= 1:
            raise ValueError("images from 0 to 255 are needed, not from 0 to 1")


def check_shape(images: Tensor, sides: tuple[int, int]) -> None:
    """Refuse images that are not of shape (b, 3, height, width).

    Raises:
        ValueError: naming both shapes.
    """
    height, width = sides
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise ValueError(f"images of shape (batch, 3, {height}, {width}) are needed, not {tuple(images.shape)}")


def has_values(images: Tensor) -> bool:
    """Whether values can be looked at: a graph that is traced or exported knows nothing of them."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not traced and not torch.compiler.is_compiling() and len(images) > 0
