"""Boxes of a detection cascade: moved boxes, square boxes, and non-maximum suppression.

Left, top, right and bottom count pixels from one, both ends included, as MTCNN does: a box of one pixel has equal ends.
"""

from __future__ import annotations

import numpy as np
import torch

_NESTED = 0.7  # of the smaller box


def moved(boxes: np.ndarray, shifts: np.ndarray, last: int = 1) -> np.ndarray:
    """Boxes whose edges are shifted by shares of their sides, both (n, 4).

    Args:
        boxes: left, top, right and bottom of each box, pixels.
        shifts: the shift of each edge as a share of its side.
        last: 1 if a side includes its last pixel, else 0.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + last
    result: np.ndarray = boxes + shifts * np.hstack([sides, sides])
    return result


def squared(boxes: np.ndarray) -> np.ndarray:
    """Square boxes about the same centres; a side is the longer one of the box."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(1, keepdims=True)
    start = boxes[:, :2] + sides * np.float32(0.5) - side * np.float32(0.5)
    squares: np.ndarray = np.hstack([start, start + side])
    return squares


def suppress(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes that no better box of their group overlaps by more than `threshold` (IoU)."""
    from torchvision.ops import nms

    all_boxes, all_scores = torch.from_numpy(boxes), torch.from_numpy(scores)
    return np.concatenate([own[nms(all_boxes[own], all_scores[own], threshold).numpy()] for own in _members(groups)])


def suppress_nested(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Indices of the boxes that no better box of their group overlaps by more than 0.7 of the smaller box."""
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
    """The indices of each group's members, in order; one empty group if there are no members."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
