"""Effect of adaptation on one nuisance at a time, on drawn faces, beside the control λ = 0.

    python benchmarks/shifts.py [--kinds clear,haze,dark,light,noise,colour] [--seed 0] [--workspace DIR] [--json]
        [--smoke]

For each nuisance, a network trained on clear web images is adapted to unlabelled images of other identities with that
nuisance: with λ = 0, as DAN_m67, and as DAN_m67 with λ = 10. All networks are measured on images of further subjects
with the nuisance. The faces are drawn on the template, so that alignment has no effect.
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
IDENTITIES = {"web": range(300), "target": range(300, 450), "test": range(450, 530)}
FEW = {"web": range(4), "target": range(4, 8), "test": range(8, 11)}
FARS = ("0.1", "0.01")


def draw(root: Path, identities: range, images: int, style: Style, seed: int) -> None:
    """Draw a data set of aligned faces, one folder per identity."""
    for number in identities:
        identity = draw_identity(np.random.default_rng((seed, 0, number)))
        views = np.random.default_rng((seed, 1, number))
        (root / f"p{number:04d}").mkdir(parents=True, exist_ok=True)
        for view in range(images):
            image = render(identity, draw_view(views, style), 72)
            cv2.imwrite(str(root / f"p{number:04d}" / f"{view}.png"), image[:, :, ::-1])


def all_pairs(root: Path) -> Path:
    """Write the list of all comparisons of a data set."""
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
    parser.add_argument("--smoke", action="store_true", help="the smallest run, in seconds")
    options = parser.parse_args()
    identities, short = IDENTITIES, {}
    if options.smoke:
        options.kinds, identities, short = "haze", FEW, {"iterations": 2, "batch": 4}
    lambdas = (0.0,) if options.smoke else (0.0, AdaptConfig.lambda_, PRESETS["strong"]["lambda_"])
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.open(options.workspace or Path(scratch))
        faces = workspace.root / "aligned"
        draw(faces / "web", identities["web"], 10, CLEAR, options.seed)
        job = plan_pretrain(
            PretrainConfig(source="web", model="vggface-mini", seed=options.seed, holdout=0, **short), workspace
        )
        before = str(pretrain(job).run.checkpoint)
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for kind in options.kinds.split(","):
            target, test = faces / f"{kind}-target", faces / f"{kind}-test"
            draw(target, identities["target"], 6, KINDS[kind], options.seed)
            draw(test, identities["test"], 6, KINDS[kind], options.seed)
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
