"""Speed, exactness and memory of the streamed verification rate beside scikit-learn's roc_curve and a full sort.

    python benchmarks/evaluate.py [--sizes 1000000,10000000] [--full] [--rounds 3] [--json] [--smoke]

All three find the threshold, the rate and the false accepts at a FAR of 0.001 in the same scores. They take turns, and
the speedup is the ratio of the medians. --full adds 10^8 scores, for which scikit-learn needs 5 GB and minutes.

Memory is measured in separate processes, which compute the scores from features, tile by tile, in both passes, for up
to 10^9 comparisons. The peak is that of the whole process, libraries included. Run it on an idle machine, under Linux.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from facedan_cli.metrics.roc import far_budget, parse_far
from facedan_cli.metrics.streaming import verification_of_tiles, verification_streamed

FAR = "0.001"
GENUINE_SHARE = 0.01
TILE = 1 << 20
STREAMED_SIZES = (10**6, 10**7, 10**9)
DIMENSIONS = 128
IMAGES_OF_ONE = 10


class Found(NamedTuple):
    """The result, in which all ways must agree."""

    threshold: float
    vr: float
    false_accepts: int


def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores distributed like cosine similarities, and whether they are genuine."""
    rng = np.random.default_rng(size)
    genuine = rng.random(size, np.float32) < GENUINE_SHARE
    scores = rng.standard_normal(size, np.float32) * np.float32(0.1) + np.float32(0.4) * genuine
    return scores, genuine


def streamed(scores: np.ndarray, genuine: np.ndarray) -> Found:
    """Our result, from two passes over pieces of the scores."""

    def tiles() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, scores.size, TILE):
            yield scores[start : start + TILE], genuine[start : start + TILE]

    point = verification_of_tiles(tiles, [FAR]).points[FAR]
    return Found(point.threshold, point.vr, point.false_accepts)


def by_sklearn(scores: np.ndarray, genuine: np.ndarray) -> Found:
    """scikit-learn's result, from all points of its curve: the first threshold with more than k impostors."""
    far, vr, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    impostors = scores.size - int(np.count_nonzero(genuine))
    false_accepts = np.rint(far * impostors).astype(np.int64)
    after = int(np.searchsorted(false_accepts, far_budget(parse_far(FAR), impostors), side="right"))
    return Found(float(thresholds[after]), float(vr[after - 1]), int(false_accepts[after - 1]))


def by_sorting(scores: np.ndarray, genuine: np.ndarray) -> Found:
    """The result of a full sort of the impostor scores."""
    impostor, mates = np.sort(scores[~genuine]), scores[genuine]
    threshold = impostor[impostor.size - 1 - far_budget(parse_far(FAR), impostor.size)]
    above = impostor.size - int(np.searchsorted(impostor, threshold, side="right"))
    return Found(float(threshold), int(np.count_nonzero(mates > threshold)) / mates.size, above)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray], Found]] = {
    "facedan": streamed,
    "sklearn": by_sklearn,
    "sort": by_sorting,
}


def compare(size: int, rounds: int) -> tuple[dict[str, float], bool]:
    """The median seconds of each way, and whether all results are equal."""
    scores, genuine = draw(size)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    found = set()
    for _ in range(rounds):
        for name, way in WAYS.items():
            began = time.perf_counter()
            found.add(way(scores, genuine))
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}, len(found) == 1


def stream_features(comparisons: int) -> dict[str, float]:
    """Seconds and peak memory of this process for all pairs of queries and targets, `comparisons` in all."""
    rows = math.isqrt(comparisons - 1) + 1
    rng = np.random.default_rng(0)
    labels = np.arange(rows) // IMAGES_OF_ONE
    subjects = rng.standard_normal((int(labels[-1]) + 1, DIMENSIONS), np.float32)

    def features() -> np.ndarray:
        vectors = subjects[labels] + 1.5 * rng.standard_normal((rows, DIMENSIONS), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    query, target = features(), features()
    began = time.perf_counter()
    verification_streamed(query, target, labels, labels, [FAR])
    seconds = time.perf_counter() - began
    # Not getrusage: its peak begins with that of the process that started this one.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert peak is not None
    return {"seconds": seconds, "peak_bytes": int(peak[1]) * 1024}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="1000000,10000000", help="numbers of scores, compared with the peers")
    parser.add_argument("--full", action="store_true", help="add 100000000, once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stream", type=int, help=argparse.SUPPRESS)  # a process of its own, for its peak
    parser.add_argument("--smoke", action="store_true", help="the smallest that there is, in seconds: does it work?")
    options = parser.parse_args()
    streamed_sizes = STREAMED_SIZES
    if options.smoke:
        options.sizes, options.rounds, streamed_sizes = "100000", 1, (10**4,)
    if options.stream:
        print(json.dumps(stream_features(options.stream)))
        return
    rounds = {int(size): options.rounds for size in options.sizes.split(",")} | ({10**8: 1} if options.full else {})
    seconds, agreed = {}, []
    for size, times in rounds.items():
        seconds[str(size)], same = compare(size, times)
        agreed.append(same)
    alone = {}
    for size in streamed_sizes:
        if options.smoke:  # no peak is asked for
            alone[str(size)] = stream_features(size)
            continue
        command = [sys.executable, __file__, "--stream", str(size)]
        alone[str(size)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    figures = {
        "speedup_vs_sklearn": {size: times["sklearn"] / times["facedan"] for size, times in seconds.items()},
        "speedup_vs_sort": {size: times["sort"] / times["facedan"] for size, times in seconds.items()},
        "seconds": seconds,
        "identical_threshold": all(agreed),
        "peak_bytes": {size: run["peak_bytes"] for size, run in alone.items()},
        "streamed_seconds": {size: run["seconds"] for size, run in alone.items()},
    }
    print(json.dumps(figures) if options.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
