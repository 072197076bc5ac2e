"""Effect of adaptation on one nuisance at a time, on drawn faces, beside the control λ = 0.

    python benchmarks/shifts.py [--kinds clear,haze,dark,light,noise,colour] [--seed 0] [--workspace DIR] [--json]
        [--smoke]

For each kind a network trained on clear web images is measured on images of other subjects with that
nuisance, then adapted to unlabelled images of yet others, with λ = 0, as DAN_m67 and as DAN_m67 with λ = 10, and
measured again. The faces are drawn to the template, so that alignment plays no part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import PRESETS, AdaptConfig, PretrainConfig
from facedan_cli.evaluation.protocols import evaluate_pairs
from facedan_cli.evaluation.verification import Verification
from facedan_cli.synthetic.render import WEB, Style, draw_identity, draw_view, render
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Dataset, Workspace

CLEAR = replace(WEB, roll=(-2, 2), scale=(1.08, 1.12), offset_x=(-0.02, 0.02), offset_y=(-0.02, 0.02))
KINDS = {
    "clear": CLEAR,  # no shift: what there is to lose
    "haze": replace(CLEAR, veil=(0, 0.7), contrast=(0.4, 1)),
    "dark": replace(CLEAR, exposure=(0.03, 0.12)),
    "light": replace(CLEAR, light_azimuth=(45, 80), light_both_sides=0.5, light_hardness=(0.8, 0.95)),
    "noise": replace(CLEAR, noise=(0, 40), blur=(0, 2.5)),
    "colour": replace(CLEAR, warmth=(-0.9, 0.9), tint=(-0.3, 0.3)),
}
PEOPLE = {"web": range(300), "target": range(300, 450), "test": range(450, 530)}
FEW = {"web": range(4), "target": range(4, 8), "test": range(8, 11)}
FARS = ("0.1", "0.01")


def draw(root: Path, people: range, images: int, style: Style, seed: int) -> None:
    """A data set of aligned faces, one folder per identity."""
    for person in people:
        identity = draw_identity(np.random.default_rng((seed, 0, person)))
        views = np.random.default_rng((seed, 1, person))
        (root / f"p{person:04d}").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            picture = render(identity, draw_view(views, style), 72)
            cv2.imwrite(str(root / f"p{person:04d}" / f"{number}.png"), picture[:, :, ::-1])


def all_pairs(root: Path) -> Path:
    """The list of all comparisons of a data set."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.png"))
    pairs = root.with_suffix(".tsv")
    lines = (f"{a}\t{b}\t{int(a[:5] == b[:5])}\n" for a, b in itertools.combinations(paths, 2))
    pairs.write_text("".join(lines), encoding="utf-8")
    return pairs


def main() -> None:
    """Draw, train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest that there is, in seconds: does it work?")
    options = parser.parse_args()
    people, short = PEOPLE, {}
    if options.smoke:
        options.kinds, people, short = "haze", FEW, {"iterations": 2, "batch": 4}
    lambdas = (0.0,) if options.smoke else (0.0, AdaptConfig.lambda_, PRESETS["strong"]["lambda_"])
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.open(options.workspace or Path(scratch))
        faces = workspace.root / "aligned"
        draw(faces / "web", people["web"], 10, CLEAR, options.seed)
        job = plan_pretrain(
            PretrainConfig(source="web", model="vggface-mini", seed=options.seed, holdout=0, **short), workspace
        )
        before = str(pretrain(job).run.checkpoint)
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for kind in options.kinds.split(","):
            target, test = faces / f"{kind}-target", faces / f"{kind}-test"
            draw(target, people["target"], 6, KINDS[kind], options.seed)
            draw(test, people["test"], 6, KINDS[kind], options.seed)
            models = [before]
            for lambda_ in lambdas:
                config = AdaptConfig(
                    source="web", target=target.name, lambda_=lambda_, seed=options.seed, holdout=0, **short
                )
                if options.smoke:
                    config = replace(config, bandwidth="batch")  # spares the sample that a frozen one takes
                models.append(str(adapt(plan_adapt(config, workspace)).run.checkpoint))
            measuring = EvaluateConfig(model=tuple(models), far=FARS, replicates=0)
            result = evaluate_pairs(measuring, workspace, Dataset(test.name, test), all_pairs(test))
            figures[kind] = {
                model.name: {far: part.points[far].vr for far in FARS}
                for model in result.models
                for part in model.partitions.values()
                if isinstance(part, Verification)
            }
            if not options.json:
                for name, rates in figures[kind].items():
                    shown = ", ".join(f"{100 * rate:.1f} % at FAR {far}" for far, rate in rates.items())
                    print(f"{kind}, {name}: {shown}", flush=True)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
