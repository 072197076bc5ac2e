"""Boxes of a cascade: grown to squares, moved by what a network says, and without those that a better one overlaps.

Left, top, right and bottom count pixels from one, both ends included, as MTCNN does: a box of one pixel has equal ends.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import nms

_NESTED = 0.7  # of the smaller box


def moved(boxes: np.ndarray, shifts: np.ndarray, last: int = 1) -> np.ndarray:
    """Boxes with their ends shifted by shares of their sides, both (n, 4).

    Args:
        boxes: they.
        shifts: the shares.
        last: 0 if the last pixel does not count as one of the side's.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + last
    result: np.ndarray = boxes + shifts * np.hstack([sides, sides])
    return result


def squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes grown about their centres to squares."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(1, keepdims=True)
    start = boxes[:, :2] + sides * np.float32(0.5) - side * np.float32(0.5)
    squares: np.ndarray = np.hstack([start, start + side])
    return squares


def suppress(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes that no better one of their group overlaps by more than `threshold` (IoU)."""
    all_boxes, all_scores = torch.from_numpy(boxes), torch.from_numpy(scores)
    return np.concatenate([own[nms(all_boxes[own], all_scores[own], threshold).numpy()] for own in _members(groups)])


def suppress_nested(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Indices of the boxes without those that lie in a better one: the overlap is measured against the smaller box."""
    left, top, right, bottom = boxes.T
    area = (right - left + 1) * (bottom - top + 1)
    kept: list[int] = []
    for own in _members(groups):
        better: list[int] = []
        for i in own[np.argsort(scores[own], kind="stable")[::-1]]:
            width = np.minimum(right[i], right[better]) - np.maximum(left[i], left[better]) + 1
            height = np.minimum(bottom[i], bottom[better]) - np.maximum(top[i], top[better]) + 1
            overlap = np.maximum(0, width) * np.maximum(0, height)
            if (overlap <= _NESTED * np.minimum(area[i], area[better])).all():
                better.append(int(i))
        kept += better
    return np.array(kept, np.int64)


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The indices of each group's members, in their order; one empty group where there are none."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
