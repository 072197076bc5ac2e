from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import ADAPT, draw

from facedan_cli.config.common import EvaluateConfig, hashed_options
from facedan_cli.config.training import PRESETS, AdaptConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.models import find_models, label_of
from facedan_cli.evaluation.protocols import evaluate_gbu, evaluate_identify, evaluate_pairs
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.models.checkpoint import ModelCard
from facedan_cli.protocols.bee import read_matrix
from facedan_cli.protocols.gbu import PARTITIONS
from facedan_cli.runs import checkpoint_of
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.workspace import Dataset, Workspace

CONFIG = EvaluateConfig(far=("0.001", "0.1", "0.5"), replicates=50)
BY_FAR = {"vr", "interval", "achieved_far", "threshold", "false_accepts", "budget", "resolved"}
COUNTS = {"genuine", "impostor", "failures", "left_out"}


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    """The trained workspace without what other tests measured in it, to be changed."""
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def gbu(place: Workspace, *, config: EvaluateConfig = CONFIG) -> EvaluateResult:
    return evaluate_gbu(config, place, place.dataset("gbu"), place.protocol("gbu"))


def vectors_by_stem(place: Workspace, dataset: str) -> dict[str, np.ndarray]:
    (directory,) = (place.root / "embeddings").glob(f"{dataset}-*")
    with (directory / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    vectors = np.load(directory / "vectors.npy")
    return {row["path"].removesuffix(".png"): vectors[int(row["row"])] for row in rows}


def measured_scores(result: EvaluateResult, partition: str, brute_force: Sequence[Sequence[float]]) -> np.ndarray:
    """The scores of --save-scores, found alike to those of a brute force, up to the last bits.

    Another order of summation gives other last bits, and with them other ranks of scores that are nearly tied: what is
    said of scores is checked on those that were measured.
    """
    (path,) = set((result.directory / "scores").glob(f"{partition}-*.mtx")) - {
        result.directory / "scores" / f"{partition}-mask.mtx"
    }
    scores = read_matrix(path).similarities()
    np.testing.assert_allclose(scores, brute_force, atol=1e-5)
    return scores


def slow_vr(genuine: list[float], impostor: list[float], k: int) -> float:
    """The largest true-accept rate of any threshold with at most k false accepts."""
    rates = []
    for threshold in [-2.0, *genuine, *impostor]:
        if sum(score > threshold for score in impostor) <= k:
            rates.append(sum(score > threshold for score in genuine) / len(genuine))
    return max(rates)


def summary_of(result: EvaluateResult) -> Mapping[str, Any]:
    written: dict[str, Any] = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    assert written == result.summary()
    return written


def test_gbu_is_measured_as_by_brute_force(place: Workspace) -> None:
    result = gbu(place, config=replace(CONFIG, save_scores=True))
    vectors = vectors_by_stem(place, "gbu")
    (model,) = summary_of(result)["models"]
    assert list(model["partitions"]) == ["Good", "Bad", "Ugly"]
    for index, partition in enumerate(PARTITIONS):
        queries, targets = ([vectors[f"{subject:05d}d{2 * index + side}"] for subject in range(4)] for side in (1, 0))
        by_hand = [[float(query @ target) for target in targets] for query in queries]
        scores, mates = measured_scores(result, partition, by_hand), np.eye(4, dtype=bool)
        genuine, impostor = scores[mates].tolist(), scores[~mates].tolist()
        found = model["partitions"][partition]
        assert (found["genuine"], found["impostor"], found["failures"]["images"]) == (4, 12, 0)
        assert found["vr"] == {far: slow_vr(genuine, impostor, k) for far, k in (("0.001", 0), ("0.1", 1), ("0.5", 6))}
        assert found["budget"] == {"0.001": 0, "0.1": 1, "0.5": 6}
        for far, threshold in found["threshold"].items():
            assert sum(score > threshold for score in impostor) == found["false_accepts"][far] <= found["budget"][far]
            assert found["false_accepts"][far] == pytest.approx(12 * found["achieved_far"][far])
            low, high = found["interval"][far]
            assert 0 <= low <= found["vr"][far] <= high <= 1
            assert low < high


def test_the_json_object_has_the_keys_of_its_schema(place: Workspace) -> None:
    result = gbu(place)
    summary = summary_of(result)
    assert summary.keys() == {
        *("schema", "protocol", "convention", "intervals", "models", "differences", "warnings"),
        *("results", "plot", "report", "set_aside", "provenance"),
    }
    assert (summary["schema"], summary["protocol"], summary["convention"]) == (2, "gbu", "max-tar")
    assert summary["intervals"] == {"method": "bootstrap", "level": 0.95, "replicates": 50, "seed": 0}
    (model,) = summary["models"]
    assert model.keys() == {"name", "run", "checkpoint", "partitions"}
    for partition in model["partitions"].values():
        assert partition.keys() == BY_FAR | COUNTS | {"eer"}
        assert partition["vr"].keys() == partition["threshold"].keys() == {"0.001", "0.1", "0.5"}


def test_curves_and_figures_lie_beside_it(place: Workspace) -> None:
    result = gbu(place)
    assert {path.name for path in result.directory.iterdir()} == {
        *("summary.json", "figures.csv", "report.html"),
        *("roc.csv", "roc.png", "det.png", "scores.png"),
    }
    assert result.plot == result.directory / "roc.png"
    with (result.directory / "roc.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"model", "partition", "far", "vr", "threshold"}
    good = summary_of(result)["models"][0]["partitions"]["Good"]
    curve = [row for row in rows if row["partition"] == "Good"]
    reached = max(float(row["vr"]) for row in curve if float(row["far"]) <= 0.5)
    assert reached == good["vr"]["0.5"]
    assert (float(curve[-1]["far"]), float(curve[-1]["vr"])) == (1, 1)


def test_models_have_a_row_each_named_as_in_the_paper(place: Workspace, trained: Any) -> None:
    names = tuple(path.name for path in (trained.before, trained.control, trained.dan_s7, trained.dan_m67))
    result = gbu(place, config=replace(CONFIG, model=names, replicates=0))
    assert [model.name for model in result.models] == ["source only", "λ = 0", "DAN_s7", "DAN_m67"]
    assert [model.run for model in result.models] == list(names)
    assert summary_of(result)["models"][2]["partitions"]["Bad"]["interval"] == {}


def test_a_model_named_twice_has_one_row(place: Workspace, trained: Any) -> None:
    twice = (trained.dan_s7.name, str(place.root / "runs" / trained.dan_s7.name))
    result = gbu(place, config=replace(CONFIG, model=twice, replicates=0))
    assert [model.name for model in result.models] == ["DAN_s7"]


def test_models_of_one_name_are_told_apart_by_their_runs(place: Workspace, trained: Any) -> None:
    other = adapt(plan_adapt(replace(ADAPT, seed=9, iterations=1), place)).run
    result = gbu(place, config=replace(CONFIG, model=(trained.dan_m67.name, other.name), replicates=0))
    assert [model.name for model in result.models] == [
        f"DAN_m67 {trained.dan_m67.name[-8:]}",
        f"DAN_m67 {other.name[-8:]}",
    ]


def test_networks_of_one_run_and_copies_are_measured_each_by_itself(trained: Any, tmp_path: Path) -> None:
    last = checkpoint_of(trained.dan_m67)
    for copy in (
        tmp_path / "checkpoints" / "step-50.safetensors",
        tmp_path / "a.safetensors",
        tmp_path / "b.safetensors",
    ):
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(last, copy)
    models = [last, *sorted(tmp_path.rglob("*.safetensors"))]
    config = EvaluateConfig(model=tuple(map(str, models)), replicates=0)
    found = find_models(config, trained.workspace)
    run = trained.dan_m67.name[-8:]
    assert [(model.checkpoint, model.name) for model in found] == list(
        zip(models, [f"DAN_m67 {run} #1", f"DAN_m67 {run} #2", f"DAN_m67 {run} #3", "DAN_m67 step 50"], strict=True)
    )


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"lambda": 0.5, "kernels": 5, "layers": "fc7,fc6"}, "DAN_m67"),
        ({"lambda": 0.5, "kernels": 1, "layers": "fc6"}, "DAN_s6"),
        ({"lambda": 2.0, "kernels": 3, "layers": "fc7"}, "DAN_3k7 λ=2"),
        ({"lambda": 0.0, "kernels": 5, "layers": "fc6,fc7"}, "λ = 0"),
        ({"lambda": 0.5, "kernels": 5, "layers": "fc7,fc6:0.5"}, "DAN_m67 fc6:0.5"),
        ({"lambda": 0.5, "kernels": 5, "layers": "fc6:1,fc7:1.0"}, "DAN_m67"),
        ({"lambda": 0.5, "kernels": 5, "layers": "embedding:2,pool"}, "DAN_m embedding+pool embedding:2"),
        ({"lambda": 2.0, "kernels": 3, "layers": "fc7", "multipliers": "0.25,1,4"}, "DAN_3k7 λ=2 γ×0.25,1,4"),
        (
            {
                "lambda": 0.5,
                "kernels": 5,
                "layers": "fc7",
                "estimator": "biased",
                "queue": 64,
                "lambda_ramp": 100,
            },
            "DAN_m7 biased bank=64 ramp=100",
        ),
        (
            {"lambda": 0.5, "kernels": 5, "layers": "fc7", "betas": "optimal", "bandwidth": "ema"},
            "DAN_m7 γ=ema β=optimal",
        ),
    ],
)
def test_labels_follow_the_paper_and_say_what_differs(config: dict[str, Any], label: str) -> None:
    assert label_of(ModelCard("vggface", (), "adapt", "adapt-a-b-00000000", config)) == label


