"""Any module that embeds faces, as a face network: its preprocessing, the features of its layers, and a classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facedan_cli.config.models import EMBEDDING, NetworkEntry
from facedan_cli.config.preprocessing import Channels
from facedan_cli.errors import FacedanError
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.network import FaceNetwork


class Backbone(FaceNetwork):
    """A body that knows nothing of facedan, from normalised images to embeddings, made a `FaceNetwork`.

    Images are RGB in 0-255; the body gets (x − mean) / std in its own order of channels, and of an input that is not
    square the middle columns. The embedding is as the body gives it, before any L2 normalisation.

    Args:
        body: gives embeddings, shape (b, d); the first of them where it gives several tensors, as AdaFace's does.
        name: of the network, which says whose published weights it takes.
        entry: its row.
        classes: identities of the source.
        head: settings of the classifier (`Classifier`).

    Raises:
        FacedanError: the body gives something else for images of this size.
    """

    means_for_rows = True
    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, name: str, entry: NetworkEntry, classes: int, **head: Any) -> None:
        super().__init__()
        self.layers = (EMBEDDING,)
        self.architecture = name
        self.image_size, self.crop, self.width = entry.image_size, entry.crop, entry.width or entry.crop
        self.flipped = entry.channels == "bgr"
        self.top = entry.top
        self.body = body
        self.register_buffer("mean", torch.tensor(self._rgb(entry.mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self._rgb(entry.std)).view(1, 3, 1, 1), persistent=False)
        self.classifier = Classifier(entry.length or self._length(), classes, **head)
        self.offer(entry.layers)

    def _rgb(self, values: Channels) -> Channels:
        """Values in the body's order of channels, as R, G and B."""
        return values[::-1] if self.flipped else values

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features {"embedding": (b, d)} of images, shape (b, 3, crop, crop)."""
        if self.width < self.crop:
            left = (self.crop - self.width) // 2
            images = images[..., left : left + self.width]
        return self._embedded((images.to(self.mean.dtype) - self.mean) / self.std)

    def of_normalised(self, images: Tensor) -> dict[str, Tensor]:
        """Features by layer of RGB images that are (x − mean) / std already, shape (b, 3, crop, width)."""
        return self._by_layer(self._embedded(images))

    def _embedded(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x.flip(1) if self.flipped else x)
        return {EMBEDDING: found[0] if isinstance(found, tuple | list) else found}

    def convolutions(self) -> list[nn.Parameter]:
        """The parameters below the layers that give the embedding."""
        names = self.top or [
            name for name, module in self.body.named_modules() if isinstance(module, nn.Linear | nn.BatchNorm1d)
        ]
        above = {id(one) for name in names for one in self.body.get_submodule(name).parameters()}
        return [one for one in self.body.parameters() if id(one) not in above]

    @torch.no_grad()
    def _length(self) -> int:
        """Length of the embedding of a black image."""
        was_training = self.body.training
        self.body.eval()
        height = self.crop
        try:
            found = self.features(torch.zeros(1, 3, height, height, device=self.mean.device))[EMBEDDING]
        except Exception as error:  # a body may raise anything
            raise FacedanError(
                f"{self.architecture} cannot take images of {height}x{self.width}: {error}",
                "give --input HEIGHTxWIDTH as it was made for",
            ) from error
        self.body.train(was_training)
        if not isinstance(found, Tensor) or found.dim() != 2:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise FacedanError(
                f"{self.architecture} gives no embeddings of shape (batch, length), but {got}",
                "let the function return a module that gives one row an image",
            )
        return found.shape[1]
