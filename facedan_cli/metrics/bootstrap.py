"""Bootstrap replicates of verification and identification rates, which resample subjects, not comparisons.

The comparisons of one subject are not independent, and each impostor comparison belongs to two subjects. So a replicate
draws as many subjects as there are, with replacement. If subject s is drawn w_s times, its comparisons have weights:

- a genuine comparison of subject s has weight w_s. Each copy of s brings both images, so it repeats the comparison
  once; a weight of w_s² would count comparisons between copies, which were never made;
- an impostor comparison of subjects a and b has weight w_a·w_b: each copy of a meets each copy of b. Two copies of one
  subject make no impostor comparison.

This is the vertex bootstrap of Snijders and Borgatti (1999), but it leaves out pairs of equal copies instead of filling
them in; Fogliato, Patil and Perona (2024, "Confidence Intervals for Error Rates in 1:1 Matching Tasks") review such
methods. The "subsets bootstrap" (Bolle, Ratha and Pankanti 2004) resamples only one side of the impostor comparisons,
and ignores the dependence through the other side.

Weights are whole numbers, so a replicate is scored by the rule of `metrics.roc`, as if its rows were repeated.
`metrics.intervals` makes confidence intervals from the replicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facedan_cli.metrics.roc import as_scores, far_budget, parse_far

Array = NDArray[Any]


def vr_replicates(
    genuine: ArrayLike,
    genuine_subject: ArrayLike,
    impostor: ArrayLike,
    impostor_subject_a: ArrayLike,
    impostor_subject_b: ArrayLike,
    *,
    fars: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
) -> Array:
    """Replicates of verification rates by the two-way subject bootstrap.

    Two models scored on the same comparisons with the same seed are paired: one column is one draw of subjects.

    Args:
        genuine: scores of genuine comparisons, shape (g,).
        genuine_subject: the subject of each, shape (g,); labels of any type, of which integers are fastest.
        impostor: scores of impostor comparisons, shape (n,).
        impostor_subject_a: the subject of one side of each, shape (n,).
        impostor_subject_b: the subject of the other side, shape (n,).
        fars: false-accept rates as decimal strings.
        replicates: number of bootstrap replicates.
        seed: seed of the draws of subjects.

    Returns:
        Rates, shape (len(fars), replicates); NaN where a draw left no genuine or no impostor comparison.

    Raises:
        ValueError: there is no genuine or no impostor score, a score is NaN, the shapes do not belong together, or an
            impostor comparison names one subject twice.
        UsageError: one of `fars` is not a false-accept rate.

    Example:
        Four subjects, a genuine comparison of each and an impostor comparison of each pair.

        >>> a, b = [0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]
        >>> impostor = [0.1, 0.2, 0.3, 0.1, 0.6, 0.2]
        >>> rates = vr_replicates([0.9, 0.5, 0.8, 0.7], range(4), impostor, a, b, fars=["0.1"], replicates=100)
        >>> rates.shape
        (1, 100)
        >>> from facedan_cli.metrics.intervals import rate_interval
        >>> low, high = rate_interval(0.75, rates[0], subjects=4, trials=4)
        >>> print(f"VR 0.75 [{low:.2f}, {high:.2f}]")
        VR 0.75 [0.19, 0.99]
    """
    exact_fars = [parse_far(far) for far in fars]
    ranked = _rank(genuine, genuine_subject, impostor, impostor_subject_a, impostor_subject_b)
    reach = 2 * (1 + max(far_budget(far, ranked.impostor_a.size) for far in exact_fars))
    rates = np.full((len(fars), replicates), np.nan)
    for replicate, weights in enumerate(_draws(ranked.subjects, replicates, seed)):
        genuine_weight = np.concatenate([[0], np.cumsum(weights[ranked.genuine])])  # (g + 1,)
        impostor_total = int(np.dot(weights[ranked.pair_a] * weights[ranked.pair_b], ranked.pair_count))
        if genuine_weight[-1] == 0 or impostor_total == 0:
            continue
        budgets = [far_budget(far, impostor_total) for far in exact_fars]
        impostor_weight = _leading_weight(ranked, weights, max(budgets), reach)
        # The first impostor whose cumulated weight passes the budget is the (k+1)-th largest; none passes it at FAR 1.
        thresholds = np.searchsorted(impostor_weight, budgets, side="right")
        rates[:, replicate] = genuine_weight[ranked.genuine_above[thresholds]] / genuine_weight[-1]
    return rates


def rank1_replicates(correct: ArrayLike, probe_subject: ArrayLike, *, replicates: int = 1000, seed: int = 0) -> Array:
    """Replicates of the rank-1 rate over draws of probe subjects; the gallery stays the same.

    Two models on the same probes with the same seed are paired, as in `vr_replicates`.

    Args:
        correct: whether each probe's mate is at rank 1, shape (p,).
        probe_subject: the subject of each probe, shape (p,).
        replicates: number of bootstrap replicates.
        seed: seed of the draws of subjects.

    Returns:
        Rates, shape (replicates,).

    Raises:
        ValueError: there are no probes, or the shapes differ.
    """
    hits = as_scores(correct, "correct").astype(np.int64)
    (subject,), subjects = _encode([probe_subject], [hits])
    hits_of = np.bincount(subject, weights=hits, minlength=subjects)
    probes_of = np.bincount(subject, minlength=subjects)
    return np.array(
        [(weights @ hits_of) / (weights @ probes_of) for weights in _draws(subjects, replicates, seed)], np.float64
    )


@dataclass(frozen=True)
class _Ranked:
    """Comparisons sorted by falling score, with subjects as numbers from 0."""

    subjects: int
    genuine: Array  # subject of each genuine comparison, (g,)
    genuine_above: Array  # numbers of genuine scores above each impostor score and, last, above -inf, (n + 1,)
    impostor_a: Array  # subjects of each impostor comparison, (n,)
    impostor_b: Array
    pair_a: Array  # the distinct pairs of subjects among the impostor comparisons, (q,)
    pair_b: Array
    pair_count: Array  # number of comparisons of each pair, (q,)


def _rank(
    genuine: ArrayLike,
    genuine_subject: ArrayLike,
    impostor: ArrayLike,
    impostor_subject_a: ArrayLike,
    impostor_subject_b: ArrayLike,
) -> _Ranked:
    genuine, impostor = as_scores(genuine, "genuine"), as_scores(impostor, "impostor")
    (subject, a, b), subjects = _encode(
        [genuine_subject, impostor_subject_a, impostor_subject_b], [genuine, impostor, impostor]
    )
    if np.any(a == b):
        raise ValueError("an impostor comparison names the same subject twice")
    pairs, counts = np.unique(np.minimum(a, b) * subjects + np.maximum(a, b), return_counts=True)
    rising = np.argsort(genuine)
    falling = np.argsort(impostor)[::-1]
    thresholds = np.append(impostor[falling], -np.inf)
    return _Ranked(
        subjects=subjects,
        genuine=subject[rising[::-1]],
        genuine_above=genuine.size - np.searchsorted(genuine[rising], thresholds, side="right"),
        impostor_a=a[falling],
        impostor_b=b[falling],
        pair_a=pairs // subjects,
        pair_b=pairs % subjects,
        pair_count=counts,
    )


def _encode(labels: Sequence[ArrayLike], scores: Sequence[Array]) -> tuple[list[Array], int]:
    """Subjects as numbers from 0 in the order of their labels, and the number of subjects."""
    arrays = [np.asarray(label) for label in labels]
    if [array.shape for array in arrays] != [score.shape for score in scores]:
        raise ValueError("each comparison needs its subject: labels and scores differ in shape")
    names, codes = np.unique(np.concatenate(arrays), return_inverse=True)
    return np.split(codes, np.cumsum([array.size for array in arrays])[:-1]), names.size


def _draws(subjects: int, replicates: int, seed: int) -> Iterator[Array]:
    """Yield the weights of each replicate, shape (subjects,): the number of times that each subject is drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(subjects, size=subjects), minlength=subjects)


def _leading_weight(ranked: _Ranked, weights: Array, budget: int, reach: int) -> Array:
    """The cumulated weights of the highest impostor scores: at least `reach` scores, and until they pass the budget."""
    while True:
        cumulated = np.cumsum(weights[ranked.impostor_a[:reach]] * weights[ranked.impostor_b[:reach]])
        if cumulated[-1] > budget or reach >= ranked.impostor_a.size:
            return cumulated
        reach *= 2
