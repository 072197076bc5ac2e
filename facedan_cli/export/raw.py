"""A network with its preprocessing outside, as other programs' recognisers have it."""

from __future__ import annotations

from torch import Tensor

from facedan_cli.errors import UsageError
from facedan_cli.models.backbone import Backbone
from facedan_cli.models.embedder import Embedder, check_shape, has_values
from facedan_cli.models.network import FaceNetwork

_BRIGHTEST = 255.0


class RawEmbedder(Embedder):
    """The features of a publisher's network as its own graph gives them: normalised images in, rows of any length out.

    Args:
        network: the network, in evaluation mode.
        layer: the layer of the features, or the dotted path of a module.
        flip: whether those of the mirrored face are added.

    Raises:
        UsageError: the network does more with its images than (x − mean) / std.
    """

    network: Backbone

    def __init__(self, network: FaceNetwork, layer: str, *, flip: bool) -> None:
        if network.input_normalisation is not None:
            raise UsageError(
                "--raw means nothing for this network, which normalises light in its images before (x - mean) / std",
                "leave --raw out: the normalisation is then inside",
            )
        if not isinstance(network, Backbone) or network.image_size != network.crop:
            raise UsageError(
                f"--raw means nothing for this network: it takes crops of {network.crop} from {network.image_size} "
                "pixels, not whole images that are (x - mean) / std",
                "leave --raw out: the preprocessing is then inside",
            )
        super().__init__(network, layer, flip=flip)

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
        self.check(images)
        return self.summed(self.network.of_normalised, images)

    def check(self, images: Tensor) -> None:
        """Refuse what `forward` does not take.

        Raises:
            ValueError: as `forward`.
        """
        check_shape(images, self.sides)
        if not images.is_floating_point():
            raise ValueError(f"images must be normalised, and so floating-point, not {images.dtype}")
        if has_values(images) and not within(images, *self.limits):
            raise ValueError(f"normalised images, from {self.limits[0]:.3g} to {self.limits[1]:.3g}, are needed")


def within(images: Tensor, least: float, most: float) -> bool:
    """Whether normalised images keep to the range that pixels can have, but for rounding; TorchScript compiles it."""
    slack = 0.01 * (most - least)
    return float(images.min()) >= least - slack and float(images.max()) <= most + slack
