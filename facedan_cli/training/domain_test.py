"""The test for a difference of source and target beyond chance, on held-out images before and after adaptation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from facedan_cli.adaptation.penalty import on_sphere
from facedan_cli.adaptation.two_sample import TwoSampleTest, two_sample_test
from facedan_cli.adaptation.whitening import likely_people
from facedan_cli.figures.domains import plot_domains
from facedan_cli.json_files import read_entries, tell_odd
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.models.network import FaceNetwork
from facedan_cli.report import Report
from facedan_cli.training.datasets import LEAST_SAMPLE
from facedan_cli.training.held_out import HeldOut, features_of, readable

KEY = "two_sample"
"""The key of the test in the log, with a `TwoSampleTest` for each layer."""

IDENTITIES_UNKNOWN = (
    "the identities of the target are unknown: with several target images of one subject, the two-sample test finds a "
    "difference too often"
)

_FEW = 0.8
"""Fewer likely subjects an image of the target make the test reject too often."""


@dataclass(frozen=True)
class DomainTest:
    """A permutation test of MMD² between the held-out images of both domains, for each layer.

    Its bandwidth is the median of its own sample, so that it means the same before and after. It permutes the source by
    identities, and the target, whose identities are unknown, by images.

    Args:
        held_out: the images, and the network that is measured at the call.
        layers: layers whose features are compared.
        bandwidth_multipliers: bandwidths of the kernels as multiples of γ.
        seed: seed of the permutations.
        normalise: whether features are L2-normalised first, as in the penalty.
    """

    held_out: HeldOut
    layers: tuple[str, ...]
    bandwidth_multipliers: tuple[float, ...]
    seed: int
    normalise: bool = False

    def __call__(self) -> dict[str, Any]:
        """The entry for the log; empty if too few images can be read, or features have collapsed to a point."""
        images = (self.held_out.source, self.held_out.target)
        if any(domain is None or len(readable(domain)) < 2 for domain in images):
            return {}
        found_in = [features_of(self.held_out.network, domain) for domain in images if domain is not None]
        source, target = map(on_sphere, found_in) if self.normalise else found_in
        identities = self.held_out.labels[readable(images[0])].tolist() if images[0] is not None else None
        try:
            found = self._tests(source, target, identities)
        except ValueError:
            return {}
        entry: dict[str, Any] = {KEY: {layer: asdict(test) for layer, test in found.items()}}
        if any(test.beyond_chance for test in found.values()):
            entry["warnings"] = [self._doubt(source, target, identities)]
        return entry

    def _tests(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor], identities: Sequence[int] | None
    ) -> dict[str, TwoSampleTest]:
        weights = (1 / len(self.bandwidth_multipliers),) * len(self.bandwidth_multipliers)
        return {
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

    def _doubt(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor], identities: Sequence[int] | None
    ) -> str:
        """Why a difference may be none: several images of a subject, by clusters of the target's embeddings.

        With one image of each cluster the test has its level again, if the clusters are subjects.
        """
        last = self.held_out.network.layers[-1]
        try:
            people = likely_people(*(F.normalize(one[last]).double().cpu().numpy() for one in (target, source)))
            rows = np.unique(people, return_index=True)[1].tolist()
            if len(rows) > _FEW * len(people):
                return IDENTITIES_UNKNOWN
            found = self._tests(source, {layer: features[rows] for layer, features in target.items()}, identities)
        except ValueError:
            return IDENTITIES_UNKNOWN
        fewer = ", ".join(f"{layer} p = {test.p_value:.3f}" for layer, test in found.items())
        return (
            f"the {len(people)} held-out target images seem to show {len(rows)} subjects, and the two-sample test "
            f"finds a difference too often with several images of each; with one of each: {fewer}"
        )


class Ends:
    """The test before the first step and after the last; the first may be made earlier, before a network is changed."""

    def __init__(self, test: DomainTest) -> None:
        self._test = test
        self._made: dict[str, Any] | None = None

    def measure(self) -> None:
        """Make the first test now."""
        self._made = self._test()

    def __call__(self) -> dict[str, Any]:
        """The entry for the log."""
        made, self._made = self._made, None
        return self._test() if made is None else made


def draw_domains(init: Path, held_out: HeldOut, layers: Iterable[str], path: Path, report: Report) -> None:
    """Draw the features of held-out images by the initial and by the adapted network, unless there are too few.

    Args:
        init: checkpoint of the initial network.
        held_out: images of both domains, and the adapted network.
        layers: layers of the features.
        path: file of the figure.
        report: receives a warning if the figure cannot be drawn.
    """
    images = [domain for domain in (held_out.source, held_out.target) if domain is not None]
    if len(images) < 2 or any(len(readable(domain)) < LEAST_SAMPLE for domain in images):
        return

    def features(network: FaceNetwork) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        source, target = (features_of(network, domain) for domain in images)
        return {layer: (source[layer].cpu().numpy(), target[layer].cpu().numpy()) for layer in layers}

    before, _ = load_checkpoint(init)
    before.offer(layers)
    device = next(held_out.network.parameters()).device
    try:
        plot_domains(features(before.to(device)), features(held_out.network), path)
    except Exception as error:  # a failed figure must not cost a training
        report.warn(f"the domains could not be drawn: {error}")


def tell(log: Path, report: Report) -> None:
    """Report the test before and after adaptation, with its meaning."""
    try:
        entries = [entry for entry in read_entries(log) if KEY in entry]
        tested = [_tests(entry) for entry in entries]
        doubts = [list(entry.get("warnings", ())) for entry in entries]
    except (TypeError, AttributeError) as error:
        tell_odd(log, error)
        return
    if len(tested) < 2:
        return
    before, after = tested[0], tested[-1]
    for layer, test in before.items():
        report.note(f"{layer}, held-out images: before {_said(test)}; after {_said(after[layer])}")
    if not any(test.beyond_chance for test in before.values()):
        report.note("before adaptation source and target did not differ beyond chance: there was little to adapt to")
    else:
        times = ", ".join(f"{layer} {_beyond_chance(test):.1f}" for layer, test in after.items())
        report.note(
            f"MMD² after adaptation in multiples of chance: {times}; that does not show that recognition improved: "
            "--check with labelled pairs of the target does, or `facedan evaluate`"
        )
    for when, said in (("before", doubts[0]), ("after", doubts[-1])):
        for doubt in said:
            if doubt != IDENTITIES_UNKNOWN:
                report.warn(f"{when} adaptation {doubt}")
    if IDENTITIES_UNKNOWN in (*doubts[0], *doubts[-1]):
        report.note(IDENTITIES_UNKNOWN)


def _tests(entry: Mapping[str, Any]) -> dict[str, TwoSampleTest]:
    return {layer: TwoSampleTest(**found) for layer, found in entry[KEY].items()}


def _beyond_chance(test: TwoSampleTest) -> float:
    return max(0.0, test.mmd2) / test.chance if test.chance > 0 else 0.0


def _said(test: TwoSampleTest) -> str:
    return f"MMD² {test.mmd2:.4f} (by chance below {test.chance:.4f}, p = {test.p_value:.3f})"
