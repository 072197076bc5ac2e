"""FaceNet: facenet-pytorch's InceptionResnetV1, with its pooled and its embedding features given by name."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1, get_torch_home, load_weights
from torch import Tensor, nn

from facedan_cli.config.models import NETWORKS
from facedan_cli.errors import FacedanError
from facedan_cli.models.classifier import Classifier
from facedan_cli.models.dropout import BatchDropout
from facedan_cli.models.network import FaceNetwork

EMBEDDED = 512
_TRUNK = (
    "conv2d_1a",
    "conv2d_2a",
    "conv2d_2b",
    "maxpool_3a",
    "conv2d_3b",
    "conv2d_4a",
    "conv2d_4b",
    "repeat_1",
    "mixed_6a",
    "repeat_2",
    "mixed_7a",
    "repeat_3",
    "block8",
    "avgpool_1a",
)
_TOP = ("dropout", "last_linear", "last_bn")
_DROPOUT = 0.6  # as the published weights were trained

RELEASES = NETWORKS["facenet"].releases
"""The published weights by the set that they were trained on."""


class Facenet(FaceNetwork):
    """InceptionResnetV1 (Szegedy et al. 2016; Schroff et al. 2015) as facenet-pytorch publishes it.

    Features are "pool", after the average pooling and before dropout, and "embedding", after the last batch
    normalisation and before the L2 normalisation, which a comparison by cosine does anyway. The classifier takes the
    embedding, as in the training of the published weights.

    Images are RGB in 0-255, scaled to (x − 127.5)/128. FaceNet was trained on crops of 160 from 182 pixels, in which a
    face fills most of the image, the eyes some 60 pixels apart. Of the templates of `align`, `arcface`
    comes near to that (57 pixels); the others leave the face smaller.

    Batch normalisation uses its running mean and variance in training too; its scales and shifts are learnt. So an
    image's features do not depend on what else is in the batch: source and target go through one function, which is
    also the one that is tested; the distance between them is not hidden by statistics of the mixture nor by each
    having its own; and a batch divided over processes or passes gives what one pass would. The statistics stay those
    of the published weights (of none, where it starts from random ones: then nothing is normalised). Adapting the
    statistics alone is another method (AdaBN, Li et al. 2017).

    Args:
        classes: identities of the source.
        image_size: side of the aligned image from which crops are taken, pixels.
        crop: side of the crop, pixels.
        head: of the classifier, as `Classifier` takes them.
    """

    layers = NETWORKS["facenet"].layers
    architecture = "facenet"
    frozen_statistics = True

    def __init__(self, classes: int, *, image_size: int = 182, crop: int = 160, **head: Any) -> None:
        super().__init__()
        self.image_size, self.crop = image_size, crop
        self.body: nn.Module = InceptionResnetV1()  # type: ignore[no-untyped-call]
        self.body.add_module("dropout", BatchDropout(_DROPOUT))
        self.body.apply(_he_initialise)
        self.classifier = Classifier(EMBEDDED, classes, **head)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features {"pool": (b, 1792), "embedding": (b, 512)} of images, shape (b, 3, 160, 160)."""
        x = (images.to(self.body.get_parameter("last_linear.weight").dtype) - 127.5) / 128
        for stage in _TRUNK:
            x = self.body.get_submodule(stage)(x)
        pool = x = x.flatten(1)
        for stage in _TOP:
            x = self.body.get_submodule(stage)(x)
        return {"pool": pool, "embedding": x}

    def convolutions(self) -> list[nn.Parameter]:
        """The parameters below the average pooling, with those of batch normalisation."""
        return [parameter for stage in _TRUNK for parameter in self.body.get_submodule(stage).parameters()]


def release_file(name: str) -> Path:
    """Where facenet-pytorch keeps published weights in torch's cache; the file need not be there yet."""
    return Path(get_torch_home()) / "checkpoints" / RELEASES[name].file_name  # type: ignore[no-untyped-call]


def fetch_release(name: str) -> Path:
    """The file of published weights; the library's own loader downloads it where it is not in torch's cache.

    Args:
        name: a key of `RELEASES`.

    Raises:
        FacedanError: it cannot be downloaded; the message says which file to put where.
    """
    path = release_file(name)
    if path.exists():
        return path
    loaded: nn.Module = InceptionResnetV1()  # type: ignore[no-untyped-call]
    loaded.logits = nn.Linear(EMBEDDED, RELEASES[name].identities)
    fix = f"put {path.name} of facenet-pytorch's release v2.2.9 into {path.parent}, or give --init its path"
    try:
        with redirect_stderr(io.StringIO()):  # its progress bar
            load_weights(loaded, name)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise FacedanError(f"the weights '{name}' of facenet-pytorch cannot be downloaded: {error}", fix) from error
    except Exception as error:  # torch.load raises errors of every type on what is no state dict
        path.unlink(missing_ok=True)
        raise FacedanError(f"what was downloaded as the weights '{name}' is not theirs", fix) from error
    return path


def _he_initialise(module: nn.Module) -> None:
    """He et al. 2015: batch normalisation by running statistics does not even out random weights."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
