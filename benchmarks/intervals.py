"""Coverage of 95 % intervals of verification and rank-1 rates by several methods.

    python benchmarks/intervals.py [--draws 500] [--seed 0] [--people 20 50 …] [--kinds verify identify] [--workers 2]
                                   [--json] [--smoke]

Subjects are drawn from a population with known rates; each method makes an interval from the same bootstrap replicates
of the measured rate. In verification the noise of each subject's images has a scale of its own (log-normal), and each
subject has one to three images on either side, so that its comparisons are correlated. In identification each subject
has its own probability of being found (logistic-normal), with one probe or one to six. (FAR 0.1 with 400 subjects is
left out because of its cost.)

Methods: `percentile`; `bca` (Efron 1987; for verification up to 50 subjects, since its leave-one-out is expensive);
`studentised` (bootstrap-t with the linearised standard error, for identification); `t`: the rate ± Student's t times
the replicates' standard deviation; `wilson`: the score interval for the effective number of trials with Student's t as
its quantile; `exact`: facedan's interval, the binomial one for that number; `exact-t`: the same with the number lowered
by (z / t)², as in Korn and Graubard. For differences of two models on the same subjects: `percentile`, and facedan's
interval (`t`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri, stdtrit

from facedan_cli.metrics.bootstrap import rank1_replicates, vr_replicates
from facedan_cli.metrics.intervals import binomial_interval, difference_interval, effective_size, rate_interval
from facedan_cli.metrics.roc import verification_rate

Floats = NDArray[np.float64]
Interval = tuple[float, float]

FARS = ("0.1", "0.01", "0.001")
SUBJECTS = (20, 50, 194, 400)
RATES = (0.5, 0.9, 0.995)
PROBES = (1, 6)
FEATURES, NOISE, SPREAD, SECOND = 32, 0.75, 0.5, 1.1
TAU, MOVED = 1.5, 0.3
REPLICATES = 300
Z = float(ndtri(0.975))
FEW, MANY = 50, 400


@dataclass
class Tally:
    """Counts of a method's intervals: how many hold the true rate, their widths, and how many are [1, 1]."""

    held: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    width: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    single: int = 0

    def add(self, intervals: Mapping[str, Interval], truth: float) -> None:
        """Count the intervals of one draw."""
        for method, (low, high) in intervals.items():
            self.held[method].append(bool(low <= truth <= high))
            self.width[method].append(high - low)
        self.single += intervals["percentile"] == (1, 1)

    def summary(self) -> dict[str, dict[str, float]]:
        """Coverage and mean width by method."""
        return {
            method: {"coverage": float(np.mean(held)), "width": float(np.mean(self.width[method]))}
            for method, held in self.held.items()
        }


def intervals(
    rate: float, replicates: Floats, subjects: int, trials: int, left_out: Floats | None
) -> dict[str, Interval]:
    """The intervals of all methods from a rate and its replicates; `left_out` has the rates without each subject."""
    defined = replicates[~np.isnan(replicates)]
    t, deviation = float(stdtrit(subjects - 1, 0.975)), float(defined.std())
    size = effective_size(rate, replicates, subjects=subjects, trials=trials)
    found = {
        "percentile": (float(np.quantile(defined, 0.025)), float(np.quantile(defined, 0.975))),
        "t": (rate - t * deviation, rate + t * deviation),
        "wilson": score_interval(rate, size, t),
        "exact": rate_interval(rate, replicates, subjects=subjects, trials=trials),
        "exact-t": binomial_interval(rate * size * (Z / t) ** 2, size * (Z / t) ** 2),
    }
    return found if left_out is None else found | {"bca": bca_interval(rate, defined, left_out)}


def score_interval(share: float, size: float, quantile: float) -> Interval:
    """Wilson's interval of a share of `size` trials, a possibly fractional number."""
    square = quantile**2
    margin = quantile * math.sqrt(share * (1 - share) / size + square / (4 * size**2))
    centre, scale = share + square / (2 * size), 1 + square / size
    return max(0.0, (centre - margin) / scale), 1.0 if share == 1 else (centre + margin) / scale


