"""Speed of the training loop compared with a bare loop, of adaptation compared with pretraining, and of the input.

    python benchmarks/train.py [FACES] [--model mobilefacenet] [--images 64] [--device cuda] [--precision bf16]
        [--compile] [--json] [--smoke]

`pretrain` and `adapt` are steps of the package's loop on the images of FACES, a directory with one folder per identity
(without it, faces are drawn). Images are decoded once and cropped anew each step; `adapt` has half source and half
target images. `bare` is only forward, cross-entropy, backward and optimiser of the same network on one batch on the
device: input, penalty, the norm of the gradient and the log are of the loop alone. All have the same number of images a
step, optimiser, precision and memory layout, and take turns; a ratio of images per second is the median over the
rounds, with its quartiles. In `adapt` batch normalisation keeps its statistics, as by default, and so it does in
`bare_adapt`, the bare loop for that. The last step of a loop also writes a line of the log with its measurements;
checkpoints are not in the time.

The input alone is also measured from a mapped file and with decoding in each epoch; `--json` gives that of --cache. Its
unit is images per second of processor time, the speed of one core.

With --device cuda, the same is measured for VGG-Face at 32 + 32 and 128 + 128 images, fp32 and bf16, compiled and not:
images per second, the share of the speed of one large matrix product in the same arithmetic (for fp32: TF32, in which
cuDNN convolves), and the largest batch that fits. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from facedan_cli.adaptation.penalty import Penalty
from facedan_cli.config.models import NETWORKS
from facedan_cli.data.batches import BatchStream, FaceStore
from facedan_cli.data.cache import Cache
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.devices import keep_freed_memory
from facedan_cli.models.batch_norm import has_batch_norm
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.models.network import FaceNetwork
from facedan_cli.models.networks import build
from facedan_cli.report import Follow, Report
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render
from facedan_cli.training.loop import DomainBatches, train
from facedan_cli.training.plan import Plan
from facedan_cli.training.state import Checkpoints

IDENTITIES, IMAGES_EACH = 32, 8
"""Numbers of drawn identities and of images of each, used without FACES."""

CACHES = ("ram", "disk", "none")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GPU_IMAGES = (64, 256)
NEVER = 1 << 30


@dataclass(frozen=True)
class Setting:
    """The settings of a measurement.

    Args:
        images: images a step.
        steps: steps that are timed.
    """

    model: str
    images: int
    device: torch.device
    precision: str
    compile: bool
    steps: int

    @property
    def warm_up(self) -> int:
        """The number of untimed steps at the start, for memory, compilation and the input."""
        return min(3, self.steps)

    def plan(self, batch: int) -> Plan:
        """The model's recipe with a learning rate of zero, so that all contenders have the same weights."""
        recipe = asdict(NETWORKS[self.model].pretrain) | {
            "batch": batch,
            "lr": 0.0,
            "iterations": self.warm_up + self.steps,
        }
        return Plan(
            **recipe,
            seed=0,
            checkpoint_every=NEVER,
            log_every=NEVER,
            precision=self.precision,
            compile=self.compile,
        )


@dataclass
class Stopwatch(Report):
    """A stopwatch from the end of the warm-up to the end of the last step."""

    setting: Setting
    marks: list[float] = field(default_factory=list)

    @contextmanager
    def training(self, total: int, done: int = 0) -> Iterator[Follow]:
        """Mark the time at the end of the warm-up and of the last step."""
        steps = iter(range(done + 1, total + 1))

        def follow(entry: Mapping[str, Any]) -> None:
            if next(steps) in (self.setting.warm_up, total):
                self.mark()

        yield follow

    def mark(self) -> None:
        """Mark the time after all work on the device is finished."""
        if self.setting.device.type == "cuda":
            torch.cuda.synchronize(self.setting.device)
        self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """The seconds between the first mark and the last."""
        return self.marks[-1] - self.marks[0]


def draw(root: Path, identities: int = IDENTITIES, images_each: int = IMAGES_EACH) -> None:
    """Draw faces of 250 × 250 pixels."""
    for row in range(identities):
        random = np.random.default_rng(row)
        identity = draw_identity(random)
        directory = root / f"{row:03d}"
        directory.mkdir()
        for number in range(images_each):
            image = render(identity, draw_view(random, WEB), 250)
            cv2.imwrite(str(directory / f"{number}.jpg"), image[:, :, ::-1])


def labels_of(folder: FaceDataset) -> np.ndarray:
    """The class of each image."""
    order = {name: index for index, name in enumerate(sorted(set(folder.names)))}
    return np.array([order[name] for name in folder.names], np.int64)


