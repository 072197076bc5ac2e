"""Size of the two-sample test, if subjects have several images.

    python benchmarks/two_sample.py [--draws 500] [--json] [--smoke]

Source and target are drawn from one distribution, with subjects as points and their images around them; ρ is the share
of a feature's variance between subjects. At its level of 5 % a test should reject in 5 % of the draws. The test is run
with the subjects of the source known, as in `facedan adapt`, with those of both domains known, and with none known. The
column "estimated" is the test that the warning of `facedan adapt` has: one image of each cluster of the target's
embeddings, which are these features at length one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.two_sample import TwoSampleTest, two_sample_test
from facedan_cli.adaptation.whitening import likely_people

FEATURES, PERMUTATIONS = 32, 199
RHOS = (0.3, 0.7, 0.9)
CASES = (((100, 1), (100, 1)), ((100, 1), (50, 2)), ((100, 1), (20, 5)), ((20, 5), (20, 5)), ((100, 1), (10, 10)))
"""Numbers of subjects and of images of each, for source and target."""

KNOWN = {"neither": (False, False), "source": (True, False), "both": (True, True)}
"""Domains with known subjects, by the name of the test."""

ESTIMATED = "estimated"


def draw(identities: int, images: int, rho: float, random: torch.Generator) -> tuple[Tensor, list[int]]:
    """The features of a domain, and the subject of each row."""
    owners = torch.arange(identities).repeat_interleave(images)
    centres, noise = (torch.randn(count, FEATURES, generator=random) for count in (identities, len(owners)))
    return rho**0.5 * centres[owners] + (1 - rho) ** 0.5 * noise, owners.tolist()


def sizes(case: tuple[tuple[int, int], tuple[int, int]], rho: float, draws: int) -> dict[str, float]:
    """The share of draws in which each test finds a difference."""
    found = dict.fromkeys((*KNOWN, ESTIMATED), 0)
    for number in range(draws):
        random = torch.Generator().manual_seed(number)
        (source, of_source), (target, of_target) = (draw(*domain, rho, random) for domain in case)
        for name, (of_one, of_other) in KNOWN.items():
            test = two_sample_test(
                source,
                target,
                weights=(0.2,) * 5,
                permutations=PERMUTATIONS,
                seed=number,
                source_identities=of_source if of_one else None,
                target_identities=of_target if of_other else None,
            )
            found[name] += test.beyond_chance
        found[ESTIMATED] += by_estimate(source, target, of_source, number).beyond_chance
    return {name: count / draws for name, count in found.items()}


def by_estimate(source: Tensor, target: Tensor, of_source: list[int], seed: int) -> TwoSampleTest:
    """The test with one image of each likely subject of the target."""
    one_each = np.unique(of_source, return_index=True)[1]
    people = likely_people(F.normalize(target).numpy(), F.normalize(source[one_each]).numpy())
    rows = np.unique(people, return_index=True)[1]
    return two_sample_test(
        source,
        target[rows],
        weights=(0.2,) * 5,
        permutations=PERMUTATIONS,
        seed=seed,
        source_identities=of_source,
    )


def measured(smoke: bool, draws: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The share of rejections in each case."""
    for rho in RHOS[:1] if smoke else RHOS:
        for case in CASES[-1:] if smoke else CASES:
            (identities, images), (others, of_other) = case
            name = f"{identities} × {images}, {others} × {of_other}, ρ = {rho}"
            yield name, sizes(case, rho, 4 if smoke else draws)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest that there is, in seconds: does it work?")
    given = parser.parse_args()
    found = {}
    if not given.json:
        print(
            f"{'source, target: subjects × images':<36}"
            + "".join(f"{name:>16}" for name in (*(f"known: {name}" for name in KNOWN), ESTIMATED))
        )
    for name, rates in measured(given.smoke, given.draws):
        found[name] = rates
        if not given.json:
            print(f"{name:<36}" + "".join(f"{rates[key]:>16.3f}" for key in (*KNOWN, ESTIMATED)), flush=True)
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
