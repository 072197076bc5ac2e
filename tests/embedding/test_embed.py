from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from facedan_cli.config.common import EmbedConfig
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.embedding.embed import EmbedResult, embed
from facedan_cli.embedding.model import FaceModel, find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.models.checkpoint import load_checkpoint
from facedan_cli.report import Advance, Report
from facedan_cli.runs import checkpoint_of
from facedan_cli.workspace import Workspace

CONFIG = EmbedConfig(dataset="gbu", batch=7)


@pytest.fixture
def model(trained: Any) -> Path:
    return checkpoint_of(trained.dan_m67)


def run(
    workspace: Workspace, model: Path, folder: FaceDataset | None = None, report: Report | None = None, **options: Any
) -> EmbedResult:
    folder = folder or read_dataset(workspace.root / "aligned" / "gbu")
    return embed(replace(CONFIG, **options), folder, FaceModel.of(model), workspace, report=report or Report())


def slow_features(root: Path, model: Path, layer: str, *, mirrored: bool = False) -> torch.Tensor:
    """One image at a time: the 64 pixels in the middle of 72, RGB."""
    network, _ = load_checkpoint(model)
    rows = []
    for path in sorted(root.rglob("*.png")):
        crop = cv2.imread(str(path))[4:68, 4:68, ::-1]
        crop = crop[:, ::-1] if mirrored else crop
        with torch.no_grad():
            features = network(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None])
        rows.append(features[layer])
    return torch.cat(rows)


@pytest.mark.parametrize("layer", ["fc7", "fc6"])
@pytest.mark.parametrize("flip", [False, True])
def test_rows_are_the_networks_features_of_length_one(
    workspace: Workspace, model: Path, layer: str, flip: bool
) -> None:
    result = run(workspace, model, layer=layer, flip=flip)
    vectors, paths, identities = result.load()
    expected = slow_features(workspace.root / "aligned" / "gbu", model, layer)
    if flip:
        expected = expected + slow_features(workspace.root / "aligned" / "gbu", model, layer, mirrored=True)
    np.testing.assert_allclose(vectors, F.normalize(expected), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert paths == sorted(path.name for path in (workspace.root / "aligned" / "gbu").iterdir())
    assert identities == [""] * 24
    assert (result.images, result.skipped, result.set_aside) == (24, False, None)


def test_the_files_are_plain_numpy_and_csv(workspace: Workspace, model: Path) -> None:
    result = run(workspace, model, read_dataset(workspace.root / "aligned" / "casia"), dataset="casia")
    assert sorted(os.listdir(result.directory)) == [".lock", "embedding.json", "images.csv", "vectors.npy"]
    vectors = np.load(result.directory / "vectors.npy", mmap_mode="r")
    assert isinstance(vectors, np.memmap)
    assert (vectors.dtype, vectors.shape) == (np.dtype("<f4"), (16, 256))
    assert (result.directory / "vectors.npy").stat().st_size == vectors.offset + 16 * 256 * 4
    with (result.directory / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [["row", "path", "identity"], ["0", "person0/0.png", "person0"]]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(16)]


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 24}, {"workers": 1}])
def test_how_many_go_together_does_not_matter(workspace: Workspace, model: Path, options: dict[str, Any]) -> None:
    first = np.array(run(workspace, model).load()[0])
    again = run(workspace, model, force=True, **options)
    np.testing.assert_allclose(again.load()[0], first, atol=2e-6)


def test_what_is_complete_is_not_done_again(workspace: Workspace, model: Path) -> None:
    first = run(workspace, model)
    written = (first.directory / "vectors.npy").stat().st_mtime_ns
    again = run(workspace, model)
    assert (again.skipped, again.images, again.directory) == (True, 24, first.directory)
    assert (first.directory / "vectors.npy").stat().st_mtime_ns == written
    assert not run(workspace, model, force=True).skipped
    assert (first.directory / "vectors.npy").stat().st_mtime_ns > written


def test_another_model_layer_or_image_lies_elsewhere(workspace: Workspace, model: Path, trained: Any) -> None:
    directories = [
        run(workspace, model).directory,
        run(workspace, checkpoint_of(trained.before)).directory,
        run(workspace, model, layer="fc6").directory,
        run(workspace, model, flip=True).directory,
    ]
    gbu = workspace.root / "aligned" / "gbu"
    shutil.copy(gbu / "00000d0.png", gbu / "00009d0.png")
    directories.append(run(workspace, model).directory)
    assert len(set(directories)) == 5


