"""Embeddings of other systems as rows of an evaluation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import start_facedan
from tiny import Notes

from facedan_cli.config.common import EmbedConfig, EvaluateConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import find_model
from facedan_cli.embedding.similarity import EUCLIDEAN
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import all_pairs
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.external_embeddings import _usable
from facedan_cli.evaluation.protocols import evaluate_feret, evaluate_gbu, evaluate_identify, evaluate_pairs
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.workspace import Workspace

CONFIG = EvaluateConfig(far=("0.1", "0.5"), replicates=40)


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def features(place: Workspace, dataset: str = "gbu") -> tuple[Path, np.ndarray, list[str]]:
    """The directory of a run's features, what it holds, and the paths of the images."""
    folder = read_dataset(place.dataset(dataset).root)
    made = embed(EmbedConfig(dataset=dataset), folder, find_model(place, None), place)
    vectors, paths, _ = made.load()
    return made.directory, np.array(vectors), paths


def save(path: Path, vectors: np.ndarray, paths: list[str]) -> str:
    np.savez(path, paths=paths, vectors=vectors)
    return str(path)


def gbu(place: Workspace, **options: Any) -> EvaluateResult:
    return evaluate_gbu(replace(CONFIG, **options), place, place.dataset("gbu"), place.protocol("gbu"))


def numbers(result: EvaluateResult, row: int = 0) -> dict[str, Any]:
    """All that is measured of a row."""
    entry = result.summary()["models"][row]
    return {key: value for key, value in entry.items() if key not in ("name", "run", "checkpoint")}


def test_embeddings_of_a_run_give_the_values_of_the_run(place: Workspace) -> None:
    directory, vectors, paths = features(place)
    other = save(place.root / "other.npz", vectors.astype(np.float64) * 7, [f"2008/{path[:-4]}.jpg" for path in paths])
    wanted = numbers(gbu(place))
    found = gbu(place, embeddings=(str(directory), other))
    assert [model.name for model in found.models] == [directory.name, "other"]
    assert [(model.run, model.checkpoint) for model in found.models] == [(None, None)] * 2
    assert numbers(found) == wanted
    assert found.set_aside is None
    for partition, rates in numbers(found, 1)["partitions"].items():
        assert rates["vr"] == wanted["partitions"][partition]["vr"]
    assert found.summary()["provenance"]["embeddings"]["other"]["path"] == other


