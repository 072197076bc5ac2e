"""One of several processes that stream a verification together: part, parts, directory of the store and the results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from processes import joined

from facedan_cli.metrics import streaming
from facedan_cli.metrics.streaming import verification_of_tiles, verification_streamed

FARS = ("0.1", "0.001", "1")


def features(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 23
    vectors = np.random.default_rng(0).normal(size=(23, 16))[labels] + rng.normal(size=(rows, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def pieces():
    rng = np.random.default_rng(5)
    for rows in (3, 1, 7, 2):
        yield rng.integers(-4, 5, (rows, 9)).astype(np.float32), rng.random((rows, 9)) < 0.3


def stream(part: int, parts: int, directory: Path) -> None:
    (query, a), (target, b) = features(101, 1), features(70, 2)
    streaming.TILE = 32
    seen: list[int] = []
    with joined(part, parts, directory):
        results = [
            verification_streamed(query, target, a, b, FARS, advance=seen.append),
            verification_streamed(query, query, a, a, FARS, once=True),
            verification_of_tiles(pieces, FARS),
        ]
    found = {
        "points": [[asdict(point) for point in result.points.values()] for result in results],
        "eer": [result.eer for result in results],
        "curve": [[result.curve.far.tolist(), result.curve.vr.tolist()] for result in results],
        "seen": sum(seen),
    }
    (directory / f"found{part}.json").write_text(json.dumps(found), encoding="utf-8")