def test_images_that_cannot_be_read_are_listed_and_leave_no_row(workspace: Workspace, model: Path) -> None:
    gbu = workspace.root / "aligned" / "gbu"
    whole = (gbu / "00000d1.png").read_bytes()
    (gbu / "00000d1.png").write_bytes(whole[: len(whole) // 2])
    (gbu / "00002d0.png").write_bytes(b"no image")
    result = run(workspace, model)
    vectors, paths, _ = result.load()
    assert len(vectors) == len(paths) == result.images == 22
    assert {"00000d1.png", "00002d0.png"}.isdisjoint(paths)
    assert result.set_aside is not None
    lines = result.set_aside.read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["00000d1.png", "00002d0.png"]
    assert run(workspace, model).set_aside == result.set_aside


def rotate(root: Path) -> None:
    """Let three images hold one another's bytes, with the times and, of two, the sizes that they had."""
    paths = sorted(root.glob("*.png"))[:3]
    whole, stamps = [path.read_bytes() for path in paths], [path.stat().st_mtime_ns for path in paths]
    for path, content, stamp in zip(paths, whole[1:] + whole[:1], stamps, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(stamp, stamp))


def test_features_are_those_of_what_the_files_hold_now(workspace: Workspace, model: Path) -> None:
    gbu = workspace.root / "aligned" / "gbu"
    before = np.array(run(workspace, model).load()[0])
    rotate(gbu)
    after = run(workspace, model)
    assert not after.skipped
    np.testing.assert_allclose(after.load()[0], before[[1, 2, 0, *range(3, 24)]], atol=2e-6)


def test_features_are_found_again_where_the_faces_were_moved_or_copied(workspace: Workspace, model: Path) -> None:
    gbu = workspace.root / "aligned" / "gbu"
    first = run(workspace, model)
    copied = shutil.copytree(gbu, workspace.root / "copies" / "of it")
    moved = gbu.rename(workspace.root / "aligned" / "others")
    for root, name in ((copied, "of it"), (moved, "others")):
        found = run(workspace, model, read_dataset(root), dataset=name)
        assert (found.skipped, found.directory) == (True, first.directory)
    rotate(moved)
    assert run(workspace, model, read_dataset(moved), dataset="others").directory != first.directory


@pytest.mark.parametrize("name", ["vectors.npy", "images.csv", "set-aside.tsv", "embedding.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_embedding_is_made_again(workspace: Workspace, model: Path, name: str, damage: bytes | None) -> None:
    (workspace.root / "aligned" / "gbu" / "00000d1.png").write_bytes(b"no image")
    first = run(workspace, model)
    whole = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    path = first.directory / name
    path.unlink() if damage is None else path.write_bytes(damage)
    again = run(workspace, model)
    assert (again.skipped, again.directory) == (False, first.directory)
    for kept in ("images.csv", "set-aside.tsv"):
        assert (first.directory / kept).read_bytes() == whole[kept]
    assert again.load()[0].shape == (23, first.load()[0].shape[1])


def test_images_that_change_meanwhile_leave_no_features(workspace: Workspace, model: Path) -> None:
    gbu = workspace.root / "aligned" / "gbu"

    class Meddler(Report):
        @contextmanager
        def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "") -> Iterator[Advance]:
            yield lambda count, status: None
            rotate(gbu)

    with pytest.raises(FacedanError, match=r"images of .*gbu changed while they were read"):
        run(workspace, model, report=Meddler())
    assert [path.name for path in (workspace.root / "embeddings").glob("*/*")] == [".lock"]


def test_with_no_readable_image_nothing_is_written(workspace: Workspace, model: Path) -> None:
    gbu = workspace.root / "aligned" / "gbu"
    for path in gbu.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(FacedanError, match=r"no image under .* can be read"):
        run(workspace, model)
    assert [path.name for path in (workspace.root / "embeddings").glob("*/*")] == [".lock"]


def test_an_interruption_leaves_nothing_that_looks_complete(workspace: Workspace, model: Path) -> None:
    class Interrupt(Report):
        @contextmanager
        def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "") -> Iterator[Advance]:
            def advance(count: int, status: str) -> None:
                raise KeyboardInterrupt

            yield advance

    complete = np.array(run(workspace, model).load()[0])
    with pytest.raises(KeyboardInterrupt):
        run(workspace, model, report=Interrupt(), force=True)
    directory = next((workspace.root / "embeddings").iterdir())
    assert "images.csv" not in os.listdir(directory)
    assert not any(".tmp" in name for name in os.listdir(directory))
    result = run(workspace, model)
    assert not result.skipped
    np.testing.assert_array_equal(result.load()[0], complete)


def test_names_need_not_be_utf8(workspace: Workspace, model: Path) -> None:
    name = os.fsdecode(b"zo\xeb.png")
    shutil.copy(workspace.root / "aligned" / "gbu" / "00000d0.png", workspace.root / "aligned" / "gbu" / name)
    assert run(workspace, model).load()[1][-1] == name


def test_an_unknown_layer_is_answered_with_the_known(workspace: Workspace, model: Path) -> None:
    with pytest.raises(UsageError, match="--layer does not know 'fc8'") as caught:
        run(workspace, model, layer="fc8")
    assert caught.value.fix == "did you mean fc7 or fc6?"


def test_the_model_is_the_newest_adaptation_else_the_newest_pretraining(trained: Any, workspace: Workspace) -> None:
    runs = workspace.root / "runs"
    for run in (trained.before, trained.control, trained.dan_m67):
        shutil.copytree(run, runs / run.name)
    assert find_model(workspace, None).checkpoint == checkpoint_of(runs / trained.dan_m67.name)
    assert find_model(workspace, trained.before.name).checkpoint == checkpoint_of(runs / trained.before.name)
    for run in (trained.control, trained.dan_m67):
        shutil.rmtree(runs / run.name)
    assert find_model(workspace, None).checkpoint == checkpoint_of(runs / trained.before.name)


def test_without_a_model_it_says_how_to_make_one(workspace: Workspace) -> None:
    with pytest.raises(FacedanError, match="there is no finished model in") as caught:
        find_model(workspace, None)
    assert "facedan pretrain" in caught.value.fix