@pytest.mark.parametrize("most", [10_000, 1])
def test_all_pairs_identification_and_pairs_do_too(
    place: Workspace, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", most)
    casia = place.dataset("casia")
    directory = str(features(place, "casia")[0])
    rows = replace(CONFIG, embeddings=(directory,))
    assert numbers(evaluate_verify(rows, place, casia)) == numbers(evaluate_verify(CONFIG, place, casia))
    listed = place.root / "pairs.csv"
    listed.write_text("person0/0.png,person0/1.png,1\nperson0/0.png,person1/1.png,0\n", encoding="utf-8")
    assert numbers(evaluate_pairs(rows, place, casia, listed)) == numbers(evaluate_pairs(CONFIG, place, casia, listed))
    for side, images in (("gallery", [0]), ("probe", [1, 2])):
        for subject in range(4):
            (place.root / side / f"person{subject}").mkdir(parents=True)
            for image in images:
                source = casia.root / f"person{subject}" / f"{image}.png"
                shutil.copy(source, place.root / side / f"person{subject}" / f"{image}.png")
    sides = [place.dataset(str(place.root / side)) for side in ("gallery", "probe")]
    assert numbers(evaluate_identify(rows, place, *sides)) == numbers(evaluate_identify(CONFIG, place, *sides))


def test_feret_is_searched_in_embeddings(tmp_path: Path) -> None:
    place, rng = Workspace.open(tmp_path), np.random.default_rng(0)
    names: dict[str, list[str]] = {"fa": [], "fb": [], "fc": [], "dup1": []}
    for row, found in enumerate(names.values()):
        found += [f"{subject:05d}{'fa' if not row else 'fb'}010_94010{row}" for subject in range(3)]
    (tmp_path / "feret").mkdir()
    everything = [name for found in names.values() for name in found]
    for name in everything:
        (tmp_path / "feret" / f"{name}.png").write_bytes(name.encode())
    for lists, file in zip(
        [*names.values(), names["dup1"]], ("feret_gallery", "fafb", "fafc", "dup1", "dup2"), strict=True
    ):
        (tmp_path / f"{file}.srt").write_text("".join(f"{name}.tif\n" for name in lists), encoding="utf-8")
    centres = rng.normal(size=(3, 8))
    vectors = np.stack([centres[int(name[:5])] + rng.normal(size=8) * 0.01 for name in everything])
    path = save(tmp_path / "dlib.npz", vectors, [f"elsewhere/{name}.bmp" for name in everything])
    config = EvaluateConfig(embeddings=(path,), embeddings_distance="euclidean", replicates=0)
    result = evaluate_feret(config, place, place.dataset(str(tmp_path / "feret")), tmp_path, any_lists=True)
    assert {name: rates["rank1"] for name, rates in numbers(result)["partitions"].items()} == dict.fromkeys(
        ("fb", "fc", "dup1", "dup2"), 1.0
    )


def test_images_without_a_usable_vector_are_failures(place: Workspace) -> None:
    _, vectors, paths = features(place)
    vectors[paths.index("00000d0.png")] = 0
    vectors[paths.index("00001d0.png"), 3] = np.nan
    vectors[paths.index("00002d2.png"), 3] = np.inf
    left = paths.index("00003d3.png")
    external = save(place.root / "x.npz", np.delete(vectors, left, 0), [*paths[:left], *paths[left + 1 :]])
    result = gbu(place, embeddings=(external,))
    found = numbers(result)["partitions"]
    assert {name: (part["genuine"], part["failures"]["genuine"]) for name, part in found.items()} == {
        "Good": (2, 2),
        "Bad": (2, 2),
        "Ugly": (4, 0),
    }
    assert result.set_aside is not None
    listed = dict(line.split("\t") for line in result.set_aside.read_text().splitlines())
    assert listed.keys() == {f"2008/0000{name}.jpg" for name in ("0d0", "1d0", "2d2", "3d3")}
    assert listed["2008/00003d3.jpg"] == "no vector in 'x'"
    assert "zero" in listed["2008/00000d0.jpg"]


def test_rows_are_measured_on_the_images_that_all_have(place: Workspace) -> None:
    _, vectors, paths = features(place)
    external = save(place.root / "x.npz", vectors[1:], paths[1:])
    both = gbu(place, model=(find_model(place, None).card.run,), embeddings=(external,), fuse=True)
    assert [model.name for model in both.models] == ["DAN_m67", "x", "fusion"]
    assert numbers(both, 0) == numbers(both, 1) == numbers(gbu(place, embeddings=(external,)))
    assert any("'x' has no features of 1 images" in warning for warning in both.warnings)
    assert len(both.differences) == 3 * 3 * len(CONFIG.far)


def test_what_is_not_known_is_said_and_vectors_of_no_image_are_told_of(place: Workspace) -> None:
    _, vectors, paths = features(place)
    external = save(
        place.root / "x.npz", np.concatenate([vectors, vectors[:2]]), [*paths, "other/1.png", "other/2.png"]
    )
    notes = Notes()
    config = replace(CONFIG, embeddings=(external,))
    result = evaluate_gbu(config, place, place.dataset("gbu"), place.protocol("gbu"), report=notes)
    assert any("2 of 26 vectors of 'x' are of no image" in note and "other/1.png" in note for note in notes.notes)
    assert any("not known" in note for note in notes.notes)
    assert not any("align" in warning for warning in result.warnings)


@pytest.mark.parametrize("again", ["00000d0.png", "./00000d0.png", "gbu/00000d0.png", "00000d0.jpg"])
def test_an_image_has_one_vector(place: Workspace, again: str) -> None:
    _, vectors, paths = features(place)
    same = save(place.root / "same.npz", np.concatenate([vectors, vectors[:1]]), [*paths, again])
    if not again.endswith("jpg"):  # beside 00000d0.png it is another image
        assert numbers(gbu(place, embeddings=(same,))) == numbers(gbu(place))
        other = save(place.root / "other.npz", np.concatenate([vectors, vectors[1:2]]), [*paths, again])
        with pytest.raises(FacedanError, match="two vectors of one image"):
            gbu(place, embeddings=(other,))


def test_a_vector_is_of_one_image(place: Workspace) -> None:
    casia = place.dataset("casia")
    other = shutil.copytree(casia.root, place.root / "other")
    (other / "person0" / "0.png").write_bytes((casia.root / "person3" / "3.png").read_bytes())
    _, vectors, paths = features(place, "casia")
    config = replace(CONFIG, embeddings=(save(place.root / "x.npz", vectors, paths),))
    with pytest.raises(FacedanError, match="may be"):
        evaluate_verify(config, place, casia, place.dataset(str(other)))
    named = [f"{root}/{path}" for root in ("casia", str(other)) for path in paths]
    config = replace(CONFIG, embeddings=(save(place.root / "y.npz", np.concatenate([vectors] * 2), named),))
    assert evaluate_verify(config, place, casia, place.dataset(str(other))).set_aside is None


def test_a_directory_may_have_embeddings_of_each_data_set(place: Workspace) -> None:
    every = place.root / "mine"
    every.mkdir()
    for name in ("casia", "gbu"):
        _, vectors, paths = features(place, name)
        save(every / f"{name}.npz", vectors, paths)
    found = gbu(place, embeddings=(str(every),))
    assert found.models[0].name == "mine"
    assert numbers(found) == numbers(gbu(place))


def test_files_that_are_not_here_may_have_vectors(place: Workspace) -> None:
    casia = place.dataset("casia").root
    paths = [f"person{subject}/{image}.png" for subject in range(4) for image in range(4)]
    listed = place.root / "list.txt"
    listed.write_text("".join(f"{casia}/{path}\t{path[:7]}\n" for path in paths), encoding="utf-8")
    for subject in range(4):
        (casia / f"person{subject}" / "1.png").unlink()
    vectors = np.random.default_rng(0).normal(size=(16, 8))
    config = replace(CONFIG, embeddings=(save(place.root / "x.npz", vectors, [f"{casia}/{path}" for path in paths]),))
    result = numbers(evaluate_verify(config, place, place.dataset(str(listed))))
    assert (result["partitions"]["all"]["genuine"], result["partitions"]["all"]["left_out"]["images"]) == (4 * 6, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embeddings": ("gone.npz",)}, UsageError, "no embeddings"),
        ({"embeddings_distance": "manhattan"}, UsageError, "does not know"),
        ({"flip": True}, UsageError, "mean nothing"),
        ({"layer": "fc6"}, UsageError, "mean nothing"),
        ({"fuse": True}, UsageError, "at least two"),
    ],
)
def test_what_cannot_be_is_refused(
    place: Workspace, options: dict[str, Any], error: type[FacedanError], message: str
) -> None:
    _, vectors, paths = features(place)
    with pytest.raises(error, match=message):
        gbu(place, **({"embeddings": (save(place.root / "x.npz", vectors, paths),)} | options))


