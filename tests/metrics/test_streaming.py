from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import stream_ranks
import torch
from processes import run_together
from stream_ranks import FARS, features, pieces

from facedan_cli.metrics import streaming
from facedan_cli.metrics.roc import equal_error_rate, verification_rate
from facedan_cli.metrics.streaming import verification_of_tiles, verification_streamed


def score_matrix(query: np.ndarray, target: np.ndarray, tile: int) -> np.ndarray:
    """All scores, made of the products that the tiles are made of."""
    scores = np.empty((len(query), len(target)), np.float32)
    for row in range(0, len(query), tile):
        for column in range(0, len(target), tile):
            blocks = torch.zeros(2, tile, query.shape[1])
            for block, rows in zip(blocks, (query[row : row + tile], target[column : column + tile]), strict=True):
                block[: len(rows)] = torch.from_numpy(rows)
            part = scores[row : row + tile, column : column + tile]
            part[:] = (blocks[0] @ blocks[1].T).numpy()[: part.shape[0], : part.shape[1]]
    return scores


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "TILE", 32)


@pytest.mark.parametrize("tile", [13, 32, 200])
def test_figures_are_those_of_the_whole_matrix(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "TILE", tile)
    (query, a), (target, b) = features(101, 1), features(70, 2)
    scores, mates = score_matrix(query, target, tile), np.equal.outer(a, b)
    found = verification_streamed(query, target, a, b, FARS)
    assert found.points == {far: verification_rate(scores[mates], scores[~mates], far) for far in FARS}
    assert found.eer == equal_error_rate(scores[mates], scores[~mates])


def test_a_set_with_itself_compares_each_pair_once() -> None:
    query, a = features(101, 1)
    scores, once = score_matrix(query, query, 32), np.triu(np.ones((101, 101), bool), k=1)
    mates = np.equal.outer(a, a)
    found = verification_streamed(query, query, a, a, FARS, once=True)
    assert found.points == {far: verification_rate(scores[mates & once], scores[~mates & once], far) for far in FARS}
    point = found.points["0.1"]
    assert point.genuine + point.impostor == 101 * 100 // 2


def test_labels_may_be_text_and_features_memory_mapped(tmp_path: Path) -> None:
    (query, a), (target, b) = features(101, 1), features(70, 2)
    np.save(tmp_path / "query.npy", query)
    mapped = np.load(tmp_path / "query.npy", mmap_mode="r")
    named = (np.char.mod("s%02d", labels) for labels in (a, b))
    found = verification_streamed(mapped, target, *named, FARS)
    assert found.points == verification_streamed(query, target, a, b, FARS).points


def test_pieces_of_any_shape() -> None:
    scores, mates = (np.concatenate([part.ravel() for part in side]) for side in zip(*pieces(), strict=True))
    found = verification_of_tiles(pieces, FARS)
    assert found.points == {far: verification_rate(scores[mates], scores[~mates], far) for far in FARS}


def test_several_processes_are_one(tmp_path: Path) -> None:
    found = {}
    for parts in (1, 2):
        directory = tmp_path / str(parts)
        directory.mkdir()
        if parts == 1:
            stream_ranks.stream(0, 1, directory)
        else:
            run_together(stream_ranks.stream, parts, directory)
        found[parts] = [json.loads((directory / f"found{part}.json").read_text("utf-8")) for part in range(parts)]
    seen = [result.pop("seen") for result in found[2]]
    assert sum(seen) == found[1][0].pop("seen") == 2 * 101 * 70
    assert min(seen) > 0
    assert found[2][0] == found[2][1] == found[1][0]


def test_the_precision_of_products_is_set_back() -> None:
    query, a = features(30, 1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ValueError, match="no impostor"):
            verification_streamed(query, query, a * 0, a * 0, FARS)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_unusable_features_are_refused() -> None:
    query, a = features(30, 1)
    with pytest.raises(ValueError, match="30 and 29 labels"):
        verification_streamed(query, query, a, a[1:], FARS)
    with pytest.raises(ValueError, match="features of shapes"):
        verification_streamed(query, query[:, 1:], a, a, FARS)
    broken = query.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        verification_streamed(broken, query, a, a, FARS)


def test_pieces_that_change_are_noticed() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="bit for bit"):
        verification_of_tiles(lambda: [(rng.random(50, np.float32), np.arange(50) < 10)], FARS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_counts_its_own_scores_exactly() -> None:
    (query, a), (target, b) = features(101, 1), features(70, 2)
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        found = verification_streamed(query, target, a, b, FARS, device="cuda")
    finally:
        torch.set_float32_matmul_precision(allowed)
    on_cpu = verification_streamed(query, target, a, b, FARS)
    for far in FARS:
        assert found.points[far].threshold == pytest.approx(on_cpu.points[far].threshold, abs=1e-6)  # TF32: 1e-3
        assert found.points[far].vr == pytest.approx(on_cpu.points[far].vr, abs=0.01)
