from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tiny import Notes

from facedan_cli.config.common import EvaluateConfig
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation import result as results
from facedan_cli.evaluation.external_scores import evaluate_scores
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.figures import rates
from facedan_cli.metrics.roc import verification_rate
from facedan_cli.protocols.bee import IGNORED, MATCH, NON_MATCH, write_matrix
from facedan_cli.protocols.sigset import Record, write_sigset
from facedan_cli.workspace import Workspace

CONFIG = EvaluateConfig(far=("0.1", "0.01"), replicates=30)
SUBJECTS = 6


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def figures(result: EvaluateResult, model: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = result.summary()["models"][model]["partitions"]["all"]
    return found


def write_system(root: Path, seed: int = 0, name: str = "a.mtx") -> tuple[np.ndarray, np.ndarray]:
    """A matrix of two images a subject on each side, its mask, and the sigsets that it names."""
    subjects = np.repeat(np.arange(SUBJECTS), 2)
    genuine = np.equal.outer(subjects, subjects)
    scores = np.random.default_rng(seed).normal(size=genuine.shape).astype(np.float32) + 2 * genuine
    write_matrix(root / name, scores, "q.xml", "t.xml")
    write_matrix(root / "mask.mtx", np.where(genuine, MATCH, NON_MATCH).astype(np.uint8), "q.xml", "t.xml", kind="mask")
    return scores, genuine


def write_sigsets(root: Path) -> None:
    for side in "qt":
        write_sigset(root / f"{side}.xml", [Record(f"S{row // 2}", f"{side}{row}.jpg") for row in range(2 * SUBJECTS)])


def test_a_matrix_is_measured_by_its_mask(place: Workspace) -> None:
    scores, genuine = write_system(place.root)
    notes = Notes()
    result = evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx", report=notes)
    found = figures(result)
    for far in CONFIG.far:
        assert found["vr"][far] == verification_rate(scores[genuine], scores[~genuine], far).vr
    assert result.summary()["intervals"]["method"] == "wilson"  # whose the rows are is not known
    assert any("Wilson's" in note for note in notes.notes)


def test_sigsets_beside_a_matrix_make_the_intervals_those_of_subjects(place: Workspace) -> None:
    _, genuine = write_system(place.root)
    write_sigsets(place.root)
    by_mask = evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx")
    without = evaluate_scores(CONFIG, place, [place.root / "a.mtx"], None)
    assert figures(by_mask) == figures(without)
    assert by_mask.summary()["intervals"]["method"] == "bootstrap"
    assert figures(by_mask)["genuine"] == genuine.sum()


@pytest.mark.parametrize(("beside", "masked"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("most", [10, 1000])
def test_the_diagonal_of_one_set_is_left_out(
    place: Workspace, beside: bool, masked: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", most)
    scores, genuine = write_system(place.root)
    mask = np.where(genuine, MATCH, NON_MATCH).astype(np.uint8)
    write_matrix(place.root / "a.mtx", scores, "all.xml", "all.xml")
    write_matrix(place.root / "mask.mtx", mask, "all.xml", "all.xml", kind="mask")
    if beside:
        write_sigset(place.root / "all.xml", [Record(f"S{row // 2}", f"{row}.jpg") for row in range(2 * SUBJECTS)])
    notes = Notes()
    config = replace(CONFIG, ci="none")
    given = place.root / "mask.mtx" if masked else None
    result = evaluate_scores(config, place, [place.root / "a.mtx"], given, report=notes)
    found, other = figures(result), ~np.eye(2 * SUBJECTS, dtype=bool)
    assert (found["genuine"], found["left_out"]) == (12, {"images": 12, "genuine": 12, "impostor": 0})
    for far in CONFIG.far:
        assert found["vr"][far] == verification_rate(scores[genuine & other], scores[~genuine], far).vr
    assert [warning for warning in notes.warnings if "12 comparisons of an image with itself" in warning]
    assert list(result.warnings) == notes.warnings


def test_files_that_two_sigsets_name_are_known_and_what_a_mask_ignores_is_not_counted(place: Workspace) -> None:
    _, genuine = write_system(place.root)
    write_sigsets(place.root)
    names = [f"q{row}.jpg" if row in (3, 4) else f"t{row}.jpg" for row in range(2 * SUBJECTS)]
    write_sigset(place.root / "t.xml", [Record(f"S{row // 2}", name) for row, name in enumerate(names)])
    found = figures(evaluate_scores(replace(CONFIG, ci="none"), place, [place.root / "a.mtx"], None))
    assert (found["genuine"], found["left_out"]["genuine"]) == (22, 2)
    mask = np.where(genuine, MATCH, NON_MATCH).astype(np.uint8)
    mask[3, 3] = IGNORED
    write_matrix(place.root / "mask.mtx", mask, "q.xml", "t.xml", kind="mask")
    masked = evaluate_scores(replace(CONFIG, ci="none"), place, [place.root / "a.mtx"], place.root / "mask.mtx")
    assert figures(masked)["left_out"] == {"images": 1, "genuine": 1, "impostor": 0}
    assert figures(masked)["vr"] == found["vr"]


def test_a_large_matrix_is_streamed_to_the_same_rates(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_system(place.root)
    write_sigsets(place.root)
    files, mask = [place.root / "a.mtx"], place.root / "mask.mtx"
    config = replace(CONFIG, ci="wilson")
    kept = figures(evaluate_scores(config, place, files, mask))
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    assert figures(evaluate_scores(config, place, files, mask)) == kept
    assert figures(evaluate_scores(config, place, files, None))["vr"] == kept["vr"]


@pytest.mark.parametrize("most", [10, 10_000])
def test_ignored_comparisons_do_not_count(place: Workspace, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", most)
    _, genuine = write_system(place.root)
    marks = np.where(genuine, MATCH, NON_MATCH).astype(np.uint8)
    marks[0] = IGNORED
    write_matrix(place.root / "mask.mtx", marks, "q.xml", "t.xml", kind="mask")
    found = figures(evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx"))
    assert (found["genuine"], found["impostor"]) == (genuine[1:].sum(), (~genuine[1:]).sum())


def unmade(scores: np.ndarray, genuine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores where one image of either side could not be acquired, and which comparisons were made."""
    made = np.ones(genuine.shape, bool)
    made[0], made[:, 3] = False, False
    return np.where(made, scores, np.float32(np.nan)), made


def test_scores_that_are_nan_count_as_failures(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, genuine = write_system(place.root)
    write_sigsets(place.root)
    scores, made = unmade(scores, genuine)
    write_matrix(place.root / "a.mtx", scores, "q.xml", "t.xml")
    labels = [f"S{row // 2}" for row in range(2 * SUBJECTS)]
    lines = [
        f"{t} {q} x {score}"
        for q, row in zip(labels, scores, strict=True)
        for t, score in zip(labels, row, strict=True)
    ]
    (place.root / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    matrix, text, mask = place.root / "a.mtx", place.root / "a.txt", place.root / "mask.mtx"
    notes = Notes()
    found = figures(evaluate_scores(CONFIG, place, [matrix], mask, report=notes))
    assert found["failures"]["genuine"] == np.count_nonzero(genuine & ~made)
    assert found["failures"]["impostor"] == np.count_nonzero(~genuine & ~made)
    for far in CONFIG.far:
        rate = verification_rate(scores[genuine & made], scores[~genuine & made], far).vr
        assert found["vr"][far] == rate
        assert found["failures"]["vr"][far] == pytest.approx(rate * np.count_nonzero(genuine & made) / genuine.sum())
        low, high = found["failures"]["interval"][far]
        assert low <= found["failures"]["vr"][far] <= high
    assert any("a.mtx has no score (NaN) for 4 genuine and 19 impostor" in note for note in notes.notes)
    of_text = figures(evaluate_scores(CONFIG, place, [text], None))
    assert (of_text["vr"], of_text["failures"]["vr"]) == (found["vr"], found["failures"]["vr"])
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    streamed = figures(evaluate_scores(replace(CONFIG, ci="wilson"), place, [matrix], mask))
    assert (streamed["vr"], streamed["failures"]["vr"]) == (found["vr"], pytest.approx(found["failures"]["vr"]))
    assert (streamed["eer"], streamed["failures"]["eer"]) == (found["eer"], found["failures"]["eer"])
    assert streamed["failures"]["impostor"] == found["failures"]["impostor"]


def test_scores_that_are_all_nan_are_refused(place: Workspace) -> None:
    file = place.root / "scores.txt"
    file.write_text("1 nan\n0 0.5\n", encoding="utf-8")
    with pytest.raises(FacedanError, match="has no genuine comparisons"):
        evaluate_scores(CONFIG, place, [file], None)


def test_two_systems_on_the_same_comparisons_are_told_apart_in_pairs(place: Workspace) -> None:
    write_system(place.root)
    write_system(place.root, seed=1, name="b.mtx")
    write_sigsets(place.root)
    result = evaluate_scores(CONFIG, place, [place.root / "a.mtx", place.root / "b.mtx"], None)
    (first, second) = result.differences
    assert (first.a, first.b, first.at, second.at) == ("a.mtx", "b.mtx", "0.1", "0.01")
    assert first.value == pytest.approx(figures(result, 1)["vr"]["0.1"] - figures(result)["vr"]["0.1"])
    assert first.interval is not None


def test_text_scores_are_measured(place: Workspace) -> None:
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(2, 1, 40).round(2), rng.normal(0, 1, 200).round(2)
    file = place.root / "scores.txt"
    lines = [f"1 {score}" for score in genuine] + [f"-1 {score}" for score in impostor]
    file.write_text("\n".join(lines), encoding="utf-8")
    for convention in ("max-tar", "bob", "openbr", "nearest"):
        found = evaluate_scores(replace(CONFIG, convention=convention, ci="none"), place, [file], None)
        expected = verification_rate(genuine, impostor, "0.1", convention=convention)
        assert figures(found)["vr"]["0.1"] == expected.vr
        assert found.summary()["convention"] == convention


def test_bobs_columns_tell_whose_the_comparisons_are(place: Workspace) -> None:
    rng = np.random.default_rng(0)
    rows = [f"p{a} p{b} probe{b} {rng.normal() + 2 * (a == b):.4f}" for a in range(8) for b in range(8) for _ in "xy"]
    file = place.root / "scores-dev"
    file.write_text("\n".join(rows), encoding="utf-8")
    result = evaluate_scores(CONFIG, place, [file], None)
    assert result.summary()["intervals"]["method"] == "bootstrap"
    assert figures(result)["genuine"] == 16


def test_what_cannot_be_measured_is_refused(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_system(place.root)
    matrix, mask = place.root / "a.mtx", place.root / "mask.mtx"
    text = place.root / "scores.txt"
    text.write_text("1 0.5\n0 0.4\n", encoding="utf-8")
    with pytest.raises(UsageError, match="are genuine is not known"):
        evaluate_scores(CONFIG, place, [matrix], None)
    with pytest.raises(UsageError, match="is a mask, not scores"):
        evaluate_scores(CONFIG, place, [mask], None)
    with pytest.raises(UsageError, match="is no BEE matrix"):
        evaluate_scores(CONFIG, place, [text], mask)
    with pytest.raises(UsageError, match="two files have one name"):
        evaluate_scores(CONFIG, place, [text, text], None)
    with pytest.raises(FacedanError, match="cannot read"):
        evaluate_scores(CONFIG, place, [place.root / "gone.mtx"], mask)
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    with pytest.raises(UsageError, match="more than 10 comparisons"):
        evaluate_scores(replace(CONFIG, convention="bob"), place, [matrix], mask)
    assert not (place.root / "results").exists()


def test_a_mask_that_contradicts_the_sigsets_is_refused(place: Workspace) -> None:
    _, genuine = write_system(place.root)
    write_sigsets(place.root)
    wrong = np.where(np.roll(genuine, 1, axis=1), MATCH, NON_MATCH).astype(np.uint8)
    write_matrix(place.root / "mask.mtx", wrong, "q.xml", "t.xml", kind="mask")
    with pytest.raises(FacedanError, match="contradicts the subjects"):
        evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx")


def test_curves_that_cannot_be_drawn_cost_no_figures(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "plot_roc", full)
    write_system(place.root)
    result = evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx")
    told = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    assert told["models"] == result.summary()["models"]
    assert told["warnings"] == list(result.warnings)
    assert "the curves could not be drawn: [Errno 28] No space left on device" in told["warnings"]
    assert (result.directory / "figures.csv").is_file()
    assert "No space left on device" in result.page.read_text(encoding="utf-8")
    assert not (result.directory / ".page").exists()


@pytest.mark.parametrize("plot", ["png", "svg"])
def test_each_figure_is_drawn_once(place: Workspace, monkeypatch: pytest.MonkeyPatch, plot: str) -> None:
    saved: list[tuple[str, ...]] = []
    save = rates.save

    def keep(figure: Figure, *paths: Path) -> None:
        saved.append(tuple(path.name for path in paths))
        save(figure, *paths)

    monkeypatch.setattr(rates, "save", keep)
    write_system(place.root)
    config = replace(CONFIG, ci="none", plot=plot)
    result = evaluate_scores(config, place, [place.root / "a.mtx"], place.root / "mask.mtx")
    names = ("roc", "det", "scores")
    assert saved == [(f"{name}.svg",) if plot == "svg" else (f"{name}.png", f"{name}.svg") for name in names]
    assert sorted(path.name for path in result.directory.glob(f"*.{plot}")) == sorted(f"{n}.{plot}" for n in names)
    assert result.page.read_text(encoding="utf-8").count("<svg") == 3
    assert not (result.directory / ".page").exists()


@pytest.mark.usefixtures("drawn_figures")
def test_an_evaluation_needs_no_temporary_directory(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", full)
    write_system(place.root)
    result = evaluate_scores(CONFIG, place, [place.root / "a.mtx"], place.root / "mask.mtx")
    assert "<svg" in result.page.read_text(encoding="utf-8")
    assert result.plot.is_file()


def test_scores_may_come_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scores")
    writer = threading.Thread(target=(tmp_path / "scores").write_text, args=("1 0.9\n0 0.1\n",))
    writer.start()
    config = EvaluateConfig(replicates=0, ci="none")
    result = evaluate_scores(config, Workspace.open(tmp_path), [tmp_path / "scores"], None)
    writer.join()
    assert len(result.models) == 1
