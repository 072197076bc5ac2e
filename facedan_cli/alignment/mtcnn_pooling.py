"""Max-pooling on a CPU without the indices of the maxima, which take PyTorch's pooling most of its time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaxPool(nn.Module):
    """`nn.MaxPool2d(size, 2, ceil_mode=True)` for windows of 2 or 3, to the bit.

    Args:
        size: side of the windows.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def forward(self, inputs: Tensor) -> Tensor:  # (n, channels, height, width)
        """Pool inputs whose sides are at least `size`."""
        return _pooled(_pooled(inputs, 2, self._size), 3, self._size)


def _pooled(inputs: Tensor, axis: int, size: int) -> Tensor:
    """The maxima of every second window along one axis; the last window may lack its last element."""
    count = -(-(inputs.size(axis) - size) // 2) + 1
    first, second, *third = (_every_second(inputs, axis, offset, count) for offset in range(size))
    if second.size(axis) == count:
        pooled = torch.maximum(first, second)
        others = third
    else:
        pooled = first.clone()
        others = [second]
    for other in others:
        part = pooled.narrow(axis, 0, other.size(axis))
        torch.maximum(part, other, out=part)
    return pooled


def _every_second(inputs: Tensor, axis: int, offset: int, count: int) -> Tensor:
    """At most `count` elements along axis 2 or 3, from `offset` on."""
    wanted = slice(offset, offset + 2 * count, 2)
    return inputs[:, :, wanted] if axis == 2 else inputs[..., wanted]
