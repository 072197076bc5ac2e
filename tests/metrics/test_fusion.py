from __future__ import annotations

import numpy as np
import pytest

from facedan_cli.metrics.fusion import fuse, z_normalised


def test_scores_get_mean_0_and_deviation_1_and_keep_their_order_and_ties() -> None:
    scores = np.array([[3.0, 1.0], [1.0, 7.0]], np.float32)
    found = z_normalised(scores)
    assert found == pytest.approx(np.array([[0, -2], [-2, 4]]) / np.sqrt(6))
    assert found.mean() == pytest.approx(0)
    assert found.std() == pytest.approx(1)
    assert found[0, 1] == found[1, 0]


def test_scale_and_offset_of_a_matcher_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    assert fuse([a, 1000 * b - 7]) == pytest.approx(fuse([a, b]))
    assert fuse([a, b]) == pytest.approx(z_normalised(a) + z_normalised(b))


def test_a_matcher_that_tells_nothing_adds_nothing() -> None:
    a = np.array([0.1, 0.7, 0.3])
    assert fuse([a, np.full(3, 0.1)]).tolist() == z_normalised(a).tolist()


def test_two_weak_matchers_are_better_together() -> None:
    rng = np.random.default_rng(1)
    same = np.repeat([True, False], 500)
    matchers = [same + rng.normal(size=1000) for _ in range(2)]

    def error(scores: np.ndarray) -> float:
        return float(np.mean(scores[same][:, None] <= scores[~same][None, :]))

    assert error(fuse(matchers)) < 0.8 * min(map(error, matchers))


@pytest.mark.parametrize("matchers", [[], [[]], [[0.1, np.nan]], [[0.1, np.inf]], [[0.1, 0.2], [0.1]]])
def test_unusable_scores_are_refused(matchers) -> None:
    with pytest.raises(ValueError, match=r"normalised|differ"):
        fuse(matchers)