def test_every_option_of_the_penalty_changes_the_label() -> None:
    config = AdaptConfig(source="a", target="b")
    others = {
        "lambda_": 1.0,
        "kernels": 2,
        "layers": "fc6:0.5,fc7",
        "discrepancy": "coral",
        "bandwidth_multipliers": "1,3,9",
    }
    others |= {
        "lambda_ramp": 5,
        "estimator": "linear",
        "bandwidth": "3",
        "median": "sigma",
        "kernel_weights": "optimal",
        "memory_bank": 9,
        "normalise_features": True,
    }
    assert others.keys() == PRESETS["paper"].keys()
    usual = replace(config, layers="fc6,fc7", lambda_=0.5)
    labels = {
        label_of(
            ModelCard("vggface", (), "adapt", "adapt-a-b-00000000", hashed_options(replace(usual, **{name: value})))
        )
        for name, value in others.items()
    }
    assert (
        len(labels | {label_of(ModelCard("vggface", (), "adapt", "adapt-a-b-00000000", hashed_options(usual)))})
        == len(others) + 1
    )


def test_missing_images_are_counted_and_named(place: Workspace) -> None:
    images = place.root / "aligned" / "gbu"
    (images / "00001d0.png").unlink()
    (images / "00002d3.png").write_bytes(b"no image")
    result = gbu(place)
    (model,) = summary_of(result)["models"]
    counts = {name: (p["failures"]["images"], p["genuine"], p["impostor"]) for name, p in model["partitions"].items()}
    assert counts == {"Good": (1, 3, 9), "Bad": (1, 3, 9), "Ugly": (0, 4, 12)}
    assert result.set_aside == result.directory / "set-aside.tsv"
    assert result.set_aside.read_text(encoding="utf-8").splitlines() == [
        "2008/00001d0.jpg\tnot among the images",
        "2008/00002d3.jpg\tnot an image of a known format",
    ]


