"""An image never meets itself, and a network's training images are known again: by content and by place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_accounting import CONFIG, as_tar, as_tree, jpeg
from tiny import ADAPT, PRETRAIN, Notes, draw, not_of_alignment

from facedan_cli.alignment.align import align
from facedan_cli.config.common import AlignConfig, EvaluateConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.same_images import IMAGES_FILE, contents_of_sets, learnt_images, places_of
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.failures import Failures
from facedan_cli.evaluation.protocols import evaluate_identify, evaluate_pairs
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.evaluation.trials import ImageSet, Trials, all_pairs_trials, identification_trials
from facedan_cli.training.adapt import adapt, plan_adapt
from facedan_cli.training.pretrain import plan_pretrain, pretrain
from facedan_cli.workspace import Dataset, Workspace


def partition(result: EvaluateResult) -> dict[str, Any]:
    found: dict[str, Any] = result.summary()["models"][0]["partitions"]["all"]
    return found


def linked(file: Path, other: Path) -> None:
    other.symlink_to(file)


def copied_under_another_name(file: Path, other: Path) -> None:
    shutil.copy(file, other.with_name(f"copy-of-{other.name}"))


WAYS = [linked, os.link, shutil.copy, copied_under_another_name]


@pytest.fixture
def sets(tmp_path: Path) -> Callable[[Any], tuple[Dataset, Dataset]]:
    """A: three subjects with three images each; B: A's first two of each, got in some way, and another one."""

    def make(way: Callable[[Path, Path], object]) -> tuple[Dataset, Dataset]:
        for subject in "abc":
            (tmp_path / "A" / subject).mkdir(parents=True)
            (tmp_path / "B" / subject).mkdir(parents=True)
            for number in range(3):
                file = tmp_path / "A" / subject / f"{number}.jpg"
                file.write_bytes(jpeg(ord(subject), number))
                if number < 2:
                    way(file, tmp_path / "B" / subject / f"{number}.jpg")
            (tmp_path / "B" / subject / "9.jpg").write_bytes(jpeg(ord(subject), 9))
        return Dataset("A", tmp_path / "A"), Dataset("B", tmp_path / "B")

    return make


@pytest.mark.parametrize("way", WAYS)
def test_images_of_both_sets_do_not_meet_themselves(tmp_path: Path, sets: Any, way: Any) -> None:
    notes = Notes()
    a, b = sets(way)
    workspace = Workspace(tmp_path / "workspace", {})
    found = partition(result := evaluate_verify(CONFIG, workspace, a, b, report=notes))
    assert (found["genuine"], found["impostor"]) == (27 - 6, 54)
    assert found["left_out"] == {"images": 6, "genuine": 6, "impostor": 0}
    (warning,) = not_of_alignment(result.warnings)
    assert warning.startswith("6 comparisons of an image with itself are left out (6 images are there more than once")
    assert warning in notes.warnings
    searched = partition(evaluate_identify(CONFIG, workspace, a, b))
    assert (searched["probes"], searched["left_out"]) == (9, {"images": 6, "genuine": 6, "impostor": 0, "probes": 0})


def test_streamed_comparisons_leave_out_the_same(
    tmp_path: Path, sets: Any, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sets(shutil.copy)
    config = replace(CONFIG, model=(str(trained.before / "checkpoints" / "model.safetensors"),), ci="wilson")
    workspace = Workspace(tmp_path / "workspace", {})
    kept = partition(evaluate_verify(config, workspace, a, b))
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 10)
    streamed = partition(evaluate_verify(config, workspace, a, b))
    for key in ("genuine", "impostor", "left_out", "vr", "failures"):
        assert streamed[key] == kept[key]
    assert streamed["left_out"]["genuine"] == 6


