"""The IR networks of AdaFace and CVLFace, with the names of their state dicts."""

from __future__ import annotations

from torch import Tensor, nn

from facedan_cli.models.dropout import BatchDropout

_EMBEDDED = 512
_LAST_SIDE = 7  # of the last feature map, where the image has 112 pixels
_DROPOUT = 0.4


class _Unit(nn.Module):
    """A residual block; where the width stays its shortcut only leaves out pixels."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != width:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res_layer(x)
        shortcut: Tensor = self.shortcut_layer(x)
        return residual + shortcut


class AdaFaceIR(nn.Module):
    """AdaFace's backbone (Kim et al. 2022) before its features are divided by their norm.

    Published AdaFace gives the unit feature and the norm, a measure of the image's quality that its head uses; this
    gives their product.

    Args:
        units: residual blocks in each of the four stages.
    """

    def __init__(self, *units: int) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        widths = (64, 64, 128, 256, 512)
        self.body = nn.Sequential(
            *(
                _Unit(widths[stage], widths[stage + 1], 2) if first else _Unit(widths[stage + 1], widths[stage + 1], 1)
                for stage, depth in enumerate(units)
                for first in (True, *(depth - 1) * (False,))
            )
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            BatchDropout(_DROPOUT),
            nn.Flatten(),
            nn.Linear(512 * _LAST_SIDE**2, _EMBEDDED),
            nn.BatchNorm1d(_EMBEDDED, affine=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, 512) of images, RGB in −1-1, shape (b, 3, 112, 112)."""
        embeddings: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return embeddings


def ir18() -> AdaFaceIR:
    """24.0 M parameters."""
    return AdaFaceIR(2, 2, 2, 2)


def ir34() -> AdaFaceIR:
    """34.1 M parameters."""
    return AdaFaceIR(3, 4, 6, 3)


def ir50() -> AdaFaceIR:
    """43.6 M parameters."""
    return AdaFaceIR(3, 4, 14, 3)


def ir101() -> AdaFaceIR:
    """65.2 M parameters."""
    return AdaFaceIR(3, 13, 30, 3)