def test_images_without_a_face_are_told_from_missing_ones(place: Workspace) -> None:
    (place.root / "aligned" / "gbu" / "00001d0.png").unlink()
    failed = AlignedRecord(
        path="gbu/2008/00001d0.jpg",
        status="failed",
        reason="no face was found",
        template="vggface",
        size=250,
        bytes=1,
        modified=0,
    )
    (place.root / "aligned" / "aligned.jsonl").write_text(failed.to_line(), encoding="utf-8")
    result = gbu(place)
    assert result.set_aside is not None
    assert result.set_aside.read_text(encoding="utf-8") == "2008/00001d0.jpg\tnot aligned: no face was found\n"


def test_lists_whose_images_are_not_there_are_refused(place: Workspace) -> None:
    with pytest.raises(FacedanError, match="Good has no genuine"):
        evaluate_gbu(CONFIG, place, place.dataset("frgc"), place.protocol("gbu"))
    with pytest.raises(FacedanError, match=r"is incomplete: GBU_Good_Target\.xml"):
        evaluate_gbu(CONFIG, place, place.dataset("gbu"), place.root)
    assert not (place.root / "results").exists()


def test_the_same_evaluation_lies_in_the_same_place(place: Workspace) -> None:
    first = gbu(place)
    assert gbu(place).directory == first.directory
    assert gbu(place, config=replace(CONFIG, far=("0.1",))).directory != first.directory


