from __future__ import annotations

import math

import pytest
import torch

from facedan_cli.adaptation.diagnostics import effective_rank, mean_cosine, mean_norm


def rows(count: int, size: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "size"), [(9, 4), (5, 30)])
def test_effective_rank_is_the_exponential_entropy_of_singular_values(count: int, size: int) -> None:
    features = rows(count, size) + 3
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    shares = values[values > 1e-9] / values.sum()
    assert effective_rank(features) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares.tolist())), rel=1e-5)


def test_effective_rank_of_a_line_is_one_and_of_a_point_zero() -> None:
    assert effective_rank(torch.arange(8.0)[:, None] * rows(1, 50) + 2) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.full((5, 4), 0.3)) == 0
    assert effective_rank(torch.eye(6)) == pytest.approx(5)


def test_mean_cosine_is_over_pairs_of_different_rows() -> None:
    features = rows(7, 5)
    cosines = [
        float(torch.cosine_similarity(features[i], features[j], dim=0)) for i in range(7) for j in range(7) if i != j
    ]
    assert mean_cosine(features) == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    assert mean_cosine(torch.tensor([[1.0, 0.0], [3.0, 0.0]])) == pytest.approx(1)
    assert mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == pytest.approx(0)  # a dead row points nowhere


def test_mean_norm() -> None:
    assert mean_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(3)
