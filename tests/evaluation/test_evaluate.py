"""What all protocols have in common: fusion, differences, failures, warnings, scores for other tools."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import ADAPT, BLANK, Notes, draw, mark_aligned

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import UsageError
from facedan_cli.evaluation.differences import Difference, differences
from facedan_cli.evaluation.external_scores import evaluate_scores
from facedan_cli.evaluation.identification import Identification
from facedan_cli.evaluation.protocols import evaluate_gbu, evaluate_identify, evaluate_lfw, evaluate_pairs
from facedan_cli.evaluation.result import EvaluateResult, ModelResult
from facedan_cli.evaluation.text_tables import failures_table, main_table
from facedan_cli.evaluation.verification import Rates
from facedan_cli.metrics.bootstrap import rank1_replicates
from facedan_cli.metrics.fusion import fuse
from facedan_cli.metrics.identification import mcnemar
from facedan_cli.metrics.intervals import difference_interval
from facedan_cli.metrics.roc import verification_rate
from facedan_cli.protocols.bee import read_scores_and_mask
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.workspace import Workspace

CONFIG = EvaluateConfig(far=("0.1", "0.5"), replicates=40)


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def gbu(place: Workspace, config: EvaluateConfig = CONFIG, **more: Any) -> EvaluateResult:
    return evaluate_gbu(config, place, place.dataset("gbu"), place.protocol("gbu"), **more)


def partition(result: EvaluateResult, name: str = "Good", model: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = result.summary()["models"][model]["partitions"][name]
    return found


def test_the_fused_row_is_measured_on_the_sum_of_normalised_scores(place: Workspace, trained: Any) -> None:
    config = replace(CONFIG, model=(trained.before.name, trained.dan_m67.name), fuse=True, save_scores=True)
    result = gbu(place, config)
    assert [model.name for model in result.models] == ["source only", "DAN_m67", "fusion"]
    scores = result.directory / "scores"
    matrices = [
        read_scores_and_mask(scores / f"Bad-{name}.mtx", scores / "Bad-mask.mtx") for name in ("source-only", "DAN_m67")
    ]
    fused = fuse([matrix.similarities() for matrix, _ in matrices])
    genuine = np.asarray(matrices[0][1].values) == 0xFF
    for far in CONFIG.far:
        expected = verification_rate(fused[genuine], fused[~genuine], far).vr
        assert partition(result, "Bad", 2)["vr"][far] == expected
    assert {(found.a, found.b) for found in result.differences} == {
        ("source only", "DAN_m67"),
        ("source only", "fusion"),
        ("DAN_m67", "fusion"),
    }


def test_one_model_cannot_be_fused(place: Workspace) -> None:
    with pytest.raises(UsageError, match="--fuse needs at least two models"):
        gbu(place, replace(CONFIG, fuse=True))


def test_saved_scores_give_the_same_figures_again(place: Workspace) -> None:
    result = gbu(place, replace(CONFIG, save_scores=True))
    scores = result.directory / "scores"
    for mask in (scores / "Ugly-mask.mtx", None):
        again = evaluate_scores(CONFIG, place, [scores / "Ugly-DAN_m67.mtx"], mask)
        assert partition(again, "all") == partition(result, "Ugly")


def test_saved_scores_of_pairs_give_the_same_rates_again(place: Workspace) -> None:
    listed = place.root / "pairs.csv"
    names = [f"person{subject}/{image}.png" for subject in range(3) for image in range(2)]
    pairs = [(a, b, int(a[:7] == b[:7])) for place, a in enumerate(names) for b in names[:place]]
    listed.write_text("\n".join(f"{a},{b},{same}" for a, b, same in pairs), encoding="utf-8")
    result = evaluate_pairs(replace(CONFIG, save_scores=True), place, place.dataset("casia"), listed)
    (file,) = (result.directory / "scores").iterdir()
    assert file.name == "all-DAN_m67.txt"
    again = evaluate_scores(CONFIG, place, [file], None)
    for key in ("vr", "interval", "genuine", "impostor"):
        assert partition(again, "all")[key] == partition(result, "all")[key]


def test_failures_are_false_rejects_at_the_same_threshold(place: Workspace) -> None:
    whole = partition(gbu(place))
    (place.root / "aligned" / "gbu" / "00001d0.png").unlink()
    result = gbu(place)
    found = partition(result)
    assert found["failures"]["images"] == 1
    assert (found["failures"]["genuine"], found["failures"]["impostor"]) == (1, 3)
    assert found["genuine"] + 1 == whole["genuine"]
    assert found["impostor"] + 3 == whole["impostor"]
    for far in CONFIG.far:
        assert found["failures"]["vr"][far] == pytest.approx(found["vr"][far] * 3 / 4)
        low, high = found["failures"]["interval"][far]
        assert 0 <= low <= high <= 1
    shown = failures_table(result)
    assert shown is not None
    assert shown.header[1] == "Good @ FAR 0.1 (1 failed)"
    assert partition(result, "Ugly")["failures"]["vr"] == partition(result, "Ugly")["vr"]


def test_a_search_that_could_not_be_made_finds_nobody(place: Workspace) -> None:
    casia = place.root / "aligned" / "casia"
    for side, images in (("gallery", [0]), ("probe", [1, 2])):
        for subject in range(4):
            for image in images:
                target = place.root / "aligned" / side / f"person{subject}" / f"{image}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(casia / f"person{subject}" / f"{image}.png", target)
    (place.root / "aligned" / "probe" / "person0" / "1.png").write_bytes(b"no image")
    (place.root / "aligned" / "gallery" / "person1" / "0.png").write_bytes(b"no image")
    for stranger in ("5.png", "6.png"):
        draw(place.root / "aligned" / "probe" / "stranger" / stranger, 50, int(stranger[0]))
    config = replace(CONFIG, ci="wilson", fpir=("0.5",))
    found = partition(evaluate_identify(config, place, place.dataset("gallery"), place.dataset("probe")), "all")
    assert (found["probes"], found["without_mate"]) == (5, 2)  # whose mate is missing is no stranger
    assert (found["failures"]["probes"], found["failures"]["images"]) == (3, 2)  # one probe, and two without their mate
    assert found["failures"]["rank1"] == pytest.approx(found["correct"] / 8)
    assert found["open_set"]["0.5"]["budget"] == 1


def test_subjects_of_the_target_in_the_protocol_make_a_warning(place: Workspace) -> None:
    notes = Notes()
    mark_aligned(place.root / "aligned" / "gbu")
    assert gbu(place, report=notes).warnings == []
    assert notes.warnings == []
    made = adapt(plan_adapt(replace(ADAPT, target="gbu", iterations=1), place)).run
    result = gbu(place, replace(CONFIG, model=(made.name,)), report=notes)
    assert notes.warnings == list(result.warnings)
    assert "was adapted on images of 4 subjects of this protocol (S0, S1, S2, …)" in notes.warnings[0]


def test_view_2_has_an_accuracy(place: Workspace) -> None:
    lines = ["2\t2"]
    for fold in range(2):
        subjects = [f"P{2 * fold + number}" for number in range(2)]
        for index, subject in enumerate(subjects):
            for number in (1, 2):
                image = place.root / "aligned" / "lfw" / subject / f"{subject}_{number:04d}.png"
                draw(image, 10 * fold + index, number)
        lines += [f"{subject}\t1\t2" for subject in subjects]
        lines += [f"{subjects[0]}\t{number}\t{subjects[1]}\t{number}" for number in (1, 2)]
    listed = place.root / "pairs.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    notes = Notes()
    result = evaluate_lfw(CONFIG, place, place.dataset("lfw"), listed, report=notes)
    accuracy = partition(result, "all")["accuracy"]
    assert len(accuracy["folds"]) == len(accuracy["thresholds"]) == 2
    assert accuracy["mean"] == pytest.approx(np.mean(accuracy["folds"]))
    assert any("is not View 2 of LFW" in warning for warning in notes.warnings)
    assert "accuracy" in main_table(result).header


def test_the_figures_of_csv_are_those_of_json(place: Workspace) -> None:
    result = gbu(place)
    with (result.directory / "figures.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["measure"] == "vr":
            assert float(row["value"]) == partition(result, row["partition"])["vr"][row["at"]]
            assert [float(row["low"]), float(row["high"])] == partition(result, row["partition"])["interval"][row["at"]]
    assert {row["measure"] for row in rows} == {"vr", "eer"}


@pytest.mark.parametrize("plot", ["png", "svg", "pdf"])
def test_figures_come_in_the_format_asked_for(place: Workspace, plot: str) -> None:
    result = gbu(place, replace(CONFIG, plot=plot, ci="none"))
    for name in ("roc", "det", "scores"):
        assert (result.directory / f"{name}.{plot}").read_bytes() == BLANK[plot]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "max_tar"}, "--convention does not know 'max_tar'"),
        ({"ci": "boot"}, "--ci does not know 'boot'"),
        ({"plot": "jpg"}, "--plot does not know 'jpg'"),
        ({"fpir": ("2",)}, "'2' is not a false-positive identification rate"),
    ],
)
def test_impossible_options_are_refused_before_any_work(place: Workspace, change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gbu(place, replace(CONFIG, **change))
    assert not (place.root / "embeddings").exists()


def search(correct: np.ndarray, *, drawn: bool = True) -> Identification:
    """A search of probes of forty subjects, two each."""
    subjects = np.arange(len(correct)) // 2
    rates = Rates(
        {"1": float(correct.mean())},
        {},
        {"1": rank1_replicates(correct, subjects, replicates=200)} if drawn else {},
        len(np.unique(subjects)),
    )
    return Identification(rates, rates, correct, np.array([correct.mean()]), {}, 40, 0, (0, 0))


def test_differences_are_paired_and_tell_what_is_distinguishable() -> None:
    rng = np.random.default_rng(0)
    poor = rng.random(80) < 0.6
    good = poor | (rng.random(80) < 0.5)
    other = rng.permutation(good)
    models = [("poor", {"all": search(poor)}), ("good", {"all": search(good)}), ("other", {"all": search(other)})]
    found = {(one.a, one.b): one for one in differences(models)}
    first = found["poor", "good"]
    subjects = np.arange(80) // 2
    replicates = [rank1_replicates(correct, subjects, replicates=200) for correct in (good, poor)]
    assert first.interval == difference_interval(first.value, *replicates, subjects=40)
    assert first.value == pytest.approx(good.mean() - poor.mean())
    assert first.distinguishable
    assert first.mcnemar == mcnemar(poor, good)
    assert not found["good", "other"].distinguishable


def test_without_intervals_mcnemar_decides() -> None:
    poor = np.arange(80) % 2 == 0
    models: list[tuple[str, Mapping[str, Any]]] = [
        (name, {"all": search(correct, drawn=False)})
        for name, correct in (("poor", poor), ("good", np.ones(80, bool)), ("alike", ~poor))
    ]
    by_pair = {(one.a, one.b): one for one in differences(models)}
    assert by_pair["poor", "good"].distinguishable
    assert not by_pair["poor", "alike"].distinguishable
    assert Difference("all", "a", "b", "vr", "0.1", 0.5, None).distinguishable is None


def test_the_table_marks_what_differs_from_the_first_row(tmp_path: Path) -> None:
    poor = np.arange(80) % 2 == 0
    measured = [
        ModelResult(name, None, None, {"all": search(correct)})
        for name, correct in (("poor", poor), ("good", poor | True))
    ]
    found = differences([(model.name, model.partitions) for model in measured])
    result = EvaluateResult("identify", tmp_path, measured, found, CONFIG, [], {}, None)
    shown = main_table(result)
    assert [row[1] for row in shown.rows] == ["50.00", "100.00†"]
    assert shown.notes == ["† differs from 'poor': the 95 % interval of the paired difference leaves out 0"]