def test_embeddings_of_other_images_are_refused(place: Workspace) -> None:
    _, vectors, paths = features(place)
    for name, rows, message in (
        ("x", [f"x{path}" for path in paths], "no path in"),
        ("y", paths, "usable"),
    ):
        external = save(place.root / f"{name}.npz", vectors if name == "x" else vectors * 0, rows)
        with pytest.raises(FacedanError, match=message):
            gbu(place, embeddings=(external,))


def test_too_many_comparisons_have_no_euclidean_distance(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "MOST_IN_MEMORY", 1)
    directory = str(features(place, "casia")[0])
    config = replace(CONFIG, embeddings=(directory,), embeddings_distance="euclidean")
    with pytest.raises(UsageError, match="inner product"):
        evaluate_verify(config, place, place.dataset("casia"))


def test_euclidean_distances_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=(4, 7)).astype(np.float32)
    formula = -np.sqrt(((a[:, None].astype(float) - b[None]) ** 2).sum(2))
    np.testing.assert_allclose(EUCLIDEAN.all_pairs(a, b), formula, rtol=1e-6)
    np.testing.assert_allclose(EUCLIDEAN.paired(a[:4], b), np.diag(formula), rtol=1e-6)


@given(
    st.lists(
        st.tuples(st.floats(width=32), st.floats(-1e300, 1e300)).map(list),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_usable_rows_are_finite_and_of_length_one(rows: list[list[float]], unit: bool) -> None:
    with np.errstate(over="ignore", under="ignore"):
        vectors, usable = _usable(np.array(rows), unit=unit)
    assert len(vectors) == usable.sum()
    assert np.isfinite(vectors).all()
    if unit:
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=2e-5)
    for row, use in zip(rows, usable, strict=True):
        assert not use or (np.isfinite(row).all() and any(row))


def test_the_command_measures_embeddings(place: Workspace) -> None:
    _, vectors, paths = features(place)
    save(place.root / "mine.npz", vectors[1:], paths[1:])
    command = ("evaluate", "gbu", "-w", ".", "--far", "0.1", "--replicates", "0", "--embeddings", "mine.npz", "--json")
    done = start_facedan(*command, directory=place.root)
    out, err = done.communicate()
    assert done.returncode == 3, err
    assert json.loads(out)["models"][0]["name"] == "mine"
    assert json.loads(out)["provenance"]["embeddings"]["mine"]["distance"] == "cosine"
