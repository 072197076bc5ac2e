from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from align_sets import draw_set, made
from processes import start_facedan

from facedan_cli.alignment.align import align
from facedan_cli.config.common import AlignConfig

IMAGES = 160
KILLS = 2


def test_an_alignment_survives_kills_at_any_moment(tmp_path: Path) -> None:
    draw_set(tmp_path, IMAGES)
    (tmp_path / "raw" / "p000" / "0.png").write_bytes(b"no image")
    arguments = ("--landmarks", tmp_path / "eyes.csv", "--device", "cpu", "--workers", 2, "--detector-batch", 2)
    align(AlignConfig(raw=tmp_path / "raw", out=tmp_path / "whole", landmarks=tmp_path / "eyes.csv", device="cpu"))
    manifest = tmp_path / "out" / "aligned.jsonl"
    moments = random.Random(5)
    recorded = [0]
    for kill in range(1, KILLS + 1):
        process = start_facedan("align", tmp_path / "raw", tmp_path / "out", *arguments)
        goal = IMAGES * kill // (KILLS + 2)
        while process.returncode is None and (not manifest.exists() or manifest.read_bytes().count(b"\n") <= goal):
            time.sleep(moments.uniform(0, 0.005))
        process.kill()
        assert process.returncode == -signal.SIGKILL
        recorded.append(manifest.read_bytes().count(b"\n"))
        assert recorded[-2] < recorded[-1] < IMAGES

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    lines = manifest.read_text().splitlines(keepends=True)
    last = start_facedan("align", tmp_path / "raw", tmp_path / "out", *arguments, "--json")
    out, err = last.communicate()
    assert last.returncode == 3, err
    assert f'"already": {recorded[-1] - 1}' in out  # the one that is no image is not tried again
    assert made(tmp_path / "out") == made(tmp_path / "whole")
    assert manifest.read_text().startswith("".join(lines[: recorded[-1]]))
    redone = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert len(redone) <= len(stamps) - recorded[-1] + 1  # only what was made and not yet recorded
