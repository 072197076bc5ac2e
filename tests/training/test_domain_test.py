"""What the test between held-out images says where the target has several images of each subject."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import Notes
from torch.nn import functional as F

from facedan_cli.adaptation.two_sample import two_sample_test
from facedan_cli.adaptation.whitening import likely_people
from facedan_cli.training import domain_test
from facedan_cli.training.domain_test import IDENTITIES_UNKNOWN, KEY, DomainTest, tell

LAYERS = ("fc6", "fc7")


def drawn(subjects: int, images: int, *, seed: int, spread: float = 0.3, shift: float = 0.0) -> torch.Tensor:
    """Features of images around each of some subjects, in no order of subjects, shape (subjects · images, 32)."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(subjects, 32, generator=random)
    return centres.repeat(images, 1) + spread * torch.randn(subjects * images, 32, generator=random) + shift


def made(monkeypatch: pytest.MonkeyPatch, source: torch.Tensor, target: torch.Tensor) -> DomainTest:
    """The test of a network with these features of both layers."""
    features = {"source": dict.fromkeys(LAYERS, source), "target": dict.fromkeys(LAYERS, target)}
    monkeypatch.setattr(domain_test, "features_of", lambda _, domain: features[domain])
    monkeypatch.setattr(domain_test, "readable", lambda domain: list(range(len(features[domain]["fc7"]))))
    held_out = SimpleNamespace(
        network=SimpleNamespace(layers=LAYERS), source="source", target="target", labels=np.arange(len(source))
    )
    return DomainTest(held_out, LAYERS, (0.5, 1, 2), seed=0)


def test_with_one_image_of_each_likely_subject_the_level_is_kept() -> None:
    rejected = {"images": 0, "one each": 0}
    for draw in range(150):
        source, target = drawn(60, 1, seed=2 * draw), drawn(12, 5, seed=2 * draw + 1)
        people = likely_people(F.normalize(target).numpy(), F.normalize(source).numpy())
        rows = np.unique(people, return_index=True)[1]
        for name, images in (("images", target), ("one each", target[rows])):
            rejected[name] += two_sample_test(source, images, permutations=99, seed=draw).beyond_chance
    assert rejected["images"] > 0.9 * 150
    assert rejected["one each"] / 150 == pytest.approx(0.05, abs=0.05)


def test_the_warning_counts_the_subjects_and_tests_one_image_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = drawn(60, 1, seed=0), drawn(12, 5, seed=1)
    entry = made(monkeypatch, source, target)()
    assert entry[KEY]["fc7"]["p_value"] <= 0.05
    (warning,) = entry["warnings"]
    assert "the 60 held-out target images seem to show 12 subjects" in warning
    expected = two_sample_test(source, target[:12], weights=(1 / 3,) * 3, bandwidth_multipliers=(0.5, 1, 2))
    assert re.findall(r"p = ([\d.]+)", warning) == [f"{expected.p_value:.3f}"] * 2
    assert expected.p_value > 0.05


def test_a_real_shift_is_found_with_one_image_of_each_too(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = made(monkeypatch, drawn(60, 1, seed=0), drawn(12, 5, seed=1, shift=0.8))()
    (warning,) = entry["warnings"]
    assert warning.endswith("fc6 p = 0.001, fc7 p = 0.001")


def test_subjects_that_do_not_stand_out_remain_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = drawn(60, 1, seed=1, shift=0.8)
    assert made(monkeypatch, drawn(60, 1, seed=0), shifted)()["warnings"] == [IDENTITIES_UNKNOWN]
    far = drawn(60, 1, seed=1, shift=3)
    assert made(monkeypatch, drawn(2, 1, seed=0), far)()["warnings"] == [IDENTITIES_UNKNOWN]  # no impostors
    assert "warnings" not in made(monkeypatch, drawn(60, 1, seed=0), drawn(60, 1, seed=1))()


def test_the_end_of_a_run_warns_of_both_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = made(monkeypatch, drawn(60, 1, seed=0), drawn(12, 5, seed=1))()
    unknown = made(monkeypatch, drawn(60, 1, seed=0), drawn(60, 1, seed=1, shift=0.8))()
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": step, **entry}) + "\n" for step, entry in enumerate((few, unknown))))
    notes = Notes()
    tell(log, notes)
    (warning,) = notes.warnings
    assert warning.startswith("before adaptation the 60 held-out target images")
    assert IDENTITIES_UNKNOWN in notes.notes


def test_a_fall_of_mmd_is_not_told_as_a_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = made(monkeypatch, drawn(60, 1, seed=0), drawn(60, 1, seed=1, shift=1.0))()
    after = made(monkeypatch, drawn(60, 1, seed=0), drawn(60, 1, seed=1))()
    log, report = tmp_path / "metrics.jsonl", Notes()
    log.write_text("".join(json.dumps({"step": step} | entry) + "\n" for step, entry in enumerate((before, after))))
    tell(log, report)
    (note,) = (note for note in report.notes if "multiples of chance" in note)
    tests = after[KEY]
    told = [float(value) for value in re.findall(r"fc\d (\d+\.\d)", note)]
    assert told == [round(max(0.0, tests[layer]["mmd2"]) / tests[layer]["chance"], 1) for layer in LAYERS]
    assert "does not show that recognition improved" in note
