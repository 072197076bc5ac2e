"""Backbones of timm and torchvision, without the classifier of ImageNet; random weights."""

from __future__ import annotations

import torchvision
from torch import nn
from torchvision.models import get_model, list_models  # type: ignore[attr-defined]

from facedan_cli.config.preprocessing import parse_size
from facedan_cli.errors import FacedanError, did_you_mean


def timm_backbone(name: str, size: str) -> nn.Module:
    """A network of timm that gives its pooled features.

    Args:
        name: a name of `timm.list_models()`.
        size: size of the input, such as 112x112, for networks that need it, such as vision transformers.

    Raises:
        FacedanError: timm is not installed, or has no such network.
    """
    try:
        import timm
    except ImportError as error:
        raise FacedanError(f"timm:{name} needs timm", "pip install 'facedan[timm]'") from error
    if not timm.is_model(name.partition(".")[0]):
        raise FacedanError(f"timm has no network '{name}'", did_you_mean(name, timm.list_models()))
    try:
        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, img_size=parse_size(size))
    except TypeError:  # a network that takes any size
        made = timm.create_model(name, pretrained=False, num_classes=0)
    return made


def torchvision_backbone(name: str, size: str) -> nn.Module:
    """A classifier of torchvision whose last linear layer is taken out.

    Args:
        name: a name of `torchvision.models.list_models()`.
        size: size of the input, such as 112x112.

    Raises:
        FacedanError: there is no such network, or it is no classifier.
    """
    known = list_models(module=torchvision.models)
    if name not in known:
        raise FacedanError(f"torchvision has no classifier '{name}'", did_you_mean(name, known))
    side = parse_size(size)[0]
    made = get_model(name, weights=None, **({"image_size": side} if name.startswith("vit") else {}))
    linear = [path for path, module in made.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    parent, _, last = linear[-1].rpartition(".")
    setattr(made.get_submodule(parent), last, nn.Identity())
    return made
