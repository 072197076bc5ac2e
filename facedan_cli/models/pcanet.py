"""PCANet (Chan et al. 2015): two stages of PCA filters, binary hashing, histograms of blocks, whitening PCA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.models.frame import Frame

FRAME = Frame(height=150, width=90, image_left_eye=(17, 55), image_right_eye=(73, 55))
"""Chan et al. give the size for FERET. The places of the eyes are ours: from the forehead to the chin, and within the
square that `align` makes, whichever its template."""

HASH_THRESHOLD = 1e-6
"""Grey levels. A flat region answers 0, of which rounding leaves about 1e-12 of either sign: that is no edge."""

BATCH = 16
"""Images that are filtered at once."""

COUNTS_AT_ONCE = 1 << 16
"""Columns of the histograms that are held in float32. Of 256 histograms of 15×15 whole numbers the sums of products
stay below 2^24: exact in float32, on every device."""


@dataclass(frozen=True)
class Spec:
    """The shape of a PCANet; the defaults are those of Chan et al. for FERET.

    Args:
        frame: the window of a face that it sees.
        patch: side of the filters, pixels, odd.
        filters: number of filters of the first and of the second stage.
        block: height and width of the blocks whose histograms are taken, pixels.
        overlap: share of a block's sides that it has in common with the next, from 0 up, below 1.
        dimensions: length of the features after whitening, at most.
    """

    frame: Frame = FRAME
    patch: int = 5
    filters: tuple[int, int] = (8, 8)
    block: tuple[int, int] = (15, 15)
    overlap: float = 0.0
    dimensions: int = 1000

    @property
    def step(self) -> tuple[int, int]:
        """The distance between blocks, pixels."""
        height, width = (max(1, round((1 - self.overlap) * side)) for side in self.block)
        return height, width

    @property
    def histogram_length(self) -> int:
        """The number of counts of a face: maps of the first stage × blocks × codes of the second."""
        sides = zip((self.frame.height, self.frame.width), self.block, self.step, strict=True)
        down, across = ((side - block) // step + 1 for side, block, step in sides)
        return (self.filters[0] * down * across) << self.filters[1]


class PCANet(nn.Module):
    """A PCANet, learnt by `fit`; its state is its buffers."""

    first: Tensor
    second: Tensor
    mean: Tensor
    projection: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        for name, count in zip(("first", "second"), spec.filters, strict=True):
            self.register_buffer(name, torch.zeros(count, 1, spec.patch, spec.patch, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(spec.histogram_length))
        self.register_buffer("projection", torch.zeros(spec.dimensions, spec.histogram_length))

    def forward(self, images: Tensor) -> Tensor:
        """Whitened features, which are compared by cosine.

        Args:
            images: grey windows, uint8, shape (n, height, width), as `spec.frame` cuts them.

        Returns:
            Shape (n, spec.dimensions), float32, not normalised.
        """
        counts = block_histograms(images, self.first, self.second, self.spec)
        return (counts.float() - self.mean) @ self.projection.T


@torch.no_grad()
def fit(
    images: Tensor,
    spec: Spec,
    *,
    gallery: Tensor | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> PCANet:
    """Learn a PCANet from images without labels.

    Args:
        images: grey windows, uint8, shape (n, height, width), from which the filters are learnt. Some thousand are
            enough: the authors take at most 5000.
        spec: its shape.
        gallery: grey windows, shape (m, height, width), from which the whitening is learnt; the same by default.
            Chan et al. take FERET's gallery, which a protocol forbids whose scores may depend on two images only.
        device: device of the computation and of the network.
        advance: called after each batch with the number of its images: in all, 2·n + m.

    Returns:
        The network. Its `spec.dimensions` are fewer than asked for where the gallery does not span as many.

    Raises:
        ValueError: the shapes do not fit the spec, or the gallery's images are all alike.
    """
    gallery = images if gallery is None else gallery

    def batches(windows: Tensor) -> Iterator[Tensor]:
        for part in torch.split(windows, BATCH):
            yield part.to(device)
            advance(len(part))

    first = learn_filters((part.double() for part in batches(images)), spec.patch, spec.filters[0]).to(device)
    maps = (apply_filters(part.double(), first).flatten(0, 1) for part in batches(images))
    second = learn_filters(maps, spec.patch, spec.filters[1]).to(device)
    kept_as = torch.uint8 if spec.block[0] * spec.block[1] < 256 else torch.int32
    counts = torch.cat([block_histograms(part, first, second, spec).to("cpu", kept_as) for part in batches(gallery)])
    mean, projection = learn_whitening(counts, spec.dimensions, device)
    network = PCANet(replace(spec, dimensions=len(projection)))
    network.load_state_dict({"first": first, "second": second, "mean": mean, "projection": projection}, assign=True)
    return network.to(device)


@torch.no_grad()
def transform(network: PCANet, images: Tensor) -> Tensor:
    """Features of many images on the CPU, shape (n, dimensions): `forward`, batch after batch."""
    return torch.cat([network(part.to(network.mean.device)).cpu() for part in torch.split(images, BATCH)])


def learn_filters(batches: Iterable[Tensor], patch: int, count: int) -> Tensor:
    """The first principal components of all patches, the mean of each patch removed (Chan et al. 2015, Section II-A).

    Args:
        batches: images or maps, float64, shapes (n, height, width).
        patch: side of the patches, which lie within the images.
        count: number of components.

    Returns:
        Orthonormal filters of zero sum, by falling variance, float64, on the CPU, shape (count, 1, patch, patch).

    Raises:
        ValueError: there are fewer components than filters.
    """
    if count > patch**2 - 1:
        raise ValueError(f"patches of {patch}×{patch} without their mean have {patch**2 - 1} components, not {count}")
    scatter = torch.zeros(patch**2, patch**2, dtype=torch.float64)
    for images in batches:
        patches = F.unfold(images[:, None], patch)  # (n, patch², places)
        patches -= patches.mean(1, keepdim=True)
        scatter += (patches @ patches.mT).sum(0).cpu()
    components = torch.linalg.eigh(scatter).eigenvectors.flip(1)[:, :count]
    return _signed(components).T.reshape(count, 1, patch, patch)


def apply_filters(images: Tensor, filters: Tensor) -> Tensor:
    """The responses of the filters at every pixel, with zeros around the image.

    The filters sum to zero, so that the mean of a patch needs no removal here.

    Args:
        images: float64: answers near zero are hashed by their sign, which neither TF32 nor a batch may change.
        filters: shape (count, 1, patch, patch).

    Returns:
        Shape (n, count, height, width).
    """
    return F.conv2d(images[:, None], filters, padding=filters.shape[2] // 2)


def block_histograms(images: Tensor, first: Tensor, second: Tensor, spec: Spec) -> Tensor:
    """The histogram of codes in each block of each map, the output stage of Chan et al. 2015.

    Each map of the first stage is seen by all filters of the second; the signs of their answers are the bits of a code.

    Args:
        images: grey windows, uint8, shape (n, height, width).
        first: filters of the first stage, shape (maps, 1, patch, patch).
        second: filters of the second, shape (bits, 1, patch, patch).
        spec: says how the blocks lie; what is left over at the right and at the bottom is not counted.

    Returns:
        int64, shape (n, spec.histogram_length), ordered by map, block and code.

    Raises:
        ValueError: the images have another size than the frame.
    """
    if images.shape[1:] != (spec.frame.height, spec.frame.width):
        raise ValueError(
            f"windows of {spec.frame.height}×{spec.frame.width} are needed, not of shape {tuple(images.shape[1:])}"
        )
    maps = apply_filters(images.double(), first)  # (n, maps, height, width)
    answers = apply_filters(maps.flatten(0, 1), second)  # (n·maps, bits, height, width)
    bits = torch.arange(len(second), dtype=torch.int32, device=images.device)[:, None, None]
    codes = ((answers > HASH_THRESHOLD).int() << bits).sum(1)  # (n·maps, height, width)
    blocks = codes.unfold(1, spec.block[0], spec.step[0]).unfold(2, spec.block[1], spec.step[1])
    blocks = blocks.flatten(3).flatten(0, 2)  # (n·maps·blocks, pixels)
    bins = blocks + torch.arange(len(blocks), device=images.device)[:, None] * 2 ** len(second)
    counts = torch.bincount(bins.flatten(), minlength=len(images) * spec.histogram_length)
    return counts.view(len(images), -1)


def learn_whitening(counts: Tensor, dimensions: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """Whitening PCA by the Gram matrix, since there are fewer faces than counts.

    With the centred rows X and X·Xᵀ = U·Λ·Uᵀ, the principal directions are Xᵀ·U·Λ^(−1/2) and the variances Λ/(n−1), so
    that the projection is √(n−1)·Λ^(−1)·Uᵀ·X.

    Args:
        counts: whole numbers, shape (n, d).
        dimensions: the most that are kept, by falling variance.
        device: device of the products; `counts` are sent there in parts.

    Returns:
        The mean, shape (d,), and the projection, shape (kept, d), both float32 and on the CPU. Of the n rows,
        (counts − mean) @ projectionᵀ has zero mean and the identity as its covariance.

    Raises:
        ValueError: the rows are all alike.
    """
    gram = torch.zeros(len(counts), len(counts), dtype=torch.float64, device=device)
    for part in torch.split(counts, COUNTS_AT_ONCE, dim=1):
        columns = part.to(device).float()
        gram += columns @ columns.T
    rounding = 1e-12 * len(counts) * gram.diagonal().max()
    gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    values, vectors = (found.flip(-1) for found in torch.linalg.eigh(gram))
    kept = min(dimensions, int((values > rounding).sum()))
    if not kept:
        raise ValueError("whitening needs images that differ")
    weights = _signed(vectors[:, :kept]) / values[:kept] * (len(counts) - 1) ** 0.5
    means, projections = [], []
    for part in torch.split(counts, COUNTS_AT_ONCE, dim=1):
        columns = part.to(device).float()
        means.append(columns.mean(0))
        projections.append((weights.T.float() @ (columns - means[-1])).cpu())
    return torch.cat(means).cpu(), torch.cat(projections, dim=1)


def _signed(vectors: Tensor) -> Tensor:
    """Eigenvectors (columns) with fixed signs: the first entry of at least half the largest magnitude is positive.

    The largest itself may have a twin of the other sign, as in the filter of an edge: rounding would choose.
    """
    large = vectors.abs() >= vectors.abs().amax(0) / 2
    leading = vectors.gather(0, large.int().argmax(0, keepdim=True))
    return vectors * leading.sign()