def test_of_one_set_copies_do_not_meet_and_two_names_of_one_image_are_told(tmp_path: Path, sets: Any) -> None:
    a, _ = sets(shutil.copy)
    shutil.copy(a.root / "a" / "0.jpg", a.root / "a" / "again.jpg")
    shutil.copy(a.root / "a" / "0.jpg", a.root / "b" / "whose.jpg")
    result = evaluate_verify(CONFIG, Workspace(tmp_path / "workspace", {}), a, a)
    found = partition(result)
    assert found["left_out"] == {"images": 1, "genuine": 1, "impostor": 2}
    assert found["genuine"] + found["impostor"] + 3 == 11 * 10 // 2
    assert "2 of them under the names of two subjects" in result.warnings[0]


def test_an_image_that_was_aligned_twice_does_not_meet_itself(tmp_path: Path) -> None:
    for subject in "ab":
        for number in range(3):
            file = tmp_path / "raw" / subject / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(ord(subject), number))
    sizes = {"small": 72, "large": 90}
    for name, size in sizes.items():
        align(AlignConfig(raw=tmp_path / "raw", out=tmp_path / name, no_align=True, size=size, workers=1))
    query, target = (Dataset(name, tmp_path / name) for name in sizes)
    place = Workspace.open(tmp_path / "place")
    met = partition(evaluate_verify(CONFIG, place, query, target))
    assert met["genuine"] == 2 * 3 * 2  # of nine pairs of a subject the three of an image with itself are left out
    assert met["left_out"]["genuine"] == 6
    alone = partition(evaluate_verify(CONFIG, place, query, query))
    assert alone["genuine"] == 2 * 3


def test_missing_faces_do_not_join_the_images_that_they_were_made_from(tmp_path: Path) -> None:
    for number in range(3):
        file = tmp_path / "raw" / "a" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(1, number))
    for name, size in {"small": 72, "large": 90}.items():
        align(AlignConfig(raw=tmp_path / "raw", out=tmp_path / name, no_align=True, size=size, workers=1))
    whole, damaged = (read_dataset(tmp_path / name) for name in ("small", "large"))
    for number in (0, 1):
        (tmp_path / "large" / "a" / f"{number}.jpg").unlink()
    first, second = contents_of_sets([whole, damaged])
    assert len(np.unique(first)) == 3
    assert first[2] == second[2]


def test_a_probe_that_only_itself_would_match_is_not_searched(tmp_path: Path, sets: Any) -> None:
    a, b = sets(shutil.copy)
    for subject in "abc":
        for number in (1, 2):
            (a.root / subject / f"{number}.jpg").unlink()
    shutil.rmtree(b.root / "c")
    draw(b.root / "stranger" / "0.png", 7, 7)
    found = partition(evaluate_identify(CONFIG, Workspace(tmp_path / "workspace", {}), a, b))
    assert (found["probes"], found["without_mate"], found["left_out"]["probes"]) == (4, 1, 2)


def test_a_gallery_of_nothing_but_the_probes_themselves_is_refused(tmp_path: Path, sets: Any) -> None:
    a, _ = sets(shutil.copy)
    for subject in "abc":
        for number in (1, 2):
            (a.root / subject / f"{number}.jpg").unlink()
    shutil.copytree(a.root, tmp_path / "copy")
    with pytest.raises(FacedanError, match="own image"):
        evaluate_identify(CONFIG, Workspace(tmp_path / "w", {}), a, Dataset("copy", tmp_path / "copy"))


def test_overlapping_lists_over_one_tree_are_known(tmp_path: Path, sets: Any) -> None:
    a, _ = sets(shutil.copy)
    lists = []
    for name, numbers in (("gallery", (0, 1)), ("probe", (1, 2))):
        listed = a.root / f"{name}.tsv"
        listed.write_text("".join(f"{p}/{n}.jpg\tperson {p}\n" for p in "abc" for n in numbers), encoding="utf-8")
        lists.append(Dataset(name, listed))
    found = partition(evaluate_verify(CONFIG, Workspace(tmp_path / "workspace", {}), *lists))
    assert (found["genuine"], found["left_out"]["genuine"]) == (9, 3)