@pytest.mark.parametrize("far", ["0", "1.5", "a", "-0.1", "nan", "1/1000"])
def test_what_is_no_far_is_refused_before_any_work(place: Workspace, far: str) -> None:
    with pytest.raises(UsageError, match="is not a false-accept rate"):
        gbu(place, config=replace(CONFIG, far=(far,)))
    assert not (place.root / "embeddings").exists()


def every_pair(root: Path) -> list[tuple[str, str, bool]]:
    paths = read_dataset(root).paths
    return [(a, b, a.split("/")[0] == b.split("/")[0]) for i, a in enumerate(paths) for b in paths[:i]]


def test_pairs_are_measured_as_by_brute_force(place: Workspace) -> None:
    images = place.dataset("casia")
    pairs = every_pair(images.root)
    listed = place.root / "pairs.csv"
    listed.write_text("".join(f"{a},{b},{int(same)}\n" for a, b, same in pairs), encoding="utf-8")
    result = evaluate_pairs(replace(CONFIG, save_scores=True), place, images, listed)
    vectors = vectors_by_stem(place, "casia")
    (written,) = (result.directory / "scores").iterdir()
    measured = [float(line.split()[-1]) for line in written.read_text(encoding="utf-8").splitlines()]
    by_hand = [float(np.einsum("d,d->", vectors[a[:-4]], vectors[b[:-4]])) for a, b, _ in pairs]
    np.testing.assert_allclose(measured, by_hand, atol=1e-5)
    scores: dict[bool, list[float]] = {True: [], False: []}
    for (_, _, same), score in zip(pairs, measured, strict=True):
        scores[same].append(score)
    (model,) = summary_of(result)["models"]
    found = model["partitions"]["all"]
    assert (found["genuine"], found["impostor"]) == (len(scores[True]), len(scores[False])) == (24, 96)
    for far, k in (("0.001", 0), ("0.1", 9), ("0.5", 48)):
        assert found["vr"][far] == slow_vr(scores[True], scores[False], k)
    assert (result.directory / "roc.csv").is_file()


def test_lfws_list_is_read_and_missing_images_are_named(place: Workspace) -> None:
    for index, subject in enumerate(("Ann", "Bob", "Eve")):
        for number in (1, 2):
            draw(place.root / "aligned" / "lfw" / subject / f"{subject}_{number:04d}.png", index, number)
    lines = ["1 3", "Ann 1 2", "Bob 1 2", "Eve 1 3", "Ann 1 Bob 1", "Ann 2 Eve 1", "Bob 2 Zoe 1"]
    listed = place.root / "pairs.txt"
    listed.write_text("".join("\t".join(line.split()) + "\n" for line in lines), encoding="utf-8")
    result = evaluate_pairs(CONFIG, place, place.dataset("lfw"), listed)
    (model,) = summary_of(result)["models"]
    found = model["partitions"]["all"]
    assert (found["genuine"], found["impostor"], found["failures"]["images"]) == (2, 2, 2)
    assert result.set_aside is not None
    names = [line.split("\t")[0] for line in result.set_aside.read_text(encoding="utf-8").splitlines()]
    assert names == ["Eve/Eve_0003", "Zoe/Zoe_0001"]


def test_a_missing_image_beside_itself_in_a_list_is_no_failure(place: Workspace) -> None:
    listed = place.root / "pairs.csv"
    made = ["person0/0.png,person0/1.png,1", "person0/0.png,person1/1.png,0"]
    listed.write_text("\n".join([*made, "person0/gone.png,person0/gone.png,1"]), encoding="utf-8")
    (model,) = summary_of(evaluate_pairs(CONFIG, place, place.dataset("casia"), listed))["models"]
    failures = model["partitions"]["all"]["failures"]
    assert (failures["images"], failures["genuine"], failures["impostor"]) == (1, 0, 0)


def test_a_list_that_contradicts_the_folders_is_refused(place: Workspace) -> None:
    listed = place.root / "pairs.csv"
    lines = ["person0/0.png,person0/1.png,1", "person0/0.png,person1/1.png,0", "person0/2.png,person0/3.png,0"]
    listed.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(FacedanError, match=r"1 pairs of .* different subjects"):
        evaluate_pairs(CONFIG, place, place.dataset("casia"), listed)


