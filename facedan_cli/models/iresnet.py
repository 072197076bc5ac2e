"""The iresnets of InsightFace's arcface_torch, with the names of its state dicts."""

from __future__ import annotations

from torch import Tensor, nn

from facedan_cli.models.dropout import BatchDropout

_EMBEDDED = 512
_LAST_SIDE = 7  # of the last feature map, where the image has 112 pixels


class _Block(nn.Module):
    """A residual block without an activation behind the sum (Duta et al. 2020; ArcFace's "improved residual unit")."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _convolution(inputs, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = _convolution(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return residual + shortcut


class IResNet(nn.Module):
    """ArcFace's residual network (Deng et al. 2019), of which `blocks` are in the four stages.

    It has no dropout, as arcface_torch trains it; the module is there by name. The scale of the last batch
    normalisation is one and is not trained.

    Args:
        blocks: blocks in each of the four stages.
    """

    def __init__(self, *blocks: int) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        widths = (64, 64, 128, 256, 512)
        for stage, depth in enumerate(blocks, start=1):
            first = _Block(widths[stage - 1], widths[stage], stride=2)
            others = (_Block(widths[stage], widths[stage], stride=1) for _ in range(depth - 1))
            self.add_module(f"layer{stage}", nn.Sequential(first, *others))
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = BatchDropout(0.0)
        self.fc = nn.Linear(512 * _LAST_SIDE**2, _EMBEDDED)
        self.features = nn.BatchNorm1d(_EMBEDDED)
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, 512) of images, RGB in −1-1, shape (b, 3, 112, 112)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
        embeddings: Tensor = self.features(self.fc(self.dropout(self.bn2(x).flatten(1))))
        return embeddings


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def iresnet18() -> IResNet:
    """24.0 M parameters."""
    return IResNet(2, 2, 2, 2)


def iresnet34() -> IResNet:
    """34.1 M parameters."""
    return IResNet(3, 4, 6, 3)


def iresnet50() -> IResNet:
    """43.6 M parameters."""
    return IResNet(3, 4, 14, 3)


def iresnet100() -> IResNet:
    """65.2 M parameters."""
    return IResNet(3, 13, 30, 3)


def iresnet200() -> IResNet:
    """118.8 M parameters."""
    return IResNet(6, 26, 60, 6)