def test_a_pair_of_an_image_and_its_copy_is_left_out(tmp_path: Path, sets: Any) -> None:
    a, _ = sets(shutil.copy)
    shutil.copy(a.root / "a" / "0.jpg", a.root / "a" / "copy.JPG")
    listed = tmp_path / "pairs.txt"
    lines = ["a/0.jpg a/copy.JPG 1", "a/0.jpg a/0.jpg 1", "a/0.jpg a/1.jpg 1", "a/copy.JPG b/0.jpg 0"]
    listed.write_text("\n".join(lines), encoding="utf-8")
    result = evaluate_pairs(CONFIG, Workspace(tmp_path / "workspace", {}), a, listed)
    found = partition(result)
    assert (found["genuine"], found["impostor"]) == (1, 1)
    assert found["left_out"] == {"images": 1, "genuine": 2, "impostor": 0}
    assert found["failures"]["images"] == 0
    assert len(not_of_alignment(result.warnings)) == 1


CODES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=8)


@given(query=CODES, target=CODES, symmetric=st.booleans())
def test_what_is_left_out_is_counted_as_it_is_masked(query: Any, target: Any, symmetric: bool) -> None:
    def side(images: Any) -> ImageSet:
        names, contents = zip(*images, strict=True)
        files = [Path(str(row)) for row in range(len(images))]
        return ImageSet(np.arange(len(images)), np.array(names, str), files, np.array(contents, np.int64))

    sides = side(query), side(query if symmetric else target)
    found = all_pairs_trials(*sides, Failures(), symmetric=symmetric)
    every = Trials(*sides, symmetric=symmetric)
    for kind in ("genuine", "impostor"):
        left_out = getattr(every, kind) & ~getattr(found, kind)
        assert int(left_out.sum()) == getattr(found.left_out, kind)
        same = np.equal.outer(sides[0].contents, sides[1].contents)
        assert not (getattr(found, kind) & same).any()
        assert (left_out <= same).all()
    if not symmetric:
        search = identification_trials(*sides, Failures())
        mates = np.equal.outer(search.query.subjects, search.target.subjects)
        assert (mates.any(axis=1) <= search.genuine.any(axis=1)).all()
        assert len(search.query.rows) + search.left_out.probes == len(query)


def test_links_lead_to_one_place(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "tree" / "a.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "tree")
    files = [tmp_path / "tree" / "a.jpg", tmp_path / "b.jpg", tmp_path / "linked" / "a.jpg", tmp_path / "c.jpg"]
    places = places_of(files)
    assert len({*places[:3]}) == 1
    assert places[3] != places[0]


MEASURE = EvaluateConfig(far=("0.1",), ci="none")


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    unmeasured = shutil.ignore_patterns("embeddings", "results", "cache")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def leak(place: Workspace, data: Dataset, model: str) -> list[str]:
    return not_of_alignment(evaluate_verify(replace(MEASURE, model=(model,)), place, data, data).warnings)


def test_a_network_is_told_apart_from_what_it_was_trained_on(place: Workspace, trained: Any, tmp_path: Path) -> None:
    source, before = place.dataset("casia"), trained.before.name
    expected = "'source only' was trained on 16 of the 16 images that are measured (source 'casia'): its values are too"
    (warning,) = leak(place, source, before)
    assert warning.startswith(expected)
    # A copy, its files renamed; and the network that was adapted from it.
    for file in source.root.rglob("*.png"):
        other = tmp_path / "copy" / f"Person {file.parent.name}" / f"{file.stem}-.PNG"
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, other)
    (warning,) = leak(place, Dataset("copy", tmp_path / "copy"), before)
    assert warning.startswith(expected)
    (warning,) = leak(place, Dataset("copy", tmp_path / "copy"), trained.dan_m67.name)
    assert "'DAN_m67' was trained on 16 of the 16 images that are measured (source 'casia')" in warning
    # Part of it, among others.
    for file in (tmp_path / "copy").rglob("[23]-.PNG"):
        file.unlink()
        draw(file.with_suffix(".png"), 55, 10 * ord(file.parent.name[-1]) + int(file.stem[0]))
    (warning,) = leak(place, Dataset("copy", tmp_path / "copy"), before)
    assert "was trained on 8 of the 16 images" in warning


