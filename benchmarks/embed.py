"""Speed of embedding aligned faces that lie in memory, beside bare torch and onnxruntime.

    python benchmarks/embed.py [--models mobilefacenet,iresnet18] [--images 32] [--rounds 21] [--json] [--smoke]

All embed the same batch of random bytes, (images, side, side, 3), with the same weights and on one thread, and give
rows of length one as NumPy has them. `facedan` is what `embed` and `evaluate` compute from a checkpoint. `torch` is the
same network, channels last, called on the centre crop without anything else of facedan, and the normalisation of the
rows. `onnxruntime` computes a graph that torch exports of all this.

They take turns batch by batch, and every second round has the reverse order. A ratio of speeds is the median over the
rounds, in brackets its quartiles. The time is the processor's, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedan_cli.config.models import NETWORKS
from facedan_cli.devices import keep_freed_memory
from facedan_cli.embedding.extractor import ASSUMED, extractor
from facedan_cli.embedding.model import FaceModel
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build

Embed = Callable[[np.ndarray], np.ndarray]
"""RGB, uint8, shape (n, side, side, 3) → rows of length one, float32, shape (n, d)."""


class Bare(nn.Module):
    """A network from bytes to rows of length one, written out."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = load_checkpoint(file)[0]
        self.margin = (self.network.image_size - self.network.crop) // 2

    def forward(self, faces: Tensor) -> Tensor:
        """Rows of length one, (n, d), of faces, uint8, (n, side, side, 3)."""
        crop = slice(self.margin, self.margin + self.network.crop)
        features = self.network.features(faces[:, crop, crop].permute(0, 3, 1, 2))
        return F.normalize(features[self.network.layers[-1]])


def contenders(model: str, place: Path) -> tuple[int, dict[str, Embed]]:
    """The side of the faces, and the ways to embed them, of a network with random weights."""
    torch.manual_seed(0)
    file, graph = place / f"{model}.safetensors", place / f"{model}.onnx"
    save_checkpoint(file, build(model, 2), ModelCard(model, ("a", "b"), "pretrain", "benchmark", {}))
    network = Bare(file).eval()
    layer, side = network.network.layers[-1], network.network.image_size
    ours = extractor(FaceModel.of(file), layer, ASSUMED, flip=False, device=torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter takes a tenth of the time
        example, batch = torch.zeros((2, side, side, 3), dtype=torch.uint8), {0: "batch"}
        axes = {"faces": batch, "rows": batch}
        torch.onnx.export(
            network, (example,), graph, dynamo=False, input_names=["faces"], output_names=["rows"], dynamic_axes=axes
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def bare(faces: np.ndarray) -> np.ndarray:
        rows: np.ndarray = network(torch.from_numpy(faces)).numpy()
        return rows

    return side, {
        "torch": bare,
        "facedan": ours.extract,
        "onnxruntime": lambda faces: np.asarray(session.run(["rows"], {"faces": faces})[0]),
    }


def race(model: str, images: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of processor time of each contender in each round.

    Raises:
        AssertionError: their features differ.
    """
    with tempfile.TemporaryDirectory() as place:
        side, ways = contenders(model, Path(place))
    faces = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), np.uint8)
    rows = {name: embed(faces) for name, embed in ways.items()}  # also warms them up
    for found in rows.values():
        np.testing.assert_allclose(found, rows["torch"], rtol=0, atol=1e-4)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            began = time.process_time()
            ways[name](faces)
            rates[name].append(images / (time.process_time() - began))
    return rates


def ratio(rates: dict[str, list[float]], name: str) -> list[float]:
    """Median and quartiles of a contender's speed relative to bare torch."""
    ratios = [one / other for one, other in zip(rates[name], rates["torch"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return [middle, low, high]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mobilefacenet,iresnet18", help="networks, divided by commas")
    parser.add_argument("--images", default=32, type=int, help="images a batch")
    parser.add_argument("--rounds", default=21, type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest run, in seconds")
    given = parser.parse_args()
    if given.smoke:
        given.models, given.images, given.rounds = "vggface-mini", 2, 1
    if unknown := set(given.models.split(",")) - NETWORKS.keys():
        parser.error(f"there is no network {', '.join(sorted(unknown))}")
    keep_freed_memory()
    torch.set_num_threads(1)
    result = {}
    for model in given.models.split(","):
        rates = race(model, given.images, given.rounds)
        result[model] = {
            **{f"{name}_vs_torch": ratio(rates, name) for name in ("facedan", "onnxruntime")},
            "images_per_s": {name: statistics.median(values) for name, values in rates.items()},
        }
        if not given.json:
            print(f"{model}, {given.images} images a batch")
            for name in ("facedan", "onnxruntime"):
                middle, low, high = ratio(rates, name)
                print(f"{name + ' : torch':<22}{middle:.3f} [{low:.3f}, {high:.3f}]")
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
