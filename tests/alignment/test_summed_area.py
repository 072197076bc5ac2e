from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d

from facedan_cli.alignment.summed_area import SummedImages


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pooled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What facenet-pytorch does: adaptive average pooling, then (x - 127.5) / 128."""
    channels = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)
    means = adaptive_avg_pool2d(channels, (height, width)).permute(1, 2, 0).numpy()
    return (means - 127.5) / 128


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(1, 70))
def test_scaled_is_adaptive_average_pooling(rows: int, columns: int, height: int, width: int) -> None:
    images = [image(rows, columns, seed) for seed in range(2)]
    levels = SummedImages(images).scaled(0, 2, height, width)
    for level, whole in zip(levels, images, strict=True):
        np.testing.assert_allclose(level, pooled(whole, height, width), atol=1e-6)


@given(st.data(), st.sampled_from([5, 24]))
def test_crops_are_adaptive_average_pooling_of_each_box(data: st.DataObject, side: int) -> None:
    images = [image(30, 40, 1), image(30, 40, 2), image(50, 20, 3)]
    owners, boxes = [], []
    for _ in range(4):
        owner = data.draw(st.integers(0, 2))
        height, width = images[owner].shape[:2]
        left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        owners.append(owner)
        boxes.append((left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))))
    crops = SummedImages(images).crops(np.array(owners), np.array(boxes), side)
    for crop, owner, (left, top, right, bottom) in zip(crops, owners, boxes, strict=True):
        np.testing.assert_allclose(crop, pooled(images[owner][top:bottom, left:right], side, side), atol=1e-6)


@given(st.data(), st.sampled_from([5, 24]))
def test_outside_the_image_all_is_black(data: st.DataObject, side: int) -> None:
    images = [image(12, 17, 1), image(9, 8, 2)]
    owner = data.draw(st.integers(0, 1))
    height, width = images[owner].shape[:2]
    left, top = data.draw(st.integers(-30, width + 5)), data.draw(st.integers(-30, height + 5))
    right, bottom = left + data.draw(st.integers(1, 60)), top + data.draw(st.integers(1, 60))
    padded = np.pad(images[owner], ((100, 100), (100, 100), (0, 0)))[100 + top : 100 + bottom, 100 + left : 100 + right]
    (crop,) = SummedImages(images).crops(np.array([owner]), np.array([(left, top, right, bottom)]), side)
    np.testing.assert_allclose(crop, pooled(padded, side, side), atol=1e-6)


def test_sums_beyond_32_bits_still_give_means() -> None:
    white = np.full((3000, 3000, 3), 255, np.uint8)
    level = SummedImages([white]).scaled(0, 1, 7, 7)
    np.testing.assert_allclose(level, (255 - 127.5) / 128, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_no_boxes_give_no_crops(count: int) -> None:
    crops = SummedImages([image(9, 9)] * count).crops(np.empty(0, int), np.empty((0, 4), int), 24)
    assert crops.shape == (0, 24, 24, 3)


def test_a_strip_is_a_part_of_the_whole() -> None:
    tables = SummedImages([image(40, 30)])
    np.testing.assert_array_equal(tables.scaled(0, 1, 17, 9, slice(4, 11)), tables.scaled(0, 1, 17, 9)[:, 4:11])
