from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedan_cli.alignment.align import align
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.batches import read_face
from facedan_cli.data.manifest import read_records
from facedan_cli.errors import FacedanError, UsageError


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> AlignConfig:
    raw = tmp_path / "raw" / "anna"
    raw.mkdir(parents=True)
    (raw / "same.jpg").write_bytes(jpeg(image(112, 112), quality=60))
    (raw / "grey.jpeg").write_bytes(jpeg(image(112, 112).convert("L")))
    image(112, 112, 1).save(raw / "lossless.png")
    image(224, 224, 2).save(raw / "large.png")
    image(56, 80, 3).save(raw / "upright.png")
    (raw / "short.jpg").write_bytes(jpeg(image(112, 112))[:-300])
    return AlignConfig(raw=tmp_path / "raw", out=tmp_path / "out", size=112, no_align=True)


def test_copying_needs_no_device(config: AlignConfig) -> None:
    assert align(replace(config, device="cuda:99")).aligned == 5


def test_jpegs_of_the_size_are_copied_and_others_scaled(config: AlignConfig) -> None:
    result = align(config)
    assert (result.aligned, result.failed) == (5, 1)
    records = {record.path.partition("/")[2]: record for record in read_records(result.manifest)}
    assert {name: record.source for name, record in records.items()} == {
        "same.jpg": "copied",
        "grey.jpeg": "copied",
        "lossless.png": "resized",
        "large.png": "resized",
        "upright.png": "resized",
        "short.jpg": None,
    }
    for name, record in records.items():
        assert (record.template, record.size, record.points, record.transform) == ("given", 112, None, None)
        if record.source == "copied":
            assert (config.out / record.output).read_bytes() == (config.raw / "anna" / name).read_bytes()
        elif record.source == "resized":
            with Image.open(config.out / record.output) as face:
                assert (face.format, face.size) == ("JPEG", (112, 112))
                expected = read_face(config.raw / "anna" / name, 112).astype(int)
                assert np.abs(np.asarray(face).astype(int) - expected).mean() < 3
    assert result.set_aside.read_text() == "anna/short.jpg\tcut short: the end of the file is missing\n"


def test_again_does_only_what_is_missing(config: AlignConfig) -> None:
    first = align(config)
    lines = first.manifest.read_bytes()
    (config.out / "anna" / "same.jpg").unlink()
    assert align(config) == replace(first, aligned=1, already=4)
    assert first.manifest.read_bytes()[: len(lines)] == lines
    assert align(config) == replace(first, aligned=0, already=5)


def test_copied_and_aligned_faces_are_not_mixed(config: AlignConfig) -> None:
    align(config)
    with pytest.raises(FacedanError, match="with another --no-align"):
        align(replace(config, no_align=False))
    with pytest.raises(FacedanError, match=r"with another --size$"):
        align(replace(config, size=100))
    assert json.loads((config.out / "align.json").read_text()) == {"no_align": True, "size": 112}


def test_landmarks_have_no_use_there(config: AlignConfig) -> None:
    with pytest.raises(UsageError, match="--no-align and --landmarks"):
        align(replace(config, landmarks=config.raw / "eyes.csv"))
