"""What each method of adaptation gives on shifts between aligned sets of real faces, beside keeping the network.

    python benchmarks/real_shifts.py SOURCE [TARGET …] [--shifts haze,dark,…] [--init FILE] [--model vggface-mini]
        [--rows control,mmd,whiten,…] [--seeds 0] [--pretrain-iterations N] [--iterations N] [--train-from MODULE]
        [--workspace DIR] [--json] [--smoke]

SOURCE and TARGET are aligned folders with one folder per person. Of the source's people two thirds are the labelled
source; half of the others are the target and half the test of the shifts that are drawn on them (--shifts). Of the
people of a TARGET every other one is adapted to without labels, and the others are the test. No person is in two.

With --init the network starts from these weights; without, `pretrain` makes it from the source. Rates are of all
comparisons of the test images: the verification rate at a FAR and, for one gallery image a person, rank 1, in per cent;
then the difference to keeping the network with its 95 % interval (paired bootstrap over people), and a star where that
excludes 0.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.protocols import evaluate_identify
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.training.selection import plan_selection, select
from facedan_cli.workspace import Workspace

ROWS: Mapping[str, Mapping[str, Any]] = {
    "control": {"lambda_": 0.0},
    "augmented": {"lambda_": 0.0, "augment": "all"},
    "mmd": {"lambda_": 0.5},
    "mmd-10": {"lambda_": 10.0},
    "mmd-10+whiten": {"lambda_": 10.0, "method": "mmd+whiten"},
    "mmd-10 keep": {"lambda_": 10.0, "keep": 10.0},
    "restyle": {"method": "restyle"},
    "restyle+whiten": {"method": "restyle+whiten"},
    "adabn": {"method": "adabn", "adabn_mix": 0.5},
    "adabn+whiten": {"method": "adabn+whiten", "adabn_mix": 0.5},
    "centre": {"method": "whiten", "whiten_power": 0.0},
    "whiten": {"method": "whiten"},
    "choice": {"select": True, "lambdas": "10"},
}
FARS = ("0.01", "0.001")


def _lowres(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    small = cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(30, 60))])
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _haze(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    veil = random.uniform(0.4, 0.8)
    return image * (1 - veil) + veil * random.uniform(180, 235)


def _dark(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return image * random.uniform(0.06, 0.2) + random.normal(0, 3, image.shape)


def _light(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ramp = np.linspace(random.uniform(0.05, 0.2), 1.2, image.shape[1])
    return image * (ramp if random.random() < 0.5 else ramp[::-1])[None, :, None]


def _grey(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    return np.repeat(((grey - 128) * random.uniform(0.5, 1.3) + 128)[:, :, None], 3, 2)


def _noise(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return image + random.normal(0, random.uniform(15, 40), image.shape)


SHIFTS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "lowres": _lowres,
    "haze": _haze,
    "dark": _dark,
    "light": _light,
    "grey": _grey,
    "noise": _noise,
}


def people_of(folder: Path) -> list[Path]:
    """The folders of people that hold two images at least."""
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and len(images_of(one)) > 1]


def images_of(person: Path) -> list[Path]:
    """The images in a folder."""
    return sorted(path for path in person.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))


def lay_out(people: list[Path], to: Path, shift: str | None = None) -> None:
    """Link the images of these people into a data set, or write them as a shift has them."""
    for person in people:
        (to / person.name).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(images_of(person)):
            made = to / person.name / (path.name if shift is None else f"{path.stem}.png")
            if made.exists():
                continue
            if shift is None:
                os.symlink(path.resolve(), made)
                continue
            random = np.random.default_rng((list(SHIFTS).index(shift), number, zlib.crc32(person.name.encode())))
            changed = SHIFTS[shift](cv2.imread(str(path)), random)
            cv2.imwrite(str(made), np.clip(np.rint(changed), 0, 255).astype(np.uint8))


def gallery_and_probes(test: Path) -> tuple[str, str]:
    """Lists of one gallery image a person, and of the others as probes."""
    rows = [[f"{test.name}/{one.name}/{path.name}\t{one.name}" for path in images_of(one)] for one in people_of(test)]
    gallery, probes = test.with_suffix(".gallery.tsv"), test.with_suffix(".probes.tsv")
    gallery.write_text("\n".join(row[0] for row in rows) + "\n", encoding="utf-8")
    probes.write_text("\n".join(line for row in rows for line in row[1:]) + "\n", encoding="utf-8")
    return str(gallery), str(probes)


def adapted(config: AdaptConfig, workspace: Workspace) -> tuple[str, float]:
    """The checkpoint of an adaptation, and the seconds that it took."""
    began = time.monotonic()
    run = select(plan_selection(config, workspace)).run if config.select else adapt(plan_adapt(config, workspace)).run
    return str(run.checkpoint), time.monotonic() - began


def measured(models: Mapping[str, str], test: Path, workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Rates by row, with the differences to the first row and their intervals."""
    config = EvaluateConfig(model=tuple(dict.fromkeys(models.values())), far=FARS)
    images = workspace.dataset(test.name)
    gallery, probes = (workspace.dataset(path) for path in gallery_and_probes(test))
    found: dict[str, dict[str, Any]] = {row: {} for row in models}
    results = (evaluate_verify(config, workspace, images), evaluate_identify(config, workspace, gallery, probes))
    for result, measure in zip(results, ("VR at FAR ", "rank "), strict=True):
        by_model = {str(one.checkpoint): one for one in result.models}
        first = next(iter(result.models)).name
        for row, model in models.items():
            one = by_model[model]
            for at, value in one.partitions["all"].rates.values.items():
                entry: dict[str, Any] = {"value": value}
                for gain in result.differences:
                    if (gain.a, gain.b, gain.at) == (first, one.name, at):
                        entry |= {"difference": gain.value, "interval": gain.interval}
                found[row][measure + at] = entry
    return found


