"""Noise of the MMD² estimators, its reduction by a memory bank, and the contraction by the biased estimator.

    python benchmarks/estimators.py [--json] [--smoke]

Noise: the standard deviation of each estimate over batches, for domains a small shift apart, beside the estimated
value. Memory bank: the cosine between the gradient of a batch of 32 with past rows and that of a very large sample,
and the cost of a call at d = 4096 (one thread: OMP_NUM_THREADS=1).

Contraction: source and target are drawn from one distribution, so a penalty should do nothing. The contraction is
∂MMD²/∂log(scale) of the features: how fast gradient descent shrinks them. For standard normal features its expectation
is known: zero for the unbiased estimate, −(1/n + 1/m) · ∂E k/∂log(scale) for the biased one (`predicted`). `spread` is
the remaining share of the features' distance from their mean after gradient descent on MMD² alone, each step with a
fresh batch from the two clouds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from facedan_cli.adaptation.mmd import mk_mmd

FEATURES = 64
GAMMA = 2.0 * FEATURES
SHIFT = 0.15
MULTIPLIERS = (1.0, 2.0, 4.0, 8.0, 16.0)
RATE = 40.0


@dataclass(frozen=True)
class Extent:
    """The sizes of the measurements.

    Args:
        sizes: of the batches.
        queues: past rows.
        draws: batches that a mean is taken of.
        large: rows of the very large sample.
        wide: features of the calls that are timed.
        cloud: rows of the clouds that descent moves.
        steps: of the descent.
    """

    sizes: tuple[int, ...] = (8, 32, 128)
    queues: tuple[int, ...] = (0, 32, 128, 512)
    draws: int = 400
    large: int = 1500
    wide: int = 4096
    cloud: int = 1000
    steps: int = 1000


SMALL = Extent(sizes=(4,), queues=(0, 8), draws=20, large=40, wide=64, cloud=40, steps=5)


def mmd2(source: Tensor, target: Tensor, estimator: str) -> Tensor:
    """MMD² with five kernels."""
    return mk_mmd(
        source, target, bandwidth=GAMMA, weights=(0.2,) * 5, bandwidth_multipliers=MULTIPLIERS, estimator=estimator
    )


def batches(draw: int, n: int, *, shift: float = 0.0, size: int = FEATURES) -> list[Tensor]:
    """A source and a target batch of standard normal features, with means `shift` apart in every direction."""
    random = torch.Generator().manual_seed(draw)
    return [torch.randn(n, size, generator=random) + offset for offset in (0.0, shift)]


def noise(n: int, estimator: str, extent: Extent) -> tuple[float, float]:
    """The mean and standard deviation of the estimate over batches."""
    values = torch.stack([mmd2(*batches(draw, n, shift=SHIFT), estimator) for draw in range(extent.draws)])
    return values.mean().item(), values.std().item()


def queue_gain(memory_bank: int, extent: Extent, n: int = 32) -> tuple[float, float]:
    """The mean cosine with the large sample's gradient, and milliseconds of the quickest call at d = 4096."""
    cosines = []
    for draw in range(extent.draws // 20):
        batch = batches(draw, n, shift=SHIFT)
        past, large = (
            batches(1000 * k + draw, size, shift=SHIFT) for k, size in ((1, max(memory_bank, 1)), (2, extent.large))
        )
        found = [_gradient(batch, [rows[:memory_bank] for rows in past]), _gradient(batch, large)]
        cosines.append(torch.cosine_similarity(*(gradient.flatten() for gradient in found), dim=0))
    batch, past = (batches(0, size, size=extent.wide) for size in (n, max(memory_bank, 1)))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        _gradient(batch, [rows[:memory_bank] for rows in past])
        times.append(time.perf_counter() - start)
    return torch.stack(cosines).mean().item(), 1e3 * min(times)


def _gradient(batch: list[Tensor], past: list[Tensor]) -> Tensor:
    leaves = [rows.clone().requires_grad_() for rows in batch]
    value = mmd2(*(torch.cat([leaf, old]) for leaf, old in zip(leaves, past, strict=True)), "unbiased")
    return torch.cat(torch.autograd.grad(value, leaves))


def contraction(n: int, estimator: str, extent: Extent) -> tuple[float, float]:
    """Mean over draws and its standard error."""
    found = []
    for draw in range(extent.draws):
        random = torch.Generator().manual_seed(draw)
        source, target = (torch.randn(n, FEATURES, generator=random, dtype=torch.float64) for _ in range(2))
        scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = mmd2(source * scale.exp(), target * scale.exp(), estimator)
        found.append(float(torch.autograd.grad(value, scale)[0]))
    return torch.tensor(found).mean().item(), torch.tensor(found).std().item() / extent.draws**0.5


def predicted(n: int) -> float:
    """The expected contraction by the biased estimator, from E exp(−s²‖x−y‖²/γ) = (1 + 4s²/γ)^(−d/2)."""
    slopes = [FEATURES * (4 / (GAMMA * f)) * (1 + 4 / (GAMMA * f)) ** (-FEATURES / 2 - 1) for f in MULTIPLIERS]
    return 2 / n * sum(slopes) / len(slopes)


def spread_left(n: int, estimator: str, extent: Extent) -> float:
    """The share of the mean distance from the mean that remains after descent."""
    random = torch.Generator().manual_seed(0)
    clouds = [torch.randn(extent.cloud, FEATURES, generator=random) for _ in range(2)]
    before = _spread(clouds)
    for _ in range(extent.steps):
        chosen = [torch.randperm(extent.cloud, generator=random)[:n] for _ in clouds]
        batch = [cloud[rows].requires_grad_() for cloud, rows in zip(clouds, chosen, strict=True)]
        gradients = torch.autograd.grad(mmd2(*batch, estimator), batch)
        for cloud, rows, gradient in zip(clouds, chosen, gradients, strict=True):
            cloud[rows] -= RATE * n * gradient
    return _spread(clouds) / before


def _spread(clouds: list[Tensor]) -> float:
    rows = torch.cat(clouds)
    return float((rows - rows.mean(dim=0)).norm(dim=1).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest that there is, in seconds: does it work?")
    given = parser.parse_args()
    extent, estimators = SMALL if given.smoke else Extent(), ("unbiased", "biased", "linear")
    sizes = extent.sizes
    noises = {n: {estimator: noise(n, estimator, extent) for estimator in estimators} for n in sizes}
    gains = {memory_bank: queue_gain(memory_bank, extent) for memory_bank in extent.queues}
    forces = {n: {estimator: contraction(n, estimator, extent) for estimator in estimators[:2]} for n in sizes}
    spreads = {n: {estimator: spread_left(n, estimator, extent) for estimator in estimators[:2]} for n in sizes}
    if given.json:
        print(json.dumps({"noise": noises, "memory_bank": gains, "contraction": forces, "spread": spreads}))
        return
    print("noise: mean ± standard deviation of the estimate")
    print(f"{'n = m':>7}" + "".join(f"{estimator:>20}" for estimator in estimators))
    for n, row in noises.items():
        print(f"{n:>7}" + "".join(f"{_pair(*row[estimator]):>20}" for estimator in estimators))
    print("memory bank, n = m = 32: cosine to the large sample's gradient, ms a call")
    for memory_bank, (cosine, cost) in gains.items():
        print(f"{memory_bank:>7}{cosine:>10.3f}{cost:>10.2f}")
    print("contraction ± standard error, and the share of the spread that descent leaves")
    print(f"{'n = m':>7}{'biased':>20}{'predicted':>11}{'unbiased':>20}{'spread: biased':>16}{'unbiased':>10}")
    for n, row in forces.items():
        print(f"{n:>7}{_pair(*row['biased']):>20}{predicted(n):>11.5f}{_pair(*row['unbiased']):>20}", end="")
        print(f"{spreads[n]['biased']:>16.3f}{spreads[n]['unbiased']:>10.3f}")


def _pair(mean: float, spread: float) -> str:
    return f"{mean:.5f} ± {spread:.5f}"


if __name__ == "__main__":
    main()