def test_training_images_are_known_without_the_source_and_by_place_when_they_were_changed(
    place: Workspace, trained: Any
) -> None:
    before = trained.before.name
    source = place.dataset("casia")
    moved = place.root / "elsewhere"
    shutil.copytree(source.root, moved)
    shutil.rmtree(source.root)
    (warning,) = leak(place, Dataset("elsewhere", moved), before)
    assert "trained on 16 of the 16 images" in warning
    original = (
        trained.workspace.root / "aligned" / "casia"
    )  # the run's own source, whose images another template changes
    learnt = {one.role: one for one in learnt_images(place.root / "runs" / before / "checkpoints" / "x", before, place)}
    assert np.isin(places_of(sorted(original.rglob("*.png"))), learnt["source"].places).all()


def test_runs_that_kept_no_list_are_looked_up_in_their_source(place: Workspace, trained: Any) -> None:
    (place.root / "runs" / trained.before.name / IMAGES_FILE).write_bytes(b"damaged")
    (warning,) = leak(place, place.dataset("casia"), trained.before.name)
    assert "trained on 16 of the 16 images" in warning


def test_images_out_of_an_archive_are_known(tmp_path: Path, workspace: Workspace) -> None:
    for name, lay in (("tree", as_tree), ("tar", as_tar)):
        lay(tmp_path / f"raw-{name}")
        out = workspace.root / "aligned" / name
        align(AlignConfig(raw=tmp_path / f"raw-{name}", out=out, size=112, no_align=True))
    run = pretrain(plan_pretrain(replace(PRETRAIN, source="tree", iterations=1, batch=4), workspace)).run
    (warning,) = leak(workspace, workspace.dataset("tar"), run.name)
    assert "trained on 8 of the 8 images" in warning


def test_other_images_make_no_warning(place: Workspace, trained: Any) -> None:
    for subject in ("x", "y"):
        for number in range(2):
            draw(place.root / "aligned" / "others" / subject / f"{number}.png", 300 + ord(subject), number)
    assert leak(place, place.dataset("others"), trained.dan_m67.name) == []


@pytest.mark.parametrize("lay", ["list", "copy", "links"])
def test_the_target_is_no_source_by_another_name(place: Workspace, trained: Any, lay: str) -> None:
    target = place.root / "aligned" / "frgc"
    root = place.root / "labelled"
    files = sorted(target.iterdir())[:8]
    if lay == "list":
        root = target / "labelled.tsv"
        root.write_text("".join(f"{file.name}\tp{row % 2}\n" for row, file in enumerate(files)), encoding="utf-8")
    for row, file in enumerate(files if lay != "list" else []):
        (root / f"p{row % 2}").mkdir(parents=True, exist_ok=True)
        other = root / f"p{row % 2}" / f"{row}.png"
        shutil.copy(file, other) if lay == "copy" else other.symlink_to(file)
    config = replace(ADAPT, source=str(root), init=trained.before.name)
    with pytest.raises(UsageError, match=r"8 images of .*frgc \(16\)"):
        plan_adapt(config, place)


def test_a_few_images_in_both_are_counted_and_told(place: Workspace, trained: Any) -> None:
    shutil.copy(place.root / "aligned" / "frgc" / "100_0.png", place.root / "aligned" / "casia" / "person0" / "z.png")
    notes = Notes()
    adapt(plan_adapt(replace(ADAPT, iterations=1, init=trained.before.name), place), report=notes)
    assert any(warning.startswith("1 images of the target are in the source too") for warning in notes.warnings)