def said(entry: Mapping[str, Any]) -> str:
    """A rate in per cent, with its difference to keeping the network; a star where the interval excludes 0."""
    text = f"{100 * entry['value']:5.1f}"
    if "difference" not in entry:
        return text
    low, high = entry["interval"] or (float("nan"),) * 2
    star = "*" if low > 0 or high < 0 else ""
    return f"{text} ({100 * entry['difference']:+.1f} [{100 * low:.1f}, {100 * high:.1f}]{star})"


def draw(root: Path, people: int, images: int) -> Path:
    """A small set of drawn faces, for --smoke."""
    for number in range(people):
        identity = draw_identity(np.random.default_rng((3, number)))
        views = np.random.default_rng((4, number))
        (root / f"p{number:02d}").mkdir(parents=True)
        for view in range(images):
            cv2.imwrite(
                str(root / f"p{number:02d}" / f"{view}.png"), render(identity, draw_view(views, WEB), 72)[..., ::-1]
            )
    return root


def main() -> None:
    """Split, adapt, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("targets", type=Path, nargs="*")
    parser.add_argument("--shifts", default="")
    parser.add_argument("--init")
    parser.add_argument("--model", default="vggface-mini")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--pretrain-iterations", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--train-from")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="the smallest run, in seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        short: dict[str, Any] = {} if given.iterations is None else {"iterations": given.iterations}
        short |= {} if given.train_from is None else {"train_from": given.train_from}
        if given.smoke:
            given.source, given.shifts, given.rows = draw(Path(scratch) / "faces", 24, 3), "haze", "control,whiten"
            given.pretrain_iterations, short = 2, {"iterations": 2, "batch": 4, "bandwidth": "batch"}
        workspace = Workspace.open(given.workspace or Path(scratch) / "workspace")
        sets = workspace.root / "aligned"
        people = people_of(given.source)
        third = len(people) // 3
        lay_out(people[: -2 * (third // 2)], sets / "source")
        for shift in filter(None, given.shifts.split(",")):
            lay_out(people[-2 * (third // 2) :: 2], sets / f"{shift}-target", shift)
            lay_out(people[-2 * (third // 2) + 1 :: 2], sets / f"{shift}-test", shift)
        for target in given.targets:
            lay_out(people_of(target)[::2], sets / f"{target.name}-target")
            lay_out(people_of(target)[1::2], sets / f"{target.name}-test")
        shifts = [*filter(None, given.shifts.split(",")), *(target.name for target in given.targets)]
        figures: dict[str, Any] = {}
        for seed in map(int, given.seeds.split(",")):
            config = PretrainConfig(
                source="source",
                model=given.model,
                seed=seed,
                iterations=given.pretrain_iterations,
                batch=short.get("batch"),
                holdout_identities=len(people) // 15,
            )
            init = given.init or str(pretrain(plan_pretrain(config, workspace)).run.checkpoint)
            for shift in shifts:
                task = AdaptConfig(source="source", target=f"{shift}-target", init=init, seed=seed)
                models, seconds = {"keep": str(plan_adapt(task, workspace).init)}, {}
                for row in given.rows.split(","):
                    how = replace(task, **ROWS[row])
                    trains = ROWS[row].get("method", "mmd").partition("+")[0] not in ("whiten", "adabn")
                    models[row], seconds[row] = adapted(replace(how, **short) if trains else how, workspace)
                found = measured(models, sets / f"{shift}-test", workspace)
                figures[f"{shift}, seed {seed}"] = found
                for row, entries in found.items() if not given.json else ():
                    told = ", ".join(f"{measure} {said(entry)}" for measure, entry in entries.items())
                    print(f"{shift}, seed {seed}, {row}: {told}; {seconds.get(row, 0):.0f} s", flush=True)
    if given.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
