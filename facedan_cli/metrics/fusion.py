"""Fusion of several matchers' scores (the sum of z-normalised scores; Jain, Nandakumar and Ross 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def z_normalised(scores: ArrayLike) -> Array:
    """Scores shifted and scaled to mean 0 and standard deviation 1 over all comparisons of a protocol.

    So they depend on the protocol's other images: the same comparison has another score in another partition. Labels
    are not looked at: genuine and impostor scores are normalised together. Scores that are all equal become 0, so that
    a matcher that tells nothing adds nothing.

    Args:
        scores: scores of every comparison, any shape.

    Returns:
        float64, the same shape. Tied scores stay tied.

    Raises:
        ValueError: there is no score, or one is not finite.
    """
    array = np.asarray(scores, np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("scores to be normalised must be finite, and at least one")
    if array.min() == array.max():
        return np.zeros_like(array)
    return np.asarray((array - array.mean()) / array.std())


def fuse(matchers: Sequence[ArrayLike]) -> Array:
    """The sum of the z-normalised scores of several matchers on the same comparisons.

    Args:
        matchers: each matcher's scores of every comparison, in one order, all of one shape.

    Returns:
        float64, the same shape.

    Raises:
        ValueError: there is no matcher, the shapes differ, or a score is not finite.

    Examples:
        Cosines and distances with their sign changed have other scales; the order that both agree on stays.

        >>> fuse([[0.9, 0.5, 0.1], [-10.0, -20.0, -30.0]])
        array([ 2.44948974,  0.        , -2.44948974])
    """
    normalised = [z_normalised(scores) for scores in matchers]
    if len({scores.shape for scores in normalised}) != 1:
        raise ValueError("the matchers must have scores of the same comparisons: their shapes differ")
    return np.asarray(np.sum(normalised, axis=0))
