"""Similarities of features; a larger value means more alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import cdist

from facedan_cli.models import lbp

Comparison = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Similarity:
    """A measure of how alike two faces are.

    Args:
        name: name in messages and tables.
        all_pairs: similarity of every query to every target: features (n, d) and (m, d) → scores (n, m), float32.
        paired: similarity of each row to the same row: features (n, d) and (n, d) → scores (n,), float32.
    """

    name: str
    all_pairs: Comparison
    paired: Comparison


def _chi_square_all_pairs(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(lbp.similarities(torch.from_numpy(query), torch.from_numpy(target)))


def _chi_square_paired(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(-lbp.chi_square(torch.from_numpy(query), torch.from_numpy(target)))


def _euclidean_all_pairs(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(-cdist(query, target), np.float32)


def _euclidean_paired(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(-np.linalg.norm(query.astype(np.float64) - target, axis=1), np.float32)


COSINE = Similarity("cosine", lambda query, target: query @ target.T, lambda a, b: np.einsum("nd,nd->n", a, b))
"""The inner product, for features of length one."""

CHI_SQUARE = Similarity("negative chi-square", _chi_square_all_pairs, _chi_square_paired)
"""The negative chi-square, for weighted histograms (`facedan_cli.models.lbp`): 0 if they are equal, else less."""

EUCLIDEAN = Similarity("negative Euclidean distance", _euclidean_all_pairs, _euclidean_paired)
"""The negative Euclidean distance, for features of any length: 0 if they are equal, else less."""
