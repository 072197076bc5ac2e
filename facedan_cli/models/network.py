"""The interface of a face network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facedan_cli.errors import UsageError, did_you_mean
from facedan_cli.models.batch_norm import batch_norms, batch_statistics, has_batch_norm
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.input_normalisation import NORMALISATIONS
from facedan_cli.models.whitening import PREFIX, Whitening

WIDEST = 2048
"""Most features of a layer that is named by its path: wider maps are averaged over the image, wider rows refused."""


class _Seen(dict[str, Tensor]):
    """Features by layer. A type of its own: in place of a plain dictionary `torch.export` would leave another one."""


class FaceNetwork(nn.Module, ABC):
    """A network that gives the features of its layers by name. Preprocessing is part of it.

    Args:
        layers: the layers whose features it gives, in order; the classifier takes the last one's.
        image_size: side of the aligned image from which crops are taken, pixels.
        crop: side of the crop that the network sees, pixels.
        classifier: gives the scores of the source's identities.
        architecture: whose published weights it takes, a word of the rows of `models.pretrained.formats.FORMATS`; ""
            where it takes none but facedan's.
        frozen_statistics: whether batch normalisation uses its running mean and variance in training too.
        means_for_rows: whether a fresh classifier on a trained network starts from class means, if its head can.
        joint_statistics: whether it uses those of all rows of a batch, else those of its source rows.
        input_normalisation: what is done to images before all else; None of most networks.
        whitening: what `Embedder` does to the rows of the last layer; None of most networks. No training sees it.
    """

    layers: tuple[str, ...]
    image_size: int
    crop: int
    classifier: Classifier
    input_normalisation: nn.Module | None
    whitening: Whitening | None
    architecture: str = ""
    frozen_statistics: bool = False
    joint_statistics: bool = False
    means_for_rows: bool = False
    _below: tuple[nn.Module, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._seen = _Seen()
        self.input_normalisation = None
        self.whitening = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch normalisation that is frozen, by `frozen_statistics` or `train_from`, stays as it is."""
        super().train(mode)
        for module in self._below:
            if isinstance(module, _BatchNorm):
                module.eval()
        if self.frozen_statistics:
            for module in batch_norms(self).values():
                module.eval()
        return self

    def normalise_by(self, mode: str) -> None:
        """Set whose statistics batch normalisation uses in training: a value of --batch-norm."""
        self.frozen_statistics, self.joint_statistics = mode in ("frozen", "target"), mode == "joint"

    def normalise_input(self, kind: str) -> None:
        """Set what is done to images before all else: a value of --input-normalisation."""
        self.input_normalisation = None if kind == "none" else NORMALISATIONS[kind](self.crop)

    def batch_statistics(self, labelled: int, rows: int, *, follow: bool = True) -> AbstractContextManager[None]:
        """Whose statistics normalise a batch in training, as long as the context lasts.

        Args:
            labelled: how many rows are of the source; they come first.
            rows: of the batch.
            follow: whether the running statistics follow.
        """
        if self.frozen_statistics or not has_batch_norm(self):
            return nullcontext()
        return batch_statistics(rows if self.joint_statistics else labelled, rows, follow=follow)

    def train_from(self, path: str) -> None:
        """Train a module and what comes after it alone: the parameters of those before need no gradient.

        Args:
            path: of the module, as `paths` has it; the order is that in which modules are registered.

        Raises:
            UsageError: there is no such module.
        """
        modules = self.paths()
        if path not in modules:
            raise UsageError(f"there is no module '{path}' to train from", did_you_mean(path, modules))
        self._below = (getattr(self, "body", self), *(modules[name] for name in untrained(path, modules)))
        for module in self._below:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    @abstractmethod
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features of the network's own layers, each (b, length), of images as `forward` takes them.

        The normalisation of the input is done already.
        """

    @abstractmethod
    def convolutions(self) -> list[nn.Parameter]:
        """The parameters of all that lies below the fully connected layers."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by layer, each (b, length), of RGB images in 0-255, uint8 or float, (b, 3, crop, crop)."""
        return self._by_layer(self.features(self._input(images)))

    def _input(self, images: Tensor) -> Tensor:
        if self.input_normalisation is None:
            return images
        kind = images.device.type
        # In float32: an image's differences from its blur are lost in bfloat16.
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            normalised: Tensor = self.input_normalisation(images)
        return normalised

    def _by_layer(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of `layers`: of the network's own, and of those that hooks have seen meanwhile."""
        found = {**features, **self._seen}
        self._seen.clear()
        if missing := [layer for layer in self.layers if layer not in found]:
            raise UsageError(f"the layer '{missing[0]}' takes no part in the embedding", "name another layer")
        return {layer: found[layer] for layer in self.layers}

    def offer(self, layers: Iterable[str]) -> None:
        """Give the features of these layers too, before those that are given already.

        Args:
            layers: names, or dotted paths of modules as `paths` has them.

        Raises:
            UsageError: there is no such module.
        """
        modules = self.paths()
        new = [layer for layer in dict.fromkeys(layers) if layer not in self.layers]
        for path in new:
            if path not in modules:
                raise UsageError(f"there is no layer '{path}'", did_you_mean(path, (*self.layers, *modules)))
            modules[path].register_forward_hook(_Keep(path, self._seen))
        self.layers = (*new, *self.layers)

    def paths(self) -> dict[str, nn.Module]:
        """The modules whose features can be asked for, by dotted path."""
        root, ours = getattr(self, "body", self), ("classifier.", "input_normalisation.", PREFIX)
        return {
            path: module
            for path, module in root.named_modules()
            if path and module is not self.classifier and not f"{path}.".startswith(ours)
        }

    def scores(self, features: dict[str, Tensor]) -> Tensor:
        """Scores of the source's identities, shape (b, classes)."""
        scores: Tensor = self.classifier(features[self.layers[-1]])
        return scores


def untrained(path: str, modules: Iterable[str]) -> list[str]:
    """The modules before one, by dotted paths in the order of their registration."""
    return list(takewhile(lambda name: name != path, modules))


class _Keep:
    """A forward hook that keeps a module's features, (b, length).

    Args:
        path: of the module.
        seen: where they are kept until the network has computed.
    """

    def __init__(self, path: str, seen: _Seen) -> None:
        self.path = path
        self.seen = seen

    def __call__(self, module: nn.Module, given: object, output: object) -> None:
        """Keep the output: as it is, flattened, or averaged over the image or over tokens where it is too wide."""
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise UsageError(f"the layer '{self.path}' gives no features", "name another layer")
        x = output
        if x.shape[1:].numel() > WIDEST and x.dim() > 2:
            x = x.mean(1) if x.dim() == 3 else x.flatten(2).mean(2)
        x = x.flatten(1)
        if x.shape[1] > WIDEST:
            megabytes = x.shape[1] * 4 * 100_000 / 1e6
            raise UsageError(
                f"the layer '{self.path}' has {x.shape[1]:,} features, more than {WIDEST:,}: {megabytes:,.0f} MB for "
                "100,000 images",
                "name a layer after it",
            )
        self.seen[self.path] = x
