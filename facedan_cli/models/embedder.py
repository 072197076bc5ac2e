"""From aligned faces to what is compared: rows of length one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models.network import FaceNetwork


class Embedder(nn.Module):
    """What `embed` does with an aligned face: the centre crop through the network, the mirrored one's features added.

    Args:
        network: in evaluation mode.
        layer: whose features are given.
        flip: whether those of the mirrored face are added.
    """

    def __init__(self, network: FaceNetwork, layer: str, *, flip: bool) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """Rows of length one, (b, d), of RGB pictures in 0-255, uint8 or float, (b, 3, image_size, image_size)."""
        margin, side = (self.network.image_size - self.network.crop) // 2, self.network.crop
        crops = images[:, :, margin : margin + side, margin : margin + side]
        features = self.network(crops)[self.layer]
        if self.flip:
            features = features + self.network(crops.flip(3))[self.layer]
        return F.normalize(features.float())
