"""MobileFaceNet (Chen et al. 2018) in two published forms, with the names of their state dicts.

`mobilefacenet` is foamliu's, `mbf` that of InsightFace's arcface_torch, which is wider. Both see (b, 3, 112, 112).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Table 1 of the paper: expansion, channels, blocks, and stride of the first of them."""


def _normalised(
    inputs: int,
    outputs: int,
    side: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    padding: int | None = None,
    activation: Callable[[int], nn.Module] | None = None,
) -> list[nn.Module]:
    """A convolution without bias, its batch normalisation and, where there is one, its activation."""
    inside = side // 2 if padding is None else padding
    convolution = nn.Conv2d(inputs, outputs, side, stride, inside, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), *([activation(outputs)] if activation else [])]


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# foamliu's


def _relu6(_: int) -> nn.Module:
    return nn.ReLU6()


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv = nn.Sequential(
            nn.Sequential(*_normalised(inputs, inner, activation=_relu6)),
            nn.Sequential(*_normalised(inner, inner, 3, stride, groups=inner, activation=_relu6)),
            *_normalised(inner, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class _Separable(nn.Module):
    """A depthwise and a pointwise convolution with ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn2(self.pointwise(self.relu(self.bn1(self.depthwise(x))))))
        return out


class _GlobalDepthwise(nn.Module):
    """A filter of the size of the feature map for each channel."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, side, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.depthwise(x))
        return out


class MobileFaceNet(nn.Module):
    """foamliu/MobileFaceNet: 128 features, ReLU6 in place of the paper's PReLU, a pointwise convolution more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_normalised(3, 64, 3, 2, activation=_relu6))
        self.dw_conv = _Separable(64)
        blocks, inputs = [], 64
        for expansion, outputs, depth, stride in _BOTTLENECKS:
            for step in (stride, *(depth - 1) * (1,)):
                blocks.append(_Bottleneck(inputs, outputs, step, expansion))
                inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = nn.Sequential(*_normalised(inputs, 512, activation=_relu6))
        self.gdconv = _GlobalDepthwise(512, 7)
        self.conv3 = nn.Conv2d(512, 128, 1)
        self.bn = nn.BatchNorm2d(128)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, 128) of images, RGB less ImageNet's mean by its deviation, shape (b, 3, 112, 112)."""
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        embeddings: Tensor = self.bn(self.conv3(self.gdconv(x))).flatten(1)
        return embeddings


# InsightFace's


class _Layers(nn.Module):
    """Modules in order, by the name `layers`; their input is added where `residual`."""

    def __init__(self, *modules: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*modules)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


def _depthwise(inputs: int, outputs: int, inner: int, stride: int, *, residual: bool = False) -> _Layers:
    return _Layers(
        _Layers(*_normalised(inputs, inner, activation=nn.PReLU)),
        _Layers(*_normalised(inner, inner, 3, stride, groups=inner, activation=nn.PReLU)),
        _Layers(*_normalised(inner, outputs)),
        residual=residual,
    )


def _residuals(channels: int, blocks: int, inner: int) -> _Layers:
    return _Layers(*(_depthwise(channels, channels, inner, 1, residual=True) for _ in range(blocks)))


class MBF(nn.Module):
    """arcface_torch's `mbf`: channels twice the paper's, 512 features.

    Groups of the second layer and widths inside of the bottlenecks are not doubled there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _Layers(*_normalised(3, 128, 3, 2, activation=nn.PReLU)),
                _Layers(*_normalised(128, 128, 3, groups=64, activation=nn.PReLU)),
                _depthwise(128, 128, 128, 2),
                _residuals(128, 4, 128),
                _depthwise(128, 256, 256, 2),
                _residuals(256, 6, 256),
                _depthwise(256, 256, 512, 2),
                _residuals(256, 2, 256),
            ]
        )
        self.conv_sep = _Layers(*_normalised(256, 512, activation=nn.PReLU))
        self.features = _Layers(
            _Layers(*_normalised(512, 512, 7, groups=512, padding=0)),
            nn.Flatten(),
            nn.Linear(512, 512, bias=False),
            nn.BatchNorm1d(512),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, 512) of images, RGB in −1-1, shape (b, 3, 112, 112)."""
        for layer in self.layers:
            x = layer(x)
        embeddings: Tensor = self.features(self.conv_sep(x))
        return embeddings


def mobilefacenet() -> MobileFaceNet:
    """1.0 M parameters."""
    return MobileFaceNet()


def mbf() -> MBF:
    """2.1 M parameters."""
    return MBF()