def split_casia(place: Workspace) -> tuple[Dataset, Dataset]:
    """Each subject's first image as gallery, the others as probes."""
    for image in read_dataset(place.root / "aligned" / "casia").paths:
        side = "gallery" if image.endswith("/0.png") else "probe"
        target = place.root / "aligned" / side / image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place.root / "aligned" / "casia" / image, target)
    return place.dataset("gallery"), place.dataset("probe")


def test_identification_is_measured_as_by_brute_force(place: Workspace) -> None:
    result = evaluate_identify(replace(CONFIG, save_scores=True), place, *split_casia(place))
    gallery, probe = vectors_by_stem(place, "gallery"), vectors_by_stem(place, "probe")
    by_hand = [[float(vector @ other) for other in gallery.values()] for vector in probe.values()]
    ranks = []
    for name, row in zip(probe, measured_scores(result, "all", by_hand), strict=True):
        scores = {subject[:7]: float(score) for subject, score in zip(gallery, row, strict=True)}
        mate = scores.pop(name[:7])
        ranks.append(1 + sum(score >= mate for score in scores.values()))
    (model,) = summary_of(result)["models"]
    found = model["partitions"]["all"]
    assert found["rank1"] == np.mean(np.array(ranks) == 1)
    assert found["cmc"] == [np.mean(np.array(ranks) <= rank) for rank in range(1, 5)]
    assert (found["probes"], found["gallery"], found["without_mate"], found["failures"]["images"]) == (12, 4, 0, 0)
    with (result.directory / "cmc.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["rank"]), float(row["rate"])) for row in rows] == list(enumerate(found["cmc"], start=1))
    assert (result.directory / "cmc.png").is_file()


def test_images_of_nobody_are_never_taken_for_one_subject(place: Workspace) -> None:
    gallery, probe = split_casia(place)
    before = summary_of(evaluate_identify(CONFIG, place, gallery, probe))["models"][0]["partitions"]["all"]
    for side in (gallery, probe):
        draw(side.root / "loose.png", 7, 7)
    result = evaluate_identify(CONFIG, place, gallery, probe)
    after = summary_of(result)["models"][0]["partitions"]["all"]
    assert (after["rank1"], after["probes"], after["gallery"]) == (before["rank1"], 12, 4)
    assert after["failures"]["images"] == 2
    assert result.set_aside is not None
    lines = result.set_aside.read_text(encoding="utf-8").splitlines()
    assert lines == [f"{side.root / 'loose.png'}\tnot in an identity folder" for side in (gallery, probe)]


def test_subjects_who_are_not_in_the_gallery_are_left_out_and_counted(place: Workspace) -> None:
    gallery, probe = split_casia(place)
    shutil.rmtree(gallery.root / "person2")
    found = summary_of(evaluate_identify(CONFIG, place, gallery, probe))["models"][0]["partitions"]["all"]
    assert (found["probes"], found["gallery"], found["without_mate"]) == (9, 3, 3)


def test_searches_that_can_find_nobody_or_only_oneself_are_refused(place: Workspace) -> None:
    gallery, probe = split_casia(place)
    with pytest.raises(FacedanError, match="no probe has a mate in the gallery"):
        evaluate_identify(CONFIG, place, gallery, place.dataset("frgc"))
    with pytest.raises(FacedanError, match="no probe has a mate in the gallery"):
        evaluate_identify(CONFIG, place, place.dataset("gbu"), place.dataset("frgc"))
    with pytest.raises(UsageError, match="every probe would find itself"):
        evaluate_identify(CONFIG, place, probe, Dataset("again", probe.root / "." / "."))


def test_negative_replicates_are_refused(place: Workspace) -> None:
    with pytest.raises(UsageError, match="--replicates must be at least 0"):
        gbu(place, config=replace(CONFIG, replicates=-1))


def test_unaligned_faces_are_warned_of_in_the_summary(place: Workspace) -> None:
    (warning,) = summary_of(gbu(place, config=replace(CONFIG, model=("lbp",))))["warnings"]
    assert "no aligned.jsonl says that the faces of 'gbu' are aligned" in warning
