from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from facedan_cli.models import pcanet
from facedan_cli.models.frame import Frame
from facedan_cli.models.pcanet import PCANet, Spec

SMALL = Spec(
    frame=Frame(height=14, width=11, image_left_eye=(2, 4), image_right_eye=(8, 4)),
    patch=3,
    filters=(3, 4),
    block=(5, 4),
    dimensions=6,
)


def windows(count: int, spec: Spec = SMALL, *, seed: int = 0) -> Tensor:
    """Smooth enough that the components of their patches differ in variance."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, spec.frame.height, spec.frame.width, generator=generator)
    return (noise.cumsum(1) * 0.3 + noise.cumsum(2) * 0.2 + noise).mul(30).remainder(256).to(torch.uint8)


def slow_patches(image: np.ndarray, side: int) -> np.ndarray:
    """All patches without their means, one a column, row by row."""
    height, width = image.shape
    rows = [
        image[top : top + side, left : left + side].flatten()
        for top in range(height - side + 1)
        for left in range(width - side + 1)
    ]
    return np.array([row - row.mean() for row in rows]).T


def slow_answers(image: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The authors' way: pad with zeros, remove each patch's mean, project."""
    side = filters.shape[-1]
    patches = slow_patches(np.pad(image, side // 2), side)
    return (filters.reshape(len(filters), -1) @ patches).reshape(len(filters), *image.shape)


def slow_histograms(image: np.ndarray, first: np.ndarray, second: np.ndarray, spec: Spec) -> list[int]:
    counts: list[int] = []
    (height, width), (down, across) = spec.block, spec.step
    for plane in slow_answers(image, first):
        answers = slow_answers(plane, second)
        for top in range(0, image.shape[0] - height + 1, down):
            for left in range(0, image.shape[1] - width + 1, across):
                histogram = [0] * 2 ** len(second)
                for y in range(top, top + height):
                    for x in range(left, left + width):
                        histogram[sum(2**bit for bit in range(len(second)) if answers[bit, y, x] > 1e-6)] += 1
                counts += histogram
    return counts


def filters_of(images: Tensor, spec: Spec = SMALL) -> tuple[Tensor, Tensor]:
    first = pcanet.learn_filters([images.double()], spec.patch, spec.filters[0])
    maps = pcanet.apply_filters(images.double(), first).flatten(0, 1)
    return first, pcanet.learn_filters([maps], spec.patch, spec.filters[1])


@pytest.mark.parametrize(("side", "count"), [(3, 4), (5, 8), (3, 8)])
def test_filters_are_the_principal_components_of_explicit_patches(side: int, count: int) -> None:
    images = windows(5).double()
    filters = pcanet.learn_filters([images], side, count)
    assert (filters.shape, filters.dtype) == ((count, 1, side, side), torch.float64)
    patches = np.concatenate([slow_patches(image, side) for image in images.numpy()], axis=1)
    values, vectors = np.linalg.eigh(patches @ patches.T)
    expected = vectors[:, ::-1][:, :count].T
    found = filters.reshape(count, -1).numpy()
    signs = np.sign((found * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(found, signs * expected, atol=1e-8)
    np.testing.assert_allclose(found @ found.T, np.eye(count), atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)
    variances = ((found @ patches) ** 2).sum(1)
    np.testing.assert_allclose(variances, values[::-1][:count], rtol=1e-9)


def test_batches_add_up_to_the_same_filters() -> None:
    images = windows(7).double()
    whole = pcanet.learn_filters([images], 5, 8)
    parts = pcanet.learn_filters(images.split([1, 4, 2]), 5, 8)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)


def test_filters_keep_their_sign_where_rounding_could_turn_it() -> None:
    """Images and their mirrors: each filter is symmetric or its own negative, so that its largest entry has a twin."""
    images = windows(6).double()
    both = torch.cat([images, images.flip(2)])
    filters = pcanet.learn_filters([both], 5, 8)
    mirrored = filters.flip(3)
    symmetric = [torch.allclose(mirrored[i], filters[i], atol=1e-9) for i in range(8)]
    opposite = [torch.allclose(mirrored[i], -filters[i], atol=1e-9) for i in range(8)]
    assert all(a != b for a, b in zip(symmetric, opposite, strict=True))
    assert any(opposite)
    for order in (both.flip(0), both.flip(2), both * 3):
        torch.testing.assert_close(pcanet.learn_filters([order], 5, 8), filters, rtol=1e-8, atol=1e-8)


def test_no_more_filters_than_patches_have_components() -> None:
    with pytest.raises(ValueError, match="8 components"):
        pcanet.learn_filters([], 3, 9)


def test_answers_are_projections_of_patches_without_their_mean() -> None:
    images = windows(3)
    filters = pcanet.learn_filters([images.double()], 5, 6)
    found = pcanet.apply_filters(images.double(), filters)
    expected = [slow_answers(image, filters.numpy()) for image in images.double().numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])  # blocks of 5×4 every 5×4, 2×2 and 2×1 pixels
def test_histograms_are_those_of_loops(overlap: float) -> None:
    spec = replace(SMALL, overlap=overlap)
    images = windows(3)
    first, second = filters_of(images)
    found = pcanet.block_histograms(images, first, second, spec)
    assert found.shape == (3, spec.histogram_length)
    expected = [slow_histograms(image, first.numpy(), second.numpy(), spec) for image in images.double().numpy()]
    assert found.tolist() == expected
    histograms = found.view(-1, 2 ** spec.filters[1])
    assert bool((histograms.sum(1) == 5 * 4).all())
    assert torch.equal(pcanet.block_histograms(images[1:2], first, second, spec), found[1:2])


def test_the_published_shape_has_122_880_counts() -> None:
    assert Spec().step == (15, 15)
    assert Spec().histogram_length == 8 * 10 * 6 * 256


def test_a_flat_region_has_no_edges() -> None:
    """The sign of what rounding leaves of 0 could be anything: no bit is set."""
    spec = replace(SMALL, frame=replace(SMALL.frame, height=15, width=15), block=(5, 5))
    first, second = filters_of(windows(5))
    flat = torch.full((1, 15, 15), 201, dtype=torch.uint8)
    counts = pcanet.block_histograms(flat, first, second, spec).view(3, 3, 3, 16)
    middle = counts[:, 1, 1]  # beyond the reach of the zeros about the image
    assert middle.tolist() == [[25, *[0] * 15]] * 3
    assert not torch.equal(counts[:, 0, 0], middle)


def test_windows_of_another_size_are_refused() -> None:
    first, second = filters_of(windows(2))
    with pytest.raises(ValueError, match="windows of 14×11 are needed"):
        pcanet.block_histograms(windows(2).mT, first, second, SMALL)


@pytest.mark.parametrize("held", [1, 7, 1 << 16])
@pytest.mark.parametrize("dimensions", [3, 9, 100])
def test_whitened_rows_are_white_and_those_of_an_svd(
    dimensions: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcanet, "COUNTS_AT_ONCE", held)
    counts = torch.randint(0, 12, (10, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, projection = pcanet.learn_whitening(counts, dimensions)
    kept = min(dimensions, 9)  # ten rows span nine dimensions about their mean
    assert projection.shape == (kept, 40)
    white = (counts.float() - mean) @ projection.T
    torch.testing.assert_close(white.mean(0), torch.zeros(kept), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(kept), rtol=0, atol=1e-4)
    centred = counts.double().numpy() - counts.double().numpy().mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:kept]
    variances = (centred @ directions.T).var(0, ddof=1)
    signs = np.sign((projection.double().numpy() * directions).sum(1, keepdims=True))
    expected = signs * directions / np.sqrt(variances)[:, None]
    np.testing.assert_allclose(projection, expected, atol=1e-5 * np.abs(expected).max())


def test_whitening_keeps_no_more_dimensions_than_the_rows_span() -> None:
    three = torch.randint(0, 12, (3, 40), generator=torch.Generator().manual_seed(2))
    assert len(pcanet.learn_whitening(three.repeat(5, 1), 10)[1]) == 2
    with pytest.raises(ValueError, match="images that differ"):
        pcanet.learn_whitening(three[:1].repeat(5, 1), 10)


def test_a_fitted_network_is_its_parts_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcanet, "BATCH", 5)
    images, gallery, probes = windows(12), windows(9, seed=1), windows(4, seed=2)
    advanced: list[int] = []
    network = pcanet.fit(images, SMALL, gallery=gallery, advance=advanced.append)
    assert sum(advanced) == 2 * 12 + 9
    first, second = filters_of(images)
    torch.testing.assert_close((network.first, network.second), (first, second), rtol=1e-8, atol=1e-8)
    counts = [slow_histograms(i, first.numpy(), second.numpy(), SMALL) for i in gallery.double().numpy()]
    mean, projection = pcanet.learn_whitening(torch.tensor(counts), SMALL.dimensions)
    seen = torch.tensor([slow_histograms(i, first.numpy(), second.numpy(), SMALL) for i in probes.double().numpy()])
    expected = (seen - mean) @ projection.T
    torch.testing.assert_close(network(probes), expected, rtol=1e-4, atol=1e-4)
    white = pcanet.transform(network, gallery)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(6), rtol=0, atol=1e-4)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = windows(11)
    large = pcanet.fit(images, SMALL)
    whole = pcanet.transform(large, images)
    monkeypatch.setattr(pcanet, "BATCH", 2)
    for name, value in pcanet.fit(images, SMALL).state_dict().items():
        torch.testing.assert_close(value, large.state_dict()[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pcanet.transform(large, images), whole)


def test_a_network_lives_on_in_a_file(tmp_path: Path) -> None:
    images = windows(5)
    network = pcanet.fit(images, SMALL)
    assert network.spec == replace(SMALL, dimensions=4)  # five images span no more
    assert not list(network.parameters())
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = PCANet(network.spec)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(again(images), network(images))


def test_large_blocks_are_counted_in_full() -> None:
    """A block of 20×20 flat pixels has more of one code than a byte holds."""
    spec = replace(SMALL, frame=replace(SMALL.frame, height=20, width=20), block=(20, 20))
    images = windows(4, spec)
    images[0] = 90
    network = pcanet.fit(images, spec)
    first, second = network.first, network.second
    counts = pcanet.block_histograms(images, first, second, spec)
    assert counts.max() > 255
    torch.testing.assert_close(network.mean, counts.float().mean(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    images = windows(11)
    here, there = pcanet.fit(images, SMALL), pcanet.fit(images, SMALL, device="cuda")
    assert there.mean.is_cuda
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name].cpu(), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pcanet.transform(there, images), pcanet.transform(here, images), rtol=1e-3, atol=1e-3)
