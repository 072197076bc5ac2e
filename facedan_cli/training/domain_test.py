"""Do source and target differ beyond chance? Asked of images that no training saw, before and after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facedan_cli.adaptation.two_sample import TwoSampleTest, two_sample_test
from facedan_cli.json_files import read_entries, tell_odd
from facedan_cli.report import Report
from facedan_cli.training.held_out import HeldOut, features_of, readable

KEY = "two_sample"
"""The test's entry in the log: for each layer a `TwoSampleTest`."""

PEOPLE_UNKNOWN = (
    "nobody knows whose the target's images are: where it has several of a person, the test of the two domains finds "
    "a difference too often"
)


@dataclass(frozen=True)
class DomainTest:
    """A permutation test of MMD² between the images of both domains that were held aside, for each layer.

    Its bandwidth is the median of its own sample's distances: so it means the same before and after. It divides the
    source's people at random, and of the target, whose people nobody knows, images.

    Args:
        held: the images, and the network, measured as it stands at the call.
        layers: layers whose features are compared.
        multipliers: bandwidths of the kernels as multiples of γ.
        seed: of the permutations.
    """

    held: HeldOut
    layers: tuple[str, ...]
    bandwidth_multipliers: tuple[float, ...]
    seed: int

    def __call__(self) -> dict[str, Any]:
        """The entry for the log; empty where too few images can be read, or features have collapsed to a point."""
        images = (self.held.source, self.held.target)
        if any(domain is None or len(readable(domain)) < 2 for domain in images):
            return {}
        source, target = (features_of(self.held.network, domain) for domain in images if domain is not None)
        identities = self.held.labels[readable(images[0])].tolist() if images[0] is not None else None
        weights = (1 / len(self.bandwidth_multipliers),) * len(self.bandwidth_multipliers)
        try:
            found = {
                layer: two_sample_test(
                    source[layer],
                    target[layer],
                    weights=weights,
                    bandwidth_multipliers=self.bandwidth_multipliers,
                    seed=self.seed,
                    source_identities=identities,
                )
                for layer in self.layers
            }
        except ValueError:
            return {}
        warned = {"warnings": [PEOPLE_UNKNOWN]} if any(test.beyond_chance for test in found.values()) else {}
        return {KEY: {layer: asdict(test) for layer, test in found.items()}} | warned


def tell(log: Path, report: Report) -> None:
    """Say what the test found before and after adaptation, and what follows from it."""
    try:
        tested = [_tests(entry) for entry in read_entries(log) if KEY in entry]
    except (TypeError, AttributeError) as error:
        tell_odd(log, error)
        return
    if len(tested) < 2:
        return
    before, after = tested[0], tested[-1]
    for layer, test in before.items():
        report.note(f"{layer}, images held aside: before {_said(test)}; after {_said(after[layer])}")
    if not any(test.beyond_chance for test in before.values()):
        report.note("before adaptation source and target did not differ beyond chance: there was little to adapt to")
    elif not any(test.beyond_chance for test in after.values()):
        report.note("adaptation took away all of the difference that this sample can show")
    if any(test.beyond_chance for test in (*before.values(), *after.values())):
        report.note(PEOPLE_UNKNOWN)


def _tests(entry: Mapping[str, Any]) -> dict[str, TwoSampleTest]:
    return {layer: TwoSampleTest(**found) for layer, found in entry[KEY].items()}


def _said(test: TwoSampleTest) -> str:
    return f"MMD² {test.mmd2:.4f} (by chance below {test.chance:.4f}, p = {test.p_value:.3f})"
