"""The interface of a face network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from facedan_cli.models.classifier import Classifier


class FaceNetwork(nn.Module, ABC):
    """A network that gives the features of its layers by name. Preprocessing is part of it.

    Args:
        layers: the layers that can be adapted, in order; the classifier takes the last one's features.
        image_size: side of the aligned image from which crops are taken, pixels.
        crop: side of the crop that the network sees, pixels.
        classifier: gives the scores of the source's identities.
        architecture: whose published weights it takes, a word of the rows of `models.pretrained.formats.FORMATS`; ""
            where it takes none but facedan's.
    """

    layers: tuple[str, ...]
    image_size: int
    crop: int
    classifier: Classifier
    architecture: str = ""

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by layer, each (b, length), of RGB images in 0-255, uint8 or float, (b, 3, crop, crop)."""

    @abstractmethod
    def convolutions(self) -> list[nn.Parameter]:
        """The parameters of all that lies below the fully connected layers."""

    def scores(self, features: dict[str, Tensor]) -> Tensor:
        """Scores of the source's identities, shape (b, classes)."""
        scores: Tensor = self.classifier(features[self.layers[-1]])
        return scores
