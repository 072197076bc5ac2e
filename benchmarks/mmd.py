"""Cost of MK-MMD compared with the broadcast form in common use and with one matrix product.

    python benchmarks/mmd.py [--device cuda] [--dtype bf16] [--no-step] [--json] [--smoke]

Forward and backward at d = 4096 with five kernels, float32. `broadcast` computes all differences of rows for each
kernel, (n + m)² · d numbers; `shared` computes them once for all kernels, as the better public codes do. `floor` is one
Gram product of the same rows, forward and backward. The forms take turns in one process, and ratios are of medians.
Extra bytes are the peak memory beside the features and their gradients. The step is that of `adapt` with vggface,
32 + 32 images, MK-MMD on fc6 and fc7. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler speaks on stderr; before torch is imported

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.adaptation.mmd import mk_mmd
from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.models.networks import build

SIZES = (32, 64, 128)
FEATURES, KERNELS = 4096, 5
BANDWIDTH = 2.0 * FEATURES  # the median squared distance of standard normal rows
ROUNDS = 5
CHEAP_REPEATS = 10
SMALL = {"sizes": (4,), "features": 64, "model": "vggface-mini", "images": 2}
"""Sizes of --smoke."""


def broadcast(source: Tensor, target: Tensor, *, shared: bool = False) -> Tensor:
    """Biased MK-MMD in its common form, independent of the package."""
    rows = torch.cat([source, target])
    n = len(source)

    def squared() -> Tensor:
        return ((rows[None] - rows[:, None]) ** 2).sum(2)

    once = squared() if shared else None
    kernel = torch.zeros(len(rows), len(rows), dtype=rows.dtype, device=rows.device)
    for power in range(KERNELS):
        distances = squared() if once is None else once
        kernel = kernel + torch.exp(-distances / (BANDWIDTH * 2**power)) / KERNELS
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def ours(source: Tensor, target: Tensor, estimator: str = "unbiased") -> Tensor:
    """MK-MMD of the package."""
    return mk_mmd(source, target, bandwidth=BANDWIDTH, weights=(1 / KERNELS,) * KERNELS, estimator=estimator)


def floor(source: Tensor, target: Tensor) -> Tensor:
    """One Gram product."""
    rows = torch.cat([source, target])
    return (rows @ rows.T).sum()


def batches(n: int, size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random features of both domains that require a gradient."""
    random = torch.Generator().manual_seed(n)
    source, target = (torch.randn(n, size, generator=random) for _ in range(2))
    return source.to(device, dtype).requires_grad_(), (target + 0.05).to(device, dtype).requires_grad_()


def seconds(step: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Mean time of a call."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_gradient(loss: Callable[..., Tensor], *features: Tensor) -> Callable[[], None]:
    """Forward and backward of a loss of features."""

    def step() -> None:
        for rows in features:
            rows.grad = None
        loss(*features).backward()

    return step


def extra_bytes(step: Callable[[], None], features: tuple[Tensor, Tensor], device: torch.device) -> int:
    """The peak memory of a step beside the gradients that remain."""
    for rows in features:
        rows.grad = None
    left = sum(rows.numel() * rows.element_size() for rows in features)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before - left
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    level = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak - left


def measure(n: int, size: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Times in milliseconds and the ratios of one batch size."""
    features = batches(n, size, device, dtype)
    cheap = {"ours": with_gradient(ours, *features), "floor": with_gradient(floor, *features)}
    dear = {
        "broadcast": with_gradient(broadcast, *features),
        "shared": with_gradient(lambda s, t: broadcast(s, t, shared=True), *features),
    }
    if dtype == torch.float32:
        torch.testing.assert_close(ours(*features, "biased"), broadcast(*features), rtol=1e-3, atol=1e-6)
    for step in cheap.values():
        seconds(step, device, CHEAP_REPEATS)
    times: dict[str, list[float]] = {name: [] for name in (*cheap, *dear)}
    rounds = ROUNDS if n < max(SIZES) or device.type == "cuda" else 2
    for _ in range(rounds):
        for name, step in dear.items():
            times[name].append(seconds(step, device))
        for _ in range(ROUNDS):
            for name, step in cheap.items():
                times[name].append(seconds(step, device, CHEAP_REPEATS))
    medians = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    pairs = [a / b for a, b in zip(times["ours"], times["floor"], strict=True)]
    return {
        **medians,
        "speedup": medians["broadcast"] / medians["ours"],
        "speedup_shared": medians["shared"] / medians["ours"],
        "floor_ratio": statistics.median(pairs),
        "extra_bytes": extra_bytes(cheap["ours"], features, device),
    }


def step_share(model: str, images: int, device: torch.device, identities: int = 1000) -> tuple[float, float]:
    """Seconds of an `adapt` step, and the loss's share of it."""
    torch.manual_seed(0)
    network = build(model, identities).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    shape = (2 * images, 3, network.crop, network.crop)
    inputs = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, identities, (images,), device=device)
    bandwidths = dict.fromkeys(("fc6", "fc7"), BANDWIDTH)
    penalty = Penalty(lambda_=0.5, layers=dict.fromkeys(bandwidths, 1.0), bandwidths=bandwidths)

    def step() -> None:
        features = network(inputs)
        source, target = ({k: v[part] for k, v in features.items()} for part in (slice(images), slice(images, None)))
        loss = F.cross_entropy(network.scores(source), labels) + penalty(source, target)[0]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        sizes = [rows.shape[1] for rows in network(inputs[:2]).values()]
    leaves = [nn.Parameter(torch.randn(images, size, device=device)) for size in 2 * sizes]

    def alone() -> None:
        source, target = dict(zip(bandwidths, leaves[:2], strict=True)), dict(zip(bandwidths, leaves[2:], strict=True))
        penalty(source, target)[0].backward()

    seconds(alone, device, CHEAP_REPEATS)
    seconds(step, device)
    whole, loss = seconds(step, device), seconds(alone, device, 10 * CHEAP_REPEATS)
    return whole, loss / whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"), help="of the features")
    parser.add_argument("--no-step", action="store_true", help="leave the adapt step out (a minute or two on a CPU)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest that there is, in seconds: does it work?")
    given = parser.parse_args()
    sizes, size, model, images = SMALL.values() if given.smoke else (SIZES, FEATURES, "vggface", 32)
    dtype = torch.float32 if given.dtype == "fp32" else torch.bfloat16
    found = {str(n): measure(n, size, given.device, dtype) for n in sizes}
    share = None if given.no_step else step_share(model, images, given.device)
    if given.json:
        keys = ("speedup", "floor_ratio", "extra_bytes")
        result = {key: {n: values[key] for n, values in found.items()} for key in keys}
        print(json.dumps({**result, "step_share": share and share[1]}))
        return
    print(f"{'n = m':>6}{'ours ms':>10}{'floor ms':>10}{'×floor':>8}{'broadcast ms':>14}{'speedup':>9}", end="")
    print(f"{'shared ms':>11}{'speedup':>9}{'extra KiB':>11}")
    for n, v in found.items():
        print(f"{n:>6}{v['ours']:>10.2f}{v['floor']:>10.2f}{v['floor_ratio']:>8.2f}{v['broadcast']:>14.0f}", end="")
        print(f"{v['speedup']:>8.0f}×{v['shared']:>11.0f}{v['speedup_shared']:>8.0f}×{v['extra_bytes'] / 1024:>11.0f}")
    if share is not None:
        print(f"adapt step, {model}, {images} + {images}: {share[0]:.1f} s, of it the loss {100 * share[1]:.3f} %")


if __name__ == "__main__":
    main()
