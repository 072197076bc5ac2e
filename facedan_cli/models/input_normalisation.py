"""What --input-normalisation does to images before a network sees them: CLAHE or a retinex.

Both are batched operations of torch on RGB images in 0-255, (b, 3, side, side), and give such images, so that the mean
and the deviation that a network was made for still suit. They are exported with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.json_files import parse_object
from facedan_cli.models.pretrained.state_dict import METADATA_KEY, open_safetensors

_LEVELS = 256
_LUMA, _LUMA_SUM = (9798.0, 19235.0, 3735.0), 32768.0
"""Weights of R, G and B in OpenCV's grey images (ITU-R BT.601), whole numbers: float32 sums of them are exact."""


class Retinex(nn.Module):
    """log(1 + x) less its Gaussian blur, in each channel: what the light adds varies slowly (Land 1986; Jobson 1997).

    The difference has mean 127.5 and deviation 48 in each image, and is clipped to 0-255.

    Args:
        side: of the images, pixels.
        sigma: of the Gaussian, as a share of the side.
    """

    _MIDDLE, _SPREAD = 127.5, 48.0
    blur: Tensor

    def __init__(self, side: int, sigma: float = 0.125) -> None:
        super().__init__()
        at = torch.arange(side, dtype=torch.float64)
        weights = torch.exp(-0.5 * ((at[:, None] - at) / (sigma * side)) ** 2)
        # A row for each pixel; at the edges the Gaussian is cut off, and its sum stays 1.
        self.register_buffer("blur", (weights / weights.sum(1, keepdim=True)).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0-255, float32, from images in 0-255, uint8 or float, (b, 3, side, side)."""
        x = torch.log1p(images.float())
        x = x - self.blur @ x @ self.blur.T
        x = x - x.mean((1, 2, 3), keepdim=True)
        deviation = x.square().mean((1, 2, 3), keepdim=True).sqrt()
        return (self._MIDDLE + self._SPREAD * x / deviation.clamp_min(1e-3)).clamp(0, 255)


class CLAHE(nn.Module):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of the lightness, as OpenCV computes it.

    The lightness is OpenCV's grey image; its change is added to R, G and B, so that colour differences stay.

    Args:
        side: of the images, pixels.
        tiles: a side.
        clip: most of a histogram's bin, as a multiple of the mean.
    """

    pixel_tile: Tensor
    corner: Tensor
    weight: Tensor
    luma: Tensor

    def __init__(self, side: int, tiles: int = 8, clip: float = 2.0) -> None:
        super().__init__()
        self.tiles = tiles
        self.border = 0 if side % tiles == 0 else tiles - side % tiles
        tile = (side + self.border) // tiles
        self.area = tile * tile
        self.limit = max(int(clip * self.area / _LEVELS), 1)
        of_row = torch.arange(side + self.border) // tile
        self._constant("pixel_tile", (of_row[:, None] * tiles + of_row).flatten())
        # A pixel's value is bilinear between the tables of the four tiles whose centres surround it.
        place = torch.arange(side) * (1 / tile) - 0.5
        first = place.floor()
        near, far = first.long().clamp_min(0), (first.long() + 1).clamp_max(tiles - 1)
        share = place - first
        ends = ((near, 1 - share), (far, share))
        self._constant("corner", torch.stack([(y[:, None] * tiles + x).flatten() for y, _ in ends for x, _ in ends]))
        self._constant("weight", torch.stack([(v[:, None] * u).flatten() for _, v in ends for _, u in ends]))
        self._constant("luma", torch.tensor(_LUMA).view(1, 3, 1, 1))

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0-255, float32, from images in 0-255, uint8 or float, (b, 3, side, side)."""
        x = images.float()
        grey = (((x * self.luma).sum(1, keepdim=True) + _LUMA_SUM / 2) / _LUMA_SUM).floor().clamp(0, _LEVELS - 1)
        return (x + self.equalised(grey) - grey).clamp(0, 255)

    def equalised(self, grey: Tensor) -> Tensor:
        """Grey images of whole numbers in 0-255, float32, (b, 1, side, side), equalised."""
        tables = self._tables(grey)
        levels = grey.long().flatten(2)  # (b, 1, pixels)
        at = self.corner * _LEVELS + levels  # (b, 4, pixels)
        found = tables.flatten(1).gather(1, at.flatten(1)).view(-1, *self.weight.shape)
        equalised: Tensor = (found * self.weight).sum(1).round().clamp(0, 255).view_as(grey)
        return equalised

    def _tables(self, grey: Tensor) -> Tensor:
        """The new level of each level, (b, tiles², 256)."""
        padded = F.pad(grey, (0, self.border, 0, self.border), mode="reflect") if self.border else grey
        bins = padded.long().flatten(1) + self.pixel_tile * _LEVELS
        empty = torch.zeros_like(padded[:, :1, :1, :1].flatten(1)).expand(-1, self.tiles**2 * _LEVELS)
        counts = empty.scatter_add(1, bins, torch.ones_like(padded).flatten(1)).view(-1, self.tiles**2, _LEVELS)
        kept = counts.clamp_max(self.limit)
        excess = (counts - kept).sum(2, keepdim=True)
        each = (excess / _LEVELS).floor()
        rest = excess - each * _LEVELS
        # OpenCV spreads what remains over every n-th level.
        step = (_LEVELS / rest.clamp_min(1)).floor()
        level = torch.arange(_LEVELS, device=grey.device)
        turn = (level / step).floor()
        more = (turn * step == level) & (turn < rest)
        tables: Tensor = ((kept + each + more).cumsum(2) * (255 / self.area)).round().clamp(0, 255)
        return tables


NORMALISATIONS: Mapping[str, Callable[[int], nn.Module]] = {"clahe": CLAHE, "retinex": Retinex}
"""The modules of --input-normalisation by its values, made for a side; `none` has none."""


def normalisation_of(config: Mapping[str, Any]) -> str:
    """--input-normalisation of a checkpoint, by the options in its card; "none" where it does not say."""
    return str(config.get("input_normalisation", "none"))


def normalisation_in(path: Path) -> str:
    """--input-normalisation of a file of weights: of a checkpoint or an export of facedan, else "none"."""
    try:
        with open_safetensors(path) as file:
            facts = parse_object((file.metadata() or {})[METADATA_KEY])
    except (SafetensorError, OSError, KeyError, ValueError):
        return "none"
    config = facts.get("config")
    found = normalisation_of(facts | (config if isinstance(config, dict) else {}))
    return found if found in NORMALISATIONS else "none"
