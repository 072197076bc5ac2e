"""Do source and target differ beyond chance? Asked of images that no training saw, before and after adaptation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facedan_cli.adaptation.two_sample import TwoSampleTest, two_sample_test
from facedan_cli.faces.batches import FaceImages
from facedan_cli.models.vggface import VGGFace
from facedan_cli.report import Report

KEY = "two_sample"
"""The test's entry in the log: for each layer a `TwoSampleTest`."""


@dataclass(frozen=True)
class DomainTest:
    """A permutation test of MMD² between the images of both domains that were held aside, for each layer.

    Its bandwidth is the median of its own sample's distances: so it means the same before and after.

    Args:
        network: measured as it stands at the call.
        source: labelled images, one a person.
        target: unlabelled images.
        layers: layers whose features are compared.
        multipliers: bandwidths of the kernels as multiples of γ.
        crop: side of the centre crop, pixels.
        seed: of the permutations.
    """

    network: VGGFace
    source: FaceImages
    target: FaceImages
    layers: tuple[str, ...]
    multipliers: tuple[float, ...]
    crop: int
    seed: int

    @property
    def possible(self) -> bool:
        """Whether images of both domains were held aside, and can be read."""
        return min(len(_readable(self.source)), len(_readable(self.target))) > 1

    def __call__(self) -> dict[str, Any]:
        """The entry for the log; empty where features have collapsed to a point."""
        source, target = self._features(self.source), self._features(self.target)
        weights = (1 / len(self.multipliers),) * len(self.multipliers)
        try:
            found = {
                layer: two_sample_test(
                    source[layer], target[layer], weights=weights, multipliers=self.multipliers, seed=self.seed
                )
                for layer in self.layers
            }
        except ValueError:
            return {}
        return {KEY: {layer: asdict(test) for layer, test in found.items()}}

    @torch.no_grad()
    def _features(self, images: FaceImages) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        training = self.network.training
        self.network.eval()
        rows, margin = _readable(images), (images.size - self.crop) // 2
        found = []
        for start in range(0, len(rows), 64):
            loaded = images.load(rows[start : start + 64])
            faces = torch.stack([torch.from_numpy(face) for _, face in loaded]).permute(0, 3, 1, 2)
            centre = faces[:, :, margin : margin + self.crop, margin : margin + self.crop]
            found.append(self.network(centre.to(device), 0)[0])
        self.network.train(training)
        return {layer: torch.cat([features[layer] for features in found]) for layer in self.layers}


def _readable(images: FaceImages) -> list[int]:
    return [row for row, path in enumerate(images.folder.paths) if path not in images.unreadable]


def tell(log: Path, report: Report) -> None:
    """Say what the test found before and after adaptation, and what follows from it."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    tested = [_tests(entry) for entry in entries if KEY in entry]
    if len(tested) < 2:
        return
    before, after = tested[0], tested[-1]
    for layer, test in before.items():
        report.note(f"{layer}, images held aside: before {_said(test)}; after {_said(after[layer])}")
    if not any(test.beyond_chance for test in before.values()):
        report.note("before adaptation source and target did not differ beyond chance: there was little to adapt to")
    elif not any(test.beyond_chance for test in after.values()):
        report.note("adaptation took away all of the difference that this sample can show")


def _tests(entry: Mapping[str, Any]) -> dict[str, TwoSampleTest]:
    return {layer: TwoSampleTest(**found) for layer, found in entry[KEY].items()}


def _said(test: TwoSampleTest) -> str:
    return f"MMD² {test.mmd2:.4f} (by chance below {test.chance:.4f}, p = {test.p_value:.3f})"
