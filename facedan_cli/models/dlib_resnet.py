"""dlib's face recognition network, a ResNet of 29 layers, whose batch normalisation is folded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (*3 * [(32, 1)], (64, 2), *3 * [(64, 1)], (128, 2), *2 * [(128, 1)], (256, 2), *2 * [(256, 1)], (256, 2))
"""Channels and stride of each residual block, from the image on."""


class Scale(nn.Module):
    """A scale and a shift for each channel, as batch normalisation after training (dlib's `affine_`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled and shifted features, shape (b, channels, h, w) as those that come in."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class _Block(nn.Module):
    """A residual block; dlib pads the terms of its sum with zeros to the larger channels, rows and columns."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        # dlib pads convolutions of stride 1 only.
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1 if stride == 1 else 0)
        self.scale1 = Scale(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale2 = Scale(width)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        residual = self.scale2(self.conv2(F.relu(self.scale1(self.conv1(x)))))
        shortcut = x if self.stride == 1 else F.avg_pool2d(x, self.stride)
        shape = [max(sizes) for sizes in zip(residual.shape, shortcut.shape, strict=True)]
        return F.relu(_extended(residual, shape) + _extended(shortcut, shape))


class DlibResNet(nn.Module):
    """dlib_face_recognition_resnet_model_v1's network; its features are compared by their Euclidean distance.

    There is no batch normalisation to even out random weights: each block starts as its shortcut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2)
        self.scale1 = Scale(32)
        widths = [32, *(width for width, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *(_Block(inputs, width, stride) for inputs, (width, stride) in zip(widths, BLOCKS, strict=False))
        )
        self.fc = nn.Linear(256, 128, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, _Block):
                nn.init.zeros_(module.scale2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, 128) of images, RGB less (122.782, 117.001, 104.298), by 256, shape (b, 3, 150, 150)."""
        x = F.max_pool2d(F.relu(self.scale1(self.conv1(x))), 3, stride=2)
        embeddings: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return embeddings


def _extended(x: Tensor, shape: list[int]) -> Tensor:
    """Features padded with zeros at the end to a shape (b, c, h, w)."""
    missing = [wanted - size for wanted, size in zip(shape, x.shape, strict=True)]
    return F.pad(x, (0, missing[3], 0, missing[2], 0, missing[1])) if any(missing) else x


def dlib_resnet() -> DlibResNet:
    """dlib's network, with 5.6 M parameters."""
    return DlibResNet()
