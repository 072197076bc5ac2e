from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from align_sets import draw_set, made
from processes import facedan_ranks

from facedan_cli.alignment.align import align
from facedan_cli.alignment.ranks import manifest_of, merge_parts, share_of
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import ManifestWriter
from facedan_cli.distributed import DistEnv
from facedan_cli.errors import FacedanError
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render


@pytest.fixture
def config(tmp_path: Path) -> AlignConfig:
    draw_set(tmp_path, 30)
    return AlignConfig(
        raw=tmp_path / "raw", out=tmp_path / "out", landmarks=tmp_path / "eyes.csv", size=60, device="cpu", workers=1
    )


def test_two_processes_make_what_one_makes(config: AlignConfig, tmp_path: Path) -> None:
    for number in range(8):  # not among the landmarks: these are searched
        random = np.random.default_rng(number)
        face = render(draw_identity(random), draw_view(random, WEB), 130)
        cv2.imwrite(str(config.raw / f"searched{number}.png"), face)
    (config.raw / "p001" / "3.png").write_bytes(b"no image")
    cv2.imwrite(str(config.raw / "p001" / "4.bmp"), np.zeros((90, 90, 3), np.uint8))  # wants 4.png's name
    alone = align(replace(config, out=tmp_path / "alone"))
    options = ("--landmarks", config.landmarks, "--size", config.size, "--device", "cpu")
    # Both end with 0: a launcher takes every other code for a crash.
    out, err = facedan_ranks(
        2, "align", config.raw, config.out, *options, "--json", "--contact-sheet", tmp_path / "s.png"
    )
    assert (tmp_path / "s.png").is_file()
    assert "set-aside.tsv names each" in err
    counted = json.loads(out)
    assert made(config.out) == made(tmp_path / "alone")
    assert (counted["aligned"], counted["failed"]) == (alone.aligned, alone.failed)
    assert alone.failed >= 2
    assert align(config).already == alone.aligned


def test_parts_that_a_killed_job_left_are_taken_in(config: AlignConfig) -> None:
    whole = align(config).manifest.read_bytes()
    before = made(config.out)
    lines = whole.splitlines(keepends=True)
    (config.out / "aligned.jsonl").write_bytes(b"".join(lines[:5]))
    (config.out / "aligned.rank0-of-2.jsonl").write_bytes(b"".join(lines[5:20:2]))
    (config.out / "aligned.rank1-of-2.jsonl").write_bytes(b"".join(lines[6:20:2]) + lines[20][:40])
    again = align(config)
    assert (again.aligned, again.already) == (10, 20)
    assert made(config.out) == before


def test_a_merge_that_is_cut_short_neither_loses_nor_repeats_a_line(config: AlignConfig) -> None:
    lines = align(config).manifest.read_bytes().splitlines(keepends=True)
    first, part = b"".join(lines[:10]), b"".join(lines[10:20])
    manifest = config.out / "aligned.jsonl"
    for copied in (0, 1, len(lines[10]) - 1, len(lines[10]), len(part) - 1, len(part)):
        manifest.write_bytes(first + part[:copied])
        (config.out / f"aligned.merging-at-{len(first)}.jsonl").write_bytes(part)
        (config.out / "aligned.rank1-of-3.jsonl").write_bytes(b"".join(lines[20:]) + b"torn")
        merge_parts(config.out)
        assert manifest.read_bytes() == b"".join(lines)
        assert [path.name for path in config.out.glob("*.jsonl")] == ["aligned.jsonl"]


def test_parts_are_not_taken_from_a_process_at_work(config: AlignConfig) -> None:
    config.out.mkdir()
    with (
        ManifestWriter(config.out / "aligned.rank1-of-2.jsonl"),
        pytest.raises(FacedanError, match=r"another process writes .*rank1-of-2"),
    ):
        align(config)
    assert align(config).aligned == 30


def test_each_process_has_its_own_manifest() -> None:
    assert manifest_of(DistEnv(), Path("out")) == Path("out/aligned.jsonl")
    assert manifest_of(DistEnv(1, 2), Path("out")) == Path("out/aligned.rank1-of-2.jsonl")


def test_shares_are_disjoint_and_complete() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
    shares = np.array([share_of(DistEnv(rank, 3), keys) for rank in range(3)])
    assert (shares.sum(0) == 1).all()
    assert (shares.sum(1) > 250).all()
