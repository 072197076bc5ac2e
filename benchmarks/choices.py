"""Effect of single choices of the method, by measures without target labels and by an oracle with them.

    python benchmarks/choices.py WORKSPACE... --source web --target studio [--images D --pairs LIST] [--far 0.1]
        [--choices NAME,...] [--finished] [--json]
    python benchmarks/choices.py --smoke

For each workspace and each finished pretraining on its source (as of `facedan demo` and `facedan table`) the network is
adapted once per choice, in an ordinary run; finished runs are reused. Each network has two measures without target
labels: MMD² of the last layer on held-out images, in multiples of its 95th percentile by chance; and the criterion of
`adapt --select`, verification of source images in the looks of the target. The oracle is the verification rate, for GBU
the mean of Bad and Ugly; it chooses nothing. The output has means over the initial networks, and the rank correlation
of each measure with the oracle over all choices.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from scipy.stats import spearmanr
from shifts import KINDS, all_pairs, draw

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.evaluation.protocols import evaluate_gbu, evaluate_pairs
from facedan_cli.evaluation.verification import Verification
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.runs import Run, read_record
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.criterion import Criterion
from facedan_cli.training.datasets import hold_out
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.training.target_list import read_target
from facedan_cli.workspace import Workspace, write_text

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "λ=0": {"lambda_": 0.0},
    "s7": {"kernels": 1, "layers": "fc7"},
    "s67": {"kernels": 1},
    "m7": {"layers": "fc7"},
    "m67": {},
    "m67 λ=0.1": {"lambda_": 0.1},
    "m67 λ=2": {"lambda_": 2.0},
    "m67 λ=10": {"lambda_": 10.0},
    "s67 λ=2": {"kernels": 1, "lambda_": 2.0},
    "s67 λ=10": {"kernels": 1, "lambda_": 10.0},
    "m7 λ=10": {"layers": "fc7", "lambda_": 10.0},
    "biased": {"estimator": "biased"},
    "linear": {"estimator": "linear"},
    "γ of each batch": {"bandwidth": "batch"},
    "γ ema": {"bandwidth": "ema"},
    "optimal β": {"kernel_weights": "optimal"},
    "memory bank 128": {"memory_bank": 128},
    "batch 16": {"batch": 16},
    "batch 64": {"batch": 64},
    "900 steps": {"iterations": 900},
    "λ=0 900 steps": {"lambda_": 0.0, "iterations": 900},
    "jmmd": {"discrepancy": "jmmd"},
    "coral": {"discrepancy": "coral"},
    "coral λ=10": {"discrepancy": "coral", "lambda_": 10.0},
    "energy": {"discrepancy": "energy"},
    "conv lr 0.1": {"backbone_lr_mult": 0.1},
    "conv lr 0": {"backbone_lr_mult": 0.0},
    "λ=0 conv lr 0": {"lambda_": 0.0, "backbone_lr_mult": 0.0},
    "λ=10 conv lr 0.1": {"lambda_": 10.0, "backbone_lr_mult": 0.1},
    "λ=10 conv lr 0": {"lambda_": 10.0, "backbone_lr_mult": 0.0},
    "target / 2": {"target_every": 2},
    "target / 4": {"target_every": 4},
    "target / 8": {"target_every": 8},
    "λ=10 target / 4": {"lambda_": 10.0, "target_every": 4},
    "λ=10 target / 8": {"lambda_": 10.0, "target_every": 8},
}
"""Changes to the paper's DAN_m67 by the name of a choice; `target_every` n takes one target image in n."""

MEASURES = ("mmd2", "criterion", "oracle")
Measured = Mapping[str, float | None]
"""Values by the name in `MEASURES`; None without a measurement."""


def starts(workspace: Workspace, source: str) -> Iterator[Path]:
    """Yield the finished pretrainings on a source, by name."""
    for directory in sorted((workspace.root / "runs").glob("pretrain-*")):
        record = read_record(directory)
        if record.get("status") == "complete" and record["config"]["source"] == source:
            yield directory


def oracle(options: argparse.Namespace, workspace: Workspace, models: list[Path]) -> list[float]:
    """The verification rates of models, with labels of the target."""
    config = EvaluateConfig(model=tuple(map(str, models)), far=(options.far,), ci="none")
    if options.pairs is None:
        result = evaluate_gbu(config, workspace, workspace.dataset("gbu"), workspace.root / "protocols" / "gbu")
    else:
        result = evaluate_pairs(config, workspace, workspace.dataset(options.images), workspace.root / options.pairs)
    rates = []
    for model in result.models:
        parts = [part for name, part in model.partitions.items() if name != "Good" and isinstance(part, Verification)]
        rates.append(mean(part.points[options.far].vr for part in parts))
    return rates


def beyond_chance(run: Run, target: str) -> float | None:
    """MMD² of the last layer on held-out images at the end of a run, in multiples of its 95th percentile by chance.

    None for a thinned target, whose held-out images are too few for a comparison.
    """
    if run.config["target"] != target:
        return None
    test = list(run.last_metrics["two_sample"].values())[-1]
    return float(test["mmd2"] / test["chance"])


