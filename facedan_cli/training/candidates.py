"""The candidates of a selection, and the choice among them by the rates of one criterion.

The choice starts from a default: whitening of the network as it is where the target shows enough people, unless the
criterion says that this is worse; else the network as it is. The candidate with the highest rate takes its place if
its advantage exceeds the bootstrap error of that advantage; of several as good as it the one that changes least. The
default is whitening because the criterion cannot see a shift of people, which whitening meets without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facedan_cli.metrics.intervals import difference_interval
from facedan_cli.training.whiten import ENOUGH_PEOPLE

KEEP, WHITEN = "keep", "whiten"
"""The candidate that changes nothing, which always competes, and the whitening of that network."""

CHANGES = ("keep", "centre", "whiten", "adabn", "adabn+whiten", "trained", "trained+whiten")
"""What a candidate changes, from least to most."""

LEAST_SPREAD = 0.5
"""Smallest effective rank of the target's features, as a share of that of the network as it is."""


@dataclass(frozen=True)
class Candidate:
    """A network that may be chosen, and its measurements.

    Args:
        name: its method, such as "adabn+whiten" or "mmd λ=10".
        change: its place in `CHANGES`; trainings among themselves by the fraction.
        network: name of the network below the whitening, such as "adabn".
        power: power of the whitening; None: none.
        rate: verification rate on source images that look like the target.
        replicates: the same over draws of identities, paired among candidates, shape (replicates,).
        spread: effective rank of the target's features before whitening.
        rejected: the reason why it cannot be chosen; "" if it can.
    """

    name: str
    change: float
    network: str
    power: float | None
    rate: float
    replicates: np.ndarray
    spread: float
    rejected: str = ""


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, with what it was compared with.

    Args:
        chosen: the one that changes least of those that are as good as the best.
        best: the one with the highest rate.
        default: the one that others have to beat, `keep` or its whitening.
        keep: the network as it is.
        identities: number of identities that the rates are of.
    """

    chosen: Candidate
    best: Candidate
    default: Candidate
    keep: Candidate
    identities: int

    @property
    def gain(self) -> float:
        """The rate of the chosen candidate minus that of the network as it is."""
        return self.chosen.rate - self.keep.rate

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain; of the best candidate's where the network is kept."""
        return interval(self.best if self.chosen is self.keep else self.chosen, self.keep, self.identities)

    @property
    def sure(self) -> bool:
        """Whether the interval excludes 0; where the network is kept, whether no candidate has a higher rate."""
        return self.best is self.keep if self.chosen is self.keep else self.interval[0] > 0


def choose(candidates: Sequence[Candidate], identities: int, people: float | None = None) -> Choice:
    """The candidate that changes least of those whose distance to the best is within its bootstrap error.

    The default comes first, whatever it changes.

    Args:
        candidates: with `KEEP` among them.
        identities: number of identities that the rates are of.
        people: estimated number of people in the target; None: unknown.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.change)
    keep = next(candidate for candidate in ordered if candidate.name == KEEP)
    left = [candidate for candidate in ordered if candidate is keep or not candidate.rejected]
    best = max(left, key=lambda candidate: candidate.rate)
    default = _default(left, keep, identities, people)
    rivals = [default, *(candidate for candidate in left if candidate is not keep and candidate is not default)]
    highest = max(rivals, key=lambda candidate: candidate.rate)
    chosen = next(one for one in rivals if highest.rate - one.rate <= error_of(highest, one))
    return Choice(chosen, best, default, keep, identities)


def _default(left: Sequence[Candidate], keep: Candidate, identities: int, people: float | None) -> Candidate:
    whitened = next((candidate for candidate in left if candidate.name == WHITEN), None)
    if whitened is None or people is None or round(people) < ENOUGH_PEOPLE:
        return keep
    return keep if interval(whitened, keep, identities)[1] < 0 else whitened


def error_of(one: Candidate, other: Candidate) -> float:
    """The bootstrap error of the difference of two rates: the standard deviation over draws of identities."""
    return float(np.nanstd(one.replicates - other.replicates))


def interval(one: Candidate, other: Candidate, identities: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two rates."""
    if one is other:
        return 0.0, 0.0
    return difference_interval(one.rate - other.rate, one.replicates, other.replicates, subjects=identities)


def checked(candidate: Candidate, keep: Candidate, *, identities: int, people: float | None = None) -> Candidate:
    """The candidate, rejected if its features are not finite or have collapsed, or if its moments are of few people.

    Mean and covariance of few people are those people: centring and whitening then need an interval above 0.

    Args:
        candidate: any.
        keep: the network as it is.
        identities: number of identities that the rates are of.
        people: estimated number of people in the target; None: unknown.
    """
    if candidate.rejected or candidate is keep:
        return candidate
    if not np.isfinite([candidate.rate, candidate.spread]).all():
        return replace(candidate, rejected="its features are not finite")
    if candidate.spread < LEAST_SPREAD * keep.spread:
        return replace(candidate, rejected="its target features have collapsed")
    few = people is not None and round(people) < ENOUGH_PEOPLE
    if few and candidate.power is not None and interval(candidate, keep, identities)[0] <= 0:
        return replace(candidate, rejected=f"moments of about {people:.0f} people, and a gain that is not sure")
    return candidate