def bca_interval(rate: float, replicates: Floats, left_out: Floats) -> Interval:
    """The interval of bias-corrected and accelerated percentiles."""
    below = np.mean(replicates < rate) + np.mean(replicates == rate) / 2
    bias = float(ndtri(np.clip(below, 1e-6, 1 - 1e-6)))
    moved = left_out.mean() - left_out
    squares = float((moved**2).sum())
    bent = float((moved**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    low, high = (float(ndtr(bias + (bias + z) / (1 - bent * (bias + z)))) for z in (-Z, Z))
    return float(np.quantile(replicates, low)), float(np.quantile(replicates, high))


def paired(rates: tuple[float, float], replicates: tuple[Floats, Floats], subjects: int) -> dict[str, Interval]:
    """Intervals of the second model's rate minus the first's."""
    moved = replicates[1] - replicates[0]
    defined = moved[~np.isnan(moved)]
    between = rates[1] - rates[0]
    return {
        "percentile": (float(np.quantile(defined, 0.025)), float(np.quantile(defined, 0.975))),
        "t": difference_interval(between, replicates[1], replicates[0], subjects=subjects),
    }


def images(
    random: np.random.Generator, subjects: int, counts: NDArray[np.int64]
) -> Iterator[list[tuple[Floats, Floats]]]:
    """Yield labels and features of both sides for each of two models, whose noises are correlated."""
    centre, scale = random.normal(size=(subjects, FEATURES)), NOISE * random.lognormal(0, SPREAD, subjects)
    sides = []
    for count in counts:
        labels = np.repeat(np.arange(subjects), count)
        noise, other = random.normal(size=(2, labels.size, FEATURES))
        of_both = (noise, SECOND * (0.8 * noise + 0.6 * other))
        rows = [centre[labels] + scale[labels, None] * one for one in of_both]
        sides.append([(labels, row / np.linalg.norm(row, axis=1, keepdims=True)) for row in rows])
    for model in range(2):
        yield [side[model] for side in sides]


@cache
def true_verification(rounds: int) -> tuple[tuple[float, ...], ...]:
    """The population's rates of both models at each FAR, from independent comparisons."""
    random, subjects = np.random.default_rng(12345), 50_000
    genuine: list[list[Floats]] = [[], []]
    impostor: list[list[Floats]] = [[], []]
    for _ in range(rounds):
        for model, ((_, query), (_, target)) in enumerate(images(random, subjects, np.ones((2, subjects), np.int64))):
            genuine[model].append(np.sum(query * target, axis=1))
            impostor[model] += [np.sum(query * np.roll(target, by, axis=0), axis=1) for by in (1, 2, 3)]
    truth = []
    for model in range(2):
        mates, others = np.concatenate(genuine[model]), np.sort(np.concatenate(impostor[model]))[::-1]
        truth.append(tuple(float(np.mean(mates > others[int(float(far) * others.size)])) for far in FARS))
    return tuple(truth)


def verify(subjects: int, draws: int, seed: int, rounds: int) -> dict[str, Tally]:
    """The coverage of verification rates, and of differences of two models."""
    truth, fars = true_verification(rounds), FARS[subjects >= MANY :]
    tallies = {f"{kind} {far}": Tally() for far in fars for kind in ("vr", "difference")}
    for draw in range(draws):
        random = np.random.default_rng((seed, subjects, draw))
        counts = random.integers(1, 4, (2, subjects))
        replicates, rates, left_out = [], [], []
        for (query_labels, query), (target_labels, target) in images(random, subjects, counts):
            a, b = np.broadcast_arrays(query_labels[:, None], target_labels[None])
            mates, scores = a == b, (query @ target.T).astype(np.float32)
            others = scores[~mates], a[~mates], b[~mates]
            replicates.append(vr_replicates(scores[mates], a[mates], *others, fars=fars, replicates=REPLICATES))
            rates.append([verification_rate(scores[mates], others[0], far).vr for far in fars])
            if subjects <= FEW and not left_out:
                left_out = [_without(scores, mates, (a != one) & (b != one)) for one in range(subjects)]
        for place, far in enumerate(fars):
            without = np.array(left_out)[:, place] if left_out else None
            found = intervals(rates[0][place], replicates[0][place], subjects, int(mates.sum()), without)
            tallies[f"vr {far}"].add(found, truth[0][FARS.index(far)])
            both = paired((rates[0][place], rates[1][place]), (replicates[0][place], replicates[1][place]), subjects)
            tallies[f"difference {far}"].add(both, truth[1][place] - truth[0][FARS.index(far)])
    return tallies


def _without(scores: NDArray[np.float32], mates: NDArray[np.bool_], kept: NDArray[np.bool_]) -> list[float]:
    return [verification_rate(scores[mates & kept], scores[~mates & kept], far).vr for far in FARS]


@cache
def shifts() -> tuple[dict[float, float], dict[float, float]]:
    """The mean of the logits that gives each rate, and the rate of a second model whose logits are lower by MOVED."""
    spread = TAU * np.random.default_rng(1).normal(size=200_000)
    means, second = {}, {}
    for rate in RATES:
        low, high = -20.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if expit(middle + spread).mean() < rate else (low, middle)
        means[rate], second[rate] = low, float(expit(low - MOVED + spread).mean())
    return means, second


def identify(subjects: int, probes: int, draws: int, seed: int) -> dict[str, Tally]:
    """The coverage of rank-1 rates, and of differences of two models."""
    means, second = shifts()
    tallies = {f"{kind} {rate} {probes}": Tally() for rate in RATES for kind in ("rank1", "difference")}
    for rate in RATES:
        for draw in range(draws):
            random = np.random.default_rng((seed, subjects, probes, draw))
            counts = random.integers(1, probes + 1, subjects)
            subject = np.repeat(np.arange(subjects), counts)
            ease = TAU * random.normal(size=subjects)
            other = 0.8 * ease + 0.6 * TAU * random.normal(size=subjects)
            luck = random.random(subject.size)
            again = np.where(random.random(subject.size) < 0.6, luck, random.random(subject.size))
            hits = luck < expit(means[rate] + ease)[subject], again < expit(means[rate] - MOVED + other)[subject]
            drawn = [rank1_replicates(one, subject, replicates=REPLICATES) for one in hits]
            found = [float(one.mean()) for one in hits]
            of_each = np.bincount(subject, hits[0], subjects)
            left_out = (of_each.sum() - of_each) / (subject.size - counts)
            by_method = intervals(found[0], drawn[0], subjects, subject.size, left_out)
            by_method["studentised"] = studentised(of_each, counts)
            tallies[f"rank1 {rate} {probes}"].add(by_method, rate)
            both = paired((found[0], found[1]), (drawn[0], drawn[1]), subjects)
            tallies[f"difference {rate} {probes}"].add(both, second[rate] - rate)
    return tallies


def studentised(hits: Floats, counts: NDArray[np.int64]) -> Interval:
    """The bootstrap-t interval of a ratio of sums over subjects."""
    weights = np.random.default_rng(0).multinomial(hits.size, np.full(hits.size, 1 / hits.size), REPLICATES)
    rate, rates = hits.sum() / counts.sum(), (weights @ hits) / (weights @ counts)
    error = np.sqrt(((hits - rate * counts) ** 2).sum()) / counts.sum()
    residuals = hits[None] - rates[:, None] * counts[None]
    errors = np.sqrt((weights * residuals**2).sum(axis=1)) / (weights @ counts)
    pivots = np.divide(rates - rate, errors, out=np.zeros(REPLICATES), where=errors > 0)
    low, high = np.quantile(pivots, [0.025, 0.975])
    return float(rate - high * error), float(rate - low * error)


def _job(arguments: tuple[str, int, int, int, int, int]) -> list[dict[str, object]]:
    kind, subjects, probes, draws, seed, rounds = arguments
    tallies = verify(subjects, draws, seed, rounds) if kind == "verify" else identify(subjects, probes, draws, seed)
    return [
        {"people": subjects, "what": what, "single": tally.single / draws, "methods": tally.summary()}
        for what, tally in tallies.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, nargs="+", default=SUBJECTS)
    parser.add_argument("--kinds", nargs="+", choices=("verify", "identify"), default=("verify", "identify"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a few draws of few subjects, in seconds")
    given = parser.parse_args()
    subjects, draws, rounds = ((8,), 3, 1) if given.smoke else (given.people, given.draws, 20)
    # The long ones first, so that the workers end together.
    jobs = [("verify", number, 0, draws, given.seed, rounds) for number in sorted(subjects, reverse=True)]
    jobs += [("identify", number, probes, draws, given.seed, 0) for number in subjects for probes in PROBES]
    jobs = [job for job in jobs if job[0] in given.kinds]
    if given.workers > 1:
        with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
            rows = [row for found in pool.map(_job, jobs) for row in found]
    else:
        rows = [row for job in jobs for row in _job(job)]
    if given.json:
        print(json.dumps({"draws": draws, "seed": given.seed, "rows": rows}))
        return
    print(f"share of {draws} draws whose 95 % interval holds the truth (mean width); single: percentile gives [1, 1]")
    for row in rows:
        methods = row["methods"]
        assert isinstance(methods, dict)
        cells = (f"{name} {one['coverage']:.3f} ({one['width']:.3f})" for name, one in methods.items())
        print(f"{row['people']:>4} {row['what']:<18} single {row['single']:.2f}  {'  '.join(cells)}")


if __name__ == "__main__":
    main()