def thinned(workspace: Workspace, target: str, every: int) -> str:
    """A list in the workspace with one in `every` training images of the target.

    It has no held-out images of the whole target, which measure the networks.
    """
    if every == 1:
        return target
    whole = read_target(target, workspace)
    trained, _ = hold_out(whole.folder, AdaptConfig.holdout, labelled=False)
    path = workspace.root / f"{whole.dataset.name}-every-{every}.txt"
    write_text(path, "".join(f"{trained.root.resolve() / image}\n" for image in trained.paths[::every]))
    return str(path)


def measure(options: argparse.Namespace, workspace: Workspace, start: Path) -> Iterator[tuple[str, Measured]]:
    """Yield the measured choices from one network, by name."""
    seed = read_record(start)["config"]["seed"]
    config = AdaptConfig(source=options.source, target=options.target, init=str(start), seed=seed, **options.short)
    jobs = {}
    for name in options.choices.split(","):
        choice = dict(CHOICES[name])
        target = thinned(workspace, options.target, choice.pop("target_every", 1))
        job = plan_adapt(replace(config, target=target, **choice), workspace)
        if job.run.finished or not options.finished:
            jobs[name] = job
    if not jobs:
        return
    found = {}
    with ThreadPoolExecutor(1) as pool:
        judge = Criterion(plan_adapt(config, workspace), pool, torch.device("cpu"))  # by the whole target
        for name, job in jobs.items():
            run = adapt(job).run
            (judged,) = judge.candidates(load_checkpoint(run.checkpoint)[0], name, "trained", (None,))
            found[name] = [beyond_chance(run, options.target), judged.rate]
    rates = oracle(options, workspace, [job.run.checkpoint for job in jobs.values()])
    for rate, (name, values) in zip(rates, found.items(), strict=True):
        yield name, dict(zip(MEASURES, [*values, rate], strict=True))


def main() -> None:
    """Adapt, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workspaces", nargs="*", type=Path)
    parser.add_argument("--source", default="web")
    parser.add_argument("--target", default="studio")
    parser.add_argument("--images", help="test images of --pairs")
    parser.add_argument("--pairs", help="the list, in each workspace; without it GBU's lists in protocols/gbu")
    parser.add_argument("--far", default="0.1")
    parser.add_argument("--choices", default=",".join(CHOICES))
    parser.add_argument("--finished", action="store_true", help="only what was trained already")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest world that there is: does it work?")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        options.short = {}
        if options.smoke:
            draw_smallest(options, Path(scratch))
        elif not options.workspaces:
            parser.error("name a workspace")
        compare(options, parser)


def draw_smallest(options: argparse.Namespace, root: Path) -> None:
    """Make a tiny world with its pretraining, in which a choice takes seconds, and set the options to it."""
    workspace = Workspace.open(root)
    for name, identities, images in (("web", range(12), 10), ("studio", range(20, 30), 10), ("test", range(40, 43), 3)):
        draw(root / "aligned" / name, identities, images, KINDS["haze"], 0)
    pairs = all_pairs(root / "aligned" / "test")
    options.short = {"iterations": 2, "batch": 8, "bandwidth": "1000"}
    first = PretrainConfig(source="web", model="vggface-mini", iterations=2, batch=8)
    pretrain(plan_pretrain(first, workspace))
    options.workspaces, options.images, options.pairs = [root], "test", str(pairs)
    options.choices = "m67,λ=0"


def compare(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Adapt, measure and print, in each workspace."""
    unknown = set(options.choices.split(",")) - CHOICES.keys()
    if unknown:
        parser.error(f"no such choices: {', '.join(sorted(unknown))}")
    if (options.pairs is None) != (options.images is None):
        parser.error("--pairs and --images go together")
    torch.set_num_threads(1)
    found: dict[str, dict[str, Measured]] = {}
    for root in options.workspaces:
        workspace = Workspace.open(root)
        for start in starts(workspace, options.source):
            if choices := dict(measure(options, workspace, start)):
                found[f"{root}/{start.name}"] = choices
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'choice':16} " + " ".join(f"{name:>22}" for name in MEASURES))
    for name in options.choices.split(","):
        of = [choices[name] for choices in found.values() if name in choices]
        if of:
            print(f"{name:16} " + " ".join(f"{shown([values[key] for values in of]):>22}" for key in MEASURES))
    for measured, sign in (("mmd2", -1), ("criterion", 1)):
        rhos = []
        for choices in found.values():
            pairs = [(values[measured], values["oracle"]) for values in choices.values()]
            blind, seen = zip(*((sign * value, rate) for value, rate in pairs if value is not None), strict=True)
            rhos.append(spearmanr(blind, seen).statistic)
        print(f"{measured}: rank correlation with the oracle {', '.join(f'{rho:.2f}' for rho in rhos)}")


def shown(values: list[float | None]) -> str:
    """A text with mean [lowest, highest]."""
    known = [value for value in values if value is not None]
    return f"{mean(known):.3f} [{min(known):.3f}, {max(known):.3f}]" if known else "—"


if __name__ == "__main__":
    main()
