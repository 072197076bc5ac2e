"""Published recognisers on real images, by the command line alone: aligned for them, imported, measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome

SUBJECTS = 150


@pytest.fixture
def images(shared_data: Path, tmp_path: Path) -> Path:
    """The first two images of some subjects of LFW, by links."""
    for folder in sorted((shared_data / "lfw").iterdir())[::4][:SUBJECTS]:
        (tmp_path / "raw" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:2]:
            (tmp_path / "raw" / folder.name / path.name).symlink_to(path)
    return tmp_path / "raw"


def verification(facedan: Callable[..., Outcome], images: Path, weights: Path) -> dict[str, Any]:
    """What `evaluate verify` says of all comparisons of the images, aligned for the network of these weights."""
    place = images.parent
    aligned = facedan("align", images, place / "aligned" / "lfw", "--for", weights, "--workers", "1", "-q")
    assert aligned.code == 0, aligned.err
    options = ("--far", "0.001", "--replicates", "0", "--strict", "--json", "-q", "-w", place)
    ended = facedan("evaluate", "verify", "lfw", "--model", weights, *options)
    assert ended.code == 0, ended.err
    rates: dict[str, Any] = json.loads(ended.out)["models"][0]["partitions"]["all"]
    return rates


def test_mobilefacenet_recognises_lfw(facedan: Callable[..., Outcome], images: Path, shared_data: Path) -> None:
    weights = shared_data.parent / "weights" / "mobilefacenet.pt"
    if not weights.is_file():
        pytest.skip(f"{weights} is not there")
    rates = verification(facedan, images, weights)
    assert (rates["genuine"], rates["failures"]["images"]) == (SUBJECTS, 0)
    assert rates["vr"]["0.001"] >= 0.97  # 98.7 %; on all images of 610 subjects 99.0 %
    assert rates["eer"]["mid"] <= 0.015


def test_dlib_s_network_recognises_lfw(facedan: Callable[..., Outcome], images: Path) -> None:
    package = find_spec("face_recognition_models")
    if package is None or package.origin is None:
        pytest.skip("face_recognition_models is not installed")
    weights = Path(package.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    rates = verification(facedan, images, weights)
    assert rates["vr"]["0.001"] >= 0.85
    assert rates["eer"]["mid"] <= 0.03
