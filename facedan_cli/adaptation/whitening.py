"""Whitening by the moments of unlabelled embeddings, and the number of people that these show."""

from __future__ import annotations

import numpy as np


def whitening(rows: np.ndarray, power: float, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The mean μ and the symmetric matrix Σ^(−power) of (x − μ) · Σ^(−power).

    Σ is the covariance as shrunk by Ledoit and Wolf (2004).

    Args:
        rows: embeddings of length one, shape (n, d).
        power: from 0, which centres only, to 0.5, which whitens fully.
        rank: principal directions with a variance of their own; the others share their mean variance. None: all d.

    Returns:
        μ, shape (d,), and Σ^(−power), shape (d, d), float64.

    Raises:
        ValueError: there are fewer than two rows, or all are equal.
    """
    from sklearn.covariance import ledoit_wolf

    x = np.asarray(rows, dtype=np.float64)
    if len(x) < 2 or not np.ptp(x, axis=0).any():
        raise ValueError("two different rows are needed at least")
    mean = x.mean(axis=0)
    covariance, _ = ledoit_wolf(x)
    variances, directions = np.linalg.eigh(covariance)  # in ascending order
    if rank is not None and rank < len(variances):
        variances[:-rank] = variances[:-rank].mean()
    scales = np.clip(variances, 1e-10 * variances[-1], None) ** -power
    return mean, (directions * scales) @ directions.T


def estimated_people(target: np.ndarray, source: np.ndarray) -> float:
    """An estimate of how many people the images of a domain without labels show.

    It is the effective number of `likely_people` 1 / Σ pᵢ² (Simpson), pᵢ the share of the images in a cluster: an odd
    image that is a cluster of its own counts little.

    Args:
        target: embeddings, shape (n, d).
        source: embeddings of one image of each of several other people, shape (m, d).

    Raises:
        ValueError: there are fewer than two rows, or fewer than three of the source.
    """
    shares = np.bincount(likely_people(target, source))[1:] / len(target)
    return float(1 / (shares**2).sum())


def likely_people(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Clusters of images that are likely to show one person each, numbered from 1, shape (n,).

    Average-linkage clusters of the centred embeddings, cut at the cosine that 0.1 / n impostor comparisons of the
    source exceed, n the number of images, by the normal distribution with the mean and deviation of those scores.

    Args:
        target: embeddings, shape (n, d).
        source: embeddings of one image of each of several other people, shape (m, d).

    Raises:
        ValueError: there are fewer than two rows, or fewer than three of the source.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.stats import norm

    if len(target) < 2 or len(source) < 3:
        raise ValueError("two rows are needed at least, and three of the source")
    impostors = _centred(source)
    scores = (impostors @ impostors.T)[np.triu_indices(len(impostors), 1)]
    threshold = scores.mean() + scores.std() * norm.isf(0.1 / len(target))
    rows = _centred(target)
    distances = 1 - (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    clusters: np.ndarray = fcluster(linkage(np.clip(distances, 0, None), "average"), 1 - threshold, "distance")
    return clusters


def _centred(rows: np.ndarray) -> np.ndarray:
    """Rows of length one of what differs from the mean; zeros where nothing does."""
    x = np.asarray(rows, dtype=np.float64)
    x = x - x.mean(axis=0)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    centred: np.ndarray = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 1e-8)
    return centred
