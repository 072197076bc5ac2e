"""The look of one image given to another: resolution, low frequencies, statistics and histogram of each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""

LOW_FREQUENCIES = 0.05
"""Half the side of the square of frequencies whose amplitudes are replaced, as a share of the image's side."""

BANDS, LOWEST_BANDS = 12, 3
"""Bands of the radial spectrum, and how many of them tell an image's contrast."""


@torch.no_grad()
def restyle(source: Tensor, target: Tensor, kinds: Sequence[str]) -> Tensor:
    """Source images in the looks of target images, row by row.

    Args:
        source: RGB, uint8, (b, 3, h, w), on any device.
        target: likewise, the same shape; row i gives its look to row i of the source.
        kinds: names of `config.looks.RESTYLINGS`; they act in the order of that table.

    Returns:
        uint8, (b, 3, h, w), channels last.

    Raises:
        ValueError: the shapes differ, or a kind is unknown.

    Example:
        >>> dark, bright = (torch.full((1, 3, 4, 4), level, dtype=torch.uint8) for level in (20, 200))
        >>> restyle(dark, bright, ["histogram"]).unique().tolist()
        [200]
    """
    if source.shape != target.shape:
        raise ValueError(f"as many target images of the same size are needed, not {target.shape} for {source.shape}")
    if unknown := set(kinds) - _KINDS.keys():
        raise ValueError(f"unknown looks: {', '.join(sorted(unknown))}")
    if not source.numel():
        return source
    images = source
    for kind, change in _KINDS.items():
        if kind in kinds:
            images = change(images, target)
    return as_bytes(images).contiguous(memory_format=torch.channels_last)


def as_bytes(images: Tensor) -> Tensor:
    """Images of grey levels, rounded and cut to 0-255, uint8."""
    return images if images.dtype == torch.uint8 else images.round().clamp(0, 255).to(torch.uint8)


def match_histogram(source: Tensor, target: Tensor) -> Tensor:
    """Each level of a channel becomes the lowest level up to which the target has at least as many pixels."""
    levels = as_bytes(source).flatten(2)
    below, wanted = (_histogram(rows).cumsum(-1) for rows in (levels, target.flatten(2)))
    table = torch.searchsorted(wanted, below).clamp(max=255).to(torch.uint8)
    return table.gather(-1, levels.long()).view(source.shape)


def _histogram(rows: Tensor) -> Tensor:
    """The number of pixels of each level, (b, c, 256), of levels (b, c, n)."""
    count, channels = rows.shape[:2]
    first = torch.arange(count * channels, device=rows.device).view(count, channels, 1) * 256
    found = torch.bincount((rows.long() + first).flatten(), minlength=count * channels * 256)
    return found.view(count, channels, 256)


def match_statistics(source: Tensor, target: Tensor) -> Tensor:
    """Each channel gets mean and standard deviation of the target's; a flat channel stays flat."""
    x = source.float()
    deviation, mean = torch.std_mean(x, (2, 3), correction=0, keepdim=True)
    wanted_deviation, wanted_mean = torch.std_mean(target.float(), (2, 3), correction=0, keepdim=True)
    return (x - mean) * (wanted_deviation / deviation.clamp(min=1e-3)) + wanted_mean


def match_amplitude(source: Tensor, target: Tensor) -> Tensor:
    """Low frequencies get the amplitudes of the target's and keep their phases (FDA, eq. 1 of Yang and Soatto 2020)."""
    height, width = source.shape[-2:]
    reach = max(1, int(min(height, width) * LOW_FREQUENCIES))
    spectrum, wanted = torch.fft.rfft2(source.float()), torch.fft.rfft2(target.float())
    rows = (torch.fft.fftfreq(height, 1 / height, device=source.device).abs() <= reach)[:, None]
    low = rows & (torch.arange(width // 2 + 1, device=source.device) <= reach)
    replaced = torch.where(low, torch.polar(wanted.abs(), spectrum.angle()), spectrum)
    found: Tensor = torch.fft.irfft2(replaced, s=(height, width))
    return found


def match_resolution(source: Tensor, target: Tensor) -> Tensor:
    """High frequencies are damped as far as the target's fall below the source's; none is raised.

    Spectra are those of the luminance by the discrete cosine transform, whose reflected edges add no frequencies of
    their own, averaged over rings, and relative to the lowest rings, so that contrast plays no part.
    """
    height, width = source.shape[-2:]
    x = source.float()
    vertical, horizontal = (_cosines(side).to(x.device) for side in (height, width))
    radius = torch.hypot(
        (torch.arange(height, device=x.device) / height)[:, None], torch.arange(width, device=x.device) / width
    )
    place = (radius * BANDS).clamp(max=BANDS - 1)
    spectrum = vertical @ x @ horizontal.T
    # The transform is linear: the luminance's own spectrum is that of the channels, weighted.
    own = _falls(_grey(spectrum), place.long())
    wanted = _falls(vertical @ _grey(target.float()) @ horizontal.T, place.long())
    gains = (wanted / own.clamp(min=1e-9)).sqrt().clamp(max=1)
    gains[:, :LOWEST_BANDS] = 1
    gains = gains.cummin(1).values
    # Between the middles of two rings the gain is interpolated.
    middle = (place - 0.5).clamp(0, BANDS - 1)
    ring = middle.long().clamp(max=BANDS - 2)
    gain: Tensor = torch.lerp(gains[:, ring], gains[:, ring + 1], middle - ring)
    damped: Tensor = vertical.T @ (spectrum * gain[:, None]) @ horizontal
    return damped


def _falls(spectrum: Tensor, ring: Tensor) -> Tensor:
    """The mean power in each ring relative to the lowest, (b, BANDS), of spectra (b, h, w)."""
    pixels = torch.bincount(ring.flatten(), minlength=BANDS).clamp(min=1)
    sums = torch.zeros(len(spectrum), BANDS, device=spectrum.device)
    power = sums.index_add_(1, ring.flatten(), spectrum.square().flatten(1)) / pixels
    # The mean grey level, of frequency 0, is no contrast.
    contrast = power[:, :LOWEST_BANDS].sum(1) - spectrum[:, 0, 0].square() / pixels[0]
    return power / contrast.clamp(min=1e-9)[:, None]


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE, device=images.device)
    return (images * weights[:, None, None]).sum(1)


@lru_cache(8)
def _cosines(side: int) -> Tensor:
    """The orthonormal matrix of the discrete cosine transform (DCT-II), (side, side)."""
    steps = torch.arange(side, dtype=torch.float64)
    rows: Tensor = torch.cos(torch.pi / side * torch.outer(steps, steps + 0.5)) * (2 / side) ** 0.5
    rows[0] /= 2**0.5
    return rows.float()


_KINDS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "resolution": match_resolution,
    "amplitude": match_amplitude,
    "statistics": match_statistics,
    "histogram": match_histogram,
}
