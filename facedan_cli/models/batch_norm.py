"""Batch normalisation: whose statistics it uses in training, and statistics that are estimated anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from facedan_cli.distributed import add_over_processes, world_size


class Moments(NamedTuple):
    """Mean and unbiased variance of a layer's input, float64, shape (channels,) each."""

    mean: Tensor
    variance: Tensor


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisation layers with running statistics, by dotted path."""
    return {path: module for path, module in network.named_modules() if _has_statistics(module)}


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network has such a layer."""
    return any(_has_statistics(module) for module in network.modules())


def _has_statistics(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


@contextmanager
def batch_statistics(rows: int, of: int, *, follow: bool = True) -> Iterator[None]:
    """Let layers in training mode normalise all rows by the statistics of the first rows, over all processes.

    The gradient goes through these statistics, to which other rows do not contribute.

    Args:
        rows: number of this process's first rows, which give the statistics.
        of: number of rows of this process's batch.
        follow: whether the running statistics are updated by them, with the layer's momentum.
    """
    if rows == of and follow and world_size() == 1:  # what batch normalisation does anyway
        yield
        return
    with _OfFirstRows(rows, follow):
        yield


class _OfFirstRows(TorchFunctionMode):
    """Takes the place of `F.batch_norm`, by which also the layers of other libraries normalise."""

    def __init__(self, rows: int, follow: bool) -> None:
        super().__init__()
        self.rows = rows
        self.follow = follow

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        return self._normalised(func, *args, **kwargs)

    def _normalised(
        self,
        func: Callable[..., Any],
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return func(input, running_mean, running_var, weight, bias, training, momentum, eps)  # type: ignore[no-any-return]
        count, mean, variance = _moments(input[: self.rows])
        if self.follow and running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1, *(1 for _ in input.shape[2:]))
        return (input * scale.view(shape) + shift.view(shape)).to(input.dtype)


def _moments(x: Tensor) -> tuple[float, Tensor, Tensor]:
    """Values a channel, their mean and biased variance over all processes, with a gradient; (channels,) float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    others = [0, *range(2, x.dim())]
    if world_size() == 1:
        variance, mean = torch.var_mean(x, others, correction=0)
        count: float = x.numel() / x.shape[1]
    else:
        sums = add_over_processes(torch.cat([x.sum(others), x.new_tensor([x.numel() / x.shape[1]])]))
        count = float(sums[-1].detach())
        mean = sums[:-1] / count
        squares = (x - mean.view(1, -1, *(1 for _ in x.shape[2:]))).square()
        variance = add_over_processes(squares.sum(others)) / count
    if count < 2:
        raise ValueError(f"one value a channel has no variance: {tuple(x.shape)}")
    return count, mean, variance


@torch.no_grad()
def statistics_of(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Moments]:
    """Mean and variance of the input of each batch normalisation of a network, over all batches.

    The layers before it normalise each batch by its own statistics; everything else is in evaluation mode. With one
    batch this is exact: each layer's statistics fit the features under the new statistics. The network is not changed.

    Args:
        network: the network, whose `forward` takes the batches.
        batches: batches of two or more images, mixed alike, not by subjects.

    Returns:
        By dotted path; layers that no batch reached are left out.
    """
    layers, training = batch_norms(network), network.training
    sums = {path: _Sums() for path in layers}
    before = {path: {name: value.clone() for name, value in layer.named_buffers()} for path, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(sums[path].add) for path, layer in layers.items()]
    network.eval()
    try:
        for layer in layers.values():
            layer.train()
        for images in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
        for path, layer in layers.items():
            for name, value in layer.named_buffers():
                value.copy_(before[path][name])
        network.train(training)
    return {path: found.moments() for path, found in sums.items() if found.count > 1}


@torch.no_grad()
def set_statistics(network: nn.Module, found: Mapping[str, Moments], mix: float = 1.0) -> None:
    """Replace running statistics by (1 − mix) · old + mix · found, in place."""
    layers = batch_norms(network)
    for path, moments in found.items():
        for value, new in zip((layers[path].running_mean, layers[path].running_var), moments, strict=True):
            assert value is not None
            value.copy_((1 - mix) * value.double() + mix * new.to(value.device))


class _Sums:
    """Mean and squared deviations of the values of a channel, over batches (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        """Add a batch: a forward hook before the layer."""
        x = given[0].detach()
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = (of.double() for of in torch.var_mean(x, [0, *range(2, x.dim())], correction=0))
        count = x.numel() // x.shape[1]
        moved, total = mean - self.mean, self.count + count
        self.squares = self.squares + variance * count + moved**2 * (self.count * count / total)
        self.mean = self.mean + moved * (count / total)
        self.count = total

    def moments(self) -> Moments:
        """The moments of all batches."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.squares, Tensor)
        return Moments(self.mean, self.squares / (self.count - 1))
