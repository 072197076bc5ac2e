from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from facedan_cli.figures.domains import plot_domains, principal_plane

pytestmark = pytest.mark.usefixtures("drawn_figures")


def features(count: int, length: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, length)) * np.linspace(3, 0.1, length) + random.normal(size=length)


def test_the_plane_is_that_of_principal_component_analysis() -> None:
    rows = features(40, 12, 0)
    points, shares = principal_plane(rows)
    reference = PCA(2).fit(rows)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(points), np.abs(reference.transform(rows)), rtol=1e-8, atol=1e-9)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


def test_rows_that_are_all_one_lie_in_one_point() -> None:
    points, shares = principal_plane(np.ones((5, 3)))
    assert not points.any()
    assert not shares.any()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_image_is_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    before = {layer: (features(9, 5, 1), features(7, 5, 2)) for layer in ("fc6", "$_fc7")}
    after = {layer: (source + 1, target) for layer, (source, target) in before.items()}
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        plot_domains(before, after, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if suffix == "svg":
        text = paths[0].read_text(encoding="utf-8")
        assert all(word in text for word in ("fc6 before", "fc6 after", "source", "target"))
