from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn
from torch import Tensor

from facedan_cli.adaptation.restyle import LOW_FREQUENCIES, restyle
from facedan_cli.config.looks import RESTYLINGS


def images(seed: int, count: int = 3, height: int = 20, width: int = 24) -> Tensor:
    """Smooth random images of different contrast."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rough = rng.normal(128, rng.uniform(10, 90), (height, width, 3)).astype(np.float32)
        made.append(np.clip(cv2.GaussianBlur(rough, (0, 0), rng.uniform(0.3, 2)), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def by_channel(change: Callable[[np.ndarray, np.ndarray], np.ndarray], source: Tensor, target: Tensor) -> np.ndarray:
    """A change that a slow reference makes of channel after channel, as grey levels."""
    pairs = zip(source.flatten(0, 1).numpy(), target.flatten(0, 1).numpy(), strict=True)
    return np.clip(np.stack([change(a, b) for a, b in pairs]).reshape(source.shape), 0, 255)


def histogram(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    found = np.empty(source.shape)
    for level in np.unique(source):
        below = (source <= level).sum()
        found[source == level] = next(new for new in range(256) if (target <= new).sum() >= below)
    return found


def statistics(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return (source - source.mean()) / source.std() * target.std() + target.mean()


def amplitude(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """As the authors of FDA do it: the centre of the shifted spectrum is replaced."""
    spectrum, wanted = (np.fft.fftshift(np.fft.fft2(channel.astype(float))) for channel in (source, target))
    reach, (row, column) = int(min(source.shape) * LOW_FREQUENCIES), (side // 2 for side in source.shape)
    centre = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
    spectrum[centre] = np.abs(wanted[centre]) * np.exp(1j * np.angle(spectrum[centre]))
    return np.fft.ifft2(np.fft.ifftshift(spectrum)).real


@pytest.mark.parametrize("reference", [histogram, statistics, amplitude])
def test_each_kind_is_its_formula(reference: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    source, target = images(0), images(1)
    found = restyle(source, target, [reference.__name__])
    np.testing.assert_allclose(found.numpy(), by_channel(reference, source, target), atol=0.501)


def fine(grey: np.ndarray) -> float:
    """The share of the fine detail in the contrast of an image."""
    power = np.square(dctn(grey.astype(float), norm="ortho"))
    power[0, 0] = 0
    radius = np.hypot(*np.mgrid[: grey.shape[0], : grey.shape[1]] / grey.shape[0])
    return float(power[radius > 0.4].sum() / power.sum())


def test_resolution_is_that_of_the_target() -> None:
    """Reduced, or blurred; a sharper target changes nothing, and contrast plays no part."""
    rng = np.random.default_rng(0)
    rough = cv2.GaussianBlur(rng.normal(0, 300, (2, 64, 64)).transpose(1, 2, 0), (0, 0), 1.0)
    sharp = torch.from_numpy(np.clip(rough + 128, 0, 255).astype(np.uint8)).permute(2, 0, 1)[:, None].repeat(1, 3, 1, 1)
    source, other = sharp[:1], sharp[1:]
    plain = other[0, 0].numpy()
    small = cv2.resize(cv2.resize(plain, (20, 20), interpolation=cv2.INTER_AREA), (64, 64))
    for target in (small, cv2.GaussianBlur(plain, (0, 0), 2), cv2.GaussianBlur(plain, (0, 0), 2) // 4 + 90):
        found = restyle(source, torch.from_numpy(target).expand(1, 3, 64, 64), ["resolution"])[0, 0].numpy()
        assert fine(target) < fine(source[0, 0].numpy()) / 4
        assert fine(found) == pytest.approx(fine(target), rel=0.6, abs=0.003)
        assert abs(found.mean() - source[0].float().mean()) < 1
    blurred = torch.from_numpy(small).expand(1, 3, 64, 64)
    kept = restyle(blurred, other, ["resolution"])
    assert (kept.int() - blurred.int()).abs().float().mean() < 1.5


@given(seed=st.integers(0, 99), kinds=st.sets(st.sampled_from([*RESTYLINGS])), count=st.integers(0, 3))
def test_shape_and_type_are_kept_and_rows_are_independent(seed: int, kinds: set[str], count: int) -> None:
    source, target = images(seed, 3)[:count], images(seed + 1, 3)[:count]
    found = restyle(source, target, [*kinds])
    assert (found.shape, found.dtype) == (source.shape, torch.uint8)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for row in range(count):
        alone = restyle(source[row : row + 1], target[row : row + 1], [*kinds])
        assert (alone[0].int() - found[row].int()).abs().max() <= 1
    assert torch.equal(restyle(source, source, ["histogram"]), source)
    assert torch.equal(restyle(source, target, []), source)


@pytest.mark.parametrize("kind", RESTYLINGS)
def test_flat_images_stay_finite(kind: str) -> None:
    flat = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    for source, target in ((flat, images(0, 1, 16, 16)), (images(0, 1, 16, 16), flat), (flat, flat)):
        assert restyle(source, target, [kind]).float().mean() > 10


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown looks: colour"):
        restyle(images(0), images(1), ["colour"])
    with pytest.raises(ValueError, match="same size"):
        restyle(images(0), images(1)[:2], ["histogram"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_look() -> None:
    source, target = images(0), images(1)
    found = restyle(source.cuda(), target.cuda(), [*RESTYLINGS]).cpu()
    assert (found.int() - restyle(source, target, [*RESTYLINGS]).int()).abs().float().mean() < 0.1