def bare(network: FaceNetwork, setting: Setting, batch: tuple[Tensor, Tensor]) -> float:
    """Images per second of the bare loop."""
    plan = setting.plan(setting.images)
    parameters: list[nn.Parameter] = list(network.parameters())
    optimizer: torch.optim.Optimizer
    if plan.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    forward = torch.compile(network) if setting.compile else network
    images, labels = batch
    dtype = DTYPES[setting.precision]
    network.train()
    watch = Stopwatch(setting)
    for step in range(plan.iterations):
        if step == setting.warm_up:
            watch.mark()
        with torch.autocast(setting.device.type, dtype, enabled=dtype != torch.float32):
            scores = network.scores(forward(images))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(scores.float(), labels, label_smoothing=plan.label_smoothing).backward()
        optimizer.step()
    watch.mark()
    return setting.images * setting.steps / watch.seconds


def ours(network: FaceNetwork, setting: Setting, images: FaceStore, *, adapting: bool) -> float:
    """Images per second of the package's loop."""
    labels = labels_of(images.folder)
    plan = setting.plan(setting.images // 2 if adapting else setting.images)
    source = BatchStream(images, labels, plan.batch, network.crop, (0, 1))
    domains = DomainBatches(source)
    if adapting:
        bandwidths = dict.fromkeys(network.layers, 1e4)
        penalty = Penalty(lambda_=0.5, layers=dict.fromkeys(network.layers, 1.0), bandwidths=bandwidths)
        domains = DomainBatches(source, BatchStream(images, None, plan.batch, network.crop, (0, 2)), penalty)
    watch = Stopwatch(setting)
    card = ModelCard(setting.model, tuple(sorted(set(images.folder.names))), "pretrain", "benchmark", {})
    with tempfile.TemporaryDirectory() as place, Checkpoints(Path(place), card) as checkpoints:
        train(network, domains, plan, checkpoints=checkpoints, log=Path(place) / "metrics.jsonl", report=watch)
    return setting.images * setting.steps / watch.seconds


def race(setting: Setting, images: FaceStore, rounds: int) -> dict[str, list[float]]:
    """Images per second of each contender in each round; every second round has the reverse order."""
    torch.compiler.reset()  # or it would compile for batches of any size once it has seen two
    torch.manual_seed(0)
    network = build(setting.model, len(set(images.folder.names))).to(setting.device)
    stream = BatchStream(images, labels_of(images.folder), setting.images, network.crop, (0, 0))
    batch = next(stream.batches(0, 1, setting.device))
    contenders = {
        "bare": lambda: bare(network, setting, batch),
        "pretrain": lambda: ours(network, setting, images, adapting=False),
        "adapt": lambda: ours(network, setting, images, adapting=True),
    }
    if has_batch_norm(network):
        contenders["bare_adapt"] = contenders["bare"]
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            network.normalise_by("frozen" if name in ("adapt", "bare_adapt") else "source")
            found[name].append(contenders[name]())
            network.zero_grad(set_to_none=True)
    return found


def ratios(found: Mapping[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """The ratios of contenders over the rounds: median and quartiles, by name."""
    pairs = {
        "pretrain_vs_bare": ("pretrain", "bare"),
        "adapt_vs_bare": ("adapt", "bare_adapt" if "bare_adapt" in found else "bare"),
        "adapt_vs_pretrain": ("adapt", "pretrain"),
    }
    result = {}
    for name, (one, other) in pairs.items():
        values = [a / b for a, b in zip(found[one], found[other], strict=True)]
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        result[name] = (statistics.median(values), low, high)
    return result


def input_rate(images: FaceStore, setting: Setting, crop: int, seconds: float = 3.0) -> tuple[float, float]:
    """Images of the input alone per second, and per second of processor time."""
    stream = BatchStream(images, labels_of(images.folder), setting.images, crop, (0, 3))
    begun, spent = 0.0, 0.0
    for step, _ in enumerate(stream.batches(0, NEVER, setting.device), 1 - setting.warm_up):
        if step == 0:
            begun, spent = time.perf_counter(), time.process_time()
        if step > 0 and time.perf_counter() - begun > seconds:
            break
    made = step * setting.images
    return made / (time.perf_counter() - begun), made / (time.process_time() - spent)


def peak(setting: Setting, side: int = 8192) -> float:
    """Operations per second of one large matrix product, the best of ten."""
    torch.set_float32_matmul_precision("high")
    rows = torch.randn(side, side, device=setting.device, dtype=DTYPES[setting.precision])
    best = 0.0
    for _ in range(10):
        watch = Stopwatch(setting)
        watch.mark()
        rows @ rows
        watch.mark()
        best = max(best, 2 * side**3 / watch.seconds)
    torch.set_float32_matmul_precision("highest")
    return best


def operations(model: str, classes: int) -> float:
    """Operations of convolutions and matrix products for one image, forward and backward."""
    network = build(model, classes)
    images = torch.zeros((2, 3, network.crop, network.crop), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        network.scores(network(images)).sum().backward()
    return counter.get_total_flops() / 2


def largest(setting: Setting, images: FaceStore) -> int:
    """The largest number of images of each domain that `adapt` has memory for, to within a sixteenth."""
    torch.manual_seed(0)
    network = build(setting.model, len(set(images.folder.names))).to(setting.device)

    def fits(each: int) -> bool:
        try:
            ours(network, replace(setting, images=2 * each, steps=1), images, adapting=True)
        except torch.OutOfMemoryError:
            return False
        finally:
            network.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
        return True

    step = 32
    while fits(2 * step):
        step *= 2
    count, step = step, step // 2
    while step >= max(1, count // 16):
        count += step if fits(count + step) else 0
        step //= 2
    return count


def gpu_table(given: argparse.Namespace, images: FaceStore) -> list[dict[str, Any]]:
    """The rows of the GPU table, one for each precision and batch, plain and compiled."""
    rows = []
    needed = operations("vggface", len(set(images.folder.names)))
    for precision in DTYPES:
        setting = Setting("vggface", 64, given.device, precision, False, given.steps or 50)
        limit = peak(setting)
        for compiled in (False, True):
            setting = replace(setting, compile=compiled)
            fit = largest(setting, images)
            for count in GPU_IMAGES:
                found = race(replace(setting, images=count), images, given.rounds)
                rates = {name: statistics.median(values) for name, values in found.items()}
                rows.append(
                    {
                        "precision": precision,
                        "compiled": compiled,
                        "images": count,
                        **rates,
                        "adapt_vs_bare": ratios(found)["adapt_vs_bare"][0],
                        "peak_tflops": limit / 1e12,
                        "of_peak": rates["adapt"] * needed / limit,
                        "largest": fit,
                    }
                )
                torch.cuda.empty_cache()
    return rows


def show_gpu(rows: list[dict[str, Any]]) -> None:
    """Print the GPU table."""
    print(f"{'VGG-Face':<22}{'bare/s':>9}{'pretrain/s':>12}{'adapt/s':>9}{'adapt/bare':>12}", end="")
    print(f"{'peak TFLOP/s':>14}{'adapt of it':>13}{'largest batch':>15}")
    for row in rows:
        each = row["images"] // 2
        name = f"{each} + {each} {row['precision']}{' compiled' if row['compiled'] else ''}"
        print(f"{name:<22}{row['bare']:>9.0f}{row['pretrain']:>12.0f}{row['adapt']:>9.0f}", end="")
        print(f"{row['adapt_vs_bare']:>12.3f}{row['peak_tflops']:>14.0f}{row['of_peak']:>13.1%}", end="")
        print(f"{row['largest']:>9} + {row['largest']}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", nargs="?", type=Path, help="a directory with one folder per identity")
    parser.add_argument("--model", default="vggface-mini", choices=tuple(NETWORKS))
    parser.add_argument("--images", default=64, type=int, help="images a step, an even number")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--precision", default="fp32", choices=tuple(DTYPES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--steps", type=int, help="steps per round; by default 50, on a CPU 10 of vggface-mini and 1 of others"
    )
    parser.add_argument("--rounds", default=9, type=int)
    parser.add_argument("--cache", default="ram", choices=CACHES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest run, in seconds")
    given = parser.parse_args()
    drawn, seconds = (IDENTITIES, IMAGES_EACH), 3.0
    if given.smoke:
        given.images, given.steps, given.rounds, drawn, seconds = 4, 1, 1, (3, 2), 0.01
    keep_freed_memory()
    steps = given.steps or (50 if given.device.type != "cpu" else 10 if given.model == "vggface-mini" else 1)
    setting = Setting(given.model, given.images, given.device, given.precision, given.compile, steps)
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        root = given.faces
        if root is None:
            root = Path(place) / "faces"
            root.mkdir()
            draw(root, *drawn)
        folder = read_dataset(root)
        network = build(given.model, 2)
        size, crop = network.image_size, network.crop
        kept = {mode: FaceStore(folder, size, pool, cache=Cache(mode, Path(place))) for mode in CACHES}
        found = race(setting, kept[given.cache], given.rounds)
        rates = {mode: input_rate(images, setting, crop, seconds) for mode, images in kept.items()}
        compared = ratios(found)
        result: dict[str, Any] = {
            **{name: median for name, (median, _, _) in compared.items()},
            "quartiles": {name: quartiles for name, (_, *quartiles) in compared.items()},
            "input_images_per_s": rates[given.cache][1],
        }
        rows = []
        if given.device.type == "cuda":
            faces = kept[given.cache] if given.model == "vggface" else FaceStore(folder, 250, pool)
            rows = gpu_table(given, faces)
    if given.json:
        print(json.dumps(result | ({"gpu": rows} if rows else {})))
        return
    medians = ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in found.items())
    print(f"{given.model}, {given.images} images a step, images a second: {medians}")
    for key, (median, low, high) in compared.items():
        print(f"{key.replace('_vs_', ' : '):<20}{median:.3f} [{low:.3f}, {high:.3f}]")
    for mode, (rate, of_a_core) in rates.items():
        print(f"{'input, ' + mode:<20}{rate:.0f} images a second, {of_a_core:.0f} a core")
    if rows:
        show_gpu(rows)


if __name__ == "__main__":
    main()
