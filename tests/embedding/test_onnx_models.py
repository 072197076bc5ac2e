"""ONNX graphs as models of embed and evaluate."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from conftest import Outcome
from onnx import TensorProto, helper, numpy_helper
from tiny import SIZE, Notes, mark_aligned

from facedan_cli.alignment.target import expected_by
from facedan_cli.config.common import EmbedConfig, EvaluateConfig, ExportConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import EmbedResult, embed
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation.protocols import evaluate_gbu
from facedan_cli.export.export import export
from facedan_cli.runs import checkpoint_of
from facedan_cli.workspace import Workspace

FILTERS = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
HEIGHT, WIDTH = SIZE, SIZE - 8


@pytest.fixture
def place(trained: Any, tmp_path: Path) -> Workspace:
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Workspace.open(shutil.copytree(trained.workspace.root, tmp_path / "place", ignore=unmeasured))


def write(path: Path, filters: np.ndarray = FILTERS) -> Path:
    """A recogniser of one convolution, which takes images higher than wide."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, HEIGHT, WIDTH]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 6 * (HEIGHT // 8) * (WIDTH // 8)]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(filters, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def expected(root: Path, *, flip: bool = False) -> np.ndarray:
    """The middle columns of each face, normalised, convolved block by block, of length one."""
    rows = []
    for path in sorted(root.rglob("*.png")):
        face = (cv2.imread(str(path))[:, 4:-4, ::-1].astype(np.float64) - 127.5) / 127.5
        found = []
        for seen in (face, face[:, ::-1])[: 1 + flip]:
            blocks = seen.reshape(HEIGHT // 8, 8, WIDTH // 8, 8, 3)
            found.append(np.maximum(np.einsum("ahbwc,ochw->oab", blocks, FILTERS.astype(np.float64)), 0).ravel())
        rows.append(np.sum(found, 0))
    return np.stack([row / np.linalg.norm(row) for row in rows])


def run(place: Workspace, name: str, settings: dict[str, str] | None = None, **options: Any) -> EmbedResult:
    model = find_model(place, name, settings)
    config = replace(EmbedConfig(dataset="gbu", batch=7), **options)
    return embed(config, read_dataset(place.dataset("gbu").root), model, place)


@pytest.mark.parametrize("flip", [False, True])
def test_rows_are_the_graphs_features_of_the_middle_columns(place: Workspace, flip: bool) -> None:
    path = str(write(place.root / "narrow.onnx"))
    vectors = run(place, path, flip=flip).load()[0]
    np.testing.assert_allclose(vectors, expected(place.dataset("gbu").root, flip=flip), atol=1e-5)


def test_what_a_graph_is_given_is_part_of_its_features_name(place: Workspace) -> None:
    path = str(write(place.root / "narrow.onnx"))
    first, other = run(place, path), run(place, path, {"std": "128"})
    assert first.directory != other.directory
    assert run(place, path).skipped
    write(Path(path), FILTERS * 2)
    assert run(place, path).directory not in (first.directory, other.directory)


@pytest.mark.parametrize("flip", [False, True])
def test_an_export_gives_the_rows_of_its_run(place: Workspace, trained: Any, flip: bool) -> None:
    path = place.root / "exported.onnx"
    export(ExportConfig(model="", out=path, flip=flip), checkpoint_of(trained.dan_m67))
    wanted = run(place, trained.dan_m67.name, flip=flip).load()
    found = run(place, str(path)).load()
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    assert found[1:] == wanted[1:]
    assert find_model(place, str(path)).card.run == trained.dan_m67.name


def test_a_graph_is_a_row(place: Workspace, trained: Any) -> None:
    path = str(write(place.root / "narrow.onnx"))
    mark_aligned(place.dataset("gbu").root)
    config = EvaluateConfig(model=(path, trained.dan_m67.name), far=("0.1",), replicates=10, fuse=True)
    notes = Notes()
    result = evaluate_gbu(config, place, place.dataset("gbu"), place.protocol("gbu"), report=notes)
    assert [model.name for model in result.models] == ["narrow", "DAN_m67", "fusion"]
    (warning,) = (one for one in result.warnings if "'narrow'" in one)
    assert "arcface5" in warning
    assert f"--for {path}" in warning
    assert expected_by(path, place).template == "arcface5"
    made = result.summary()["provenance"]["inputs"]
    assert made == {"narrow": {"size": [72, 64], "mean": [127.5] * 3, "std": [127.5] * 3, "channels": "rgb"}}
    assert any("72x64, RGB, mean 127.5, deviation 127.5" in note for note in notes.notes)
    changed = replace(config, std="128")
    assert evaluate_gbu(changed, place, place.dataset("gbu"), place.protocol("gbu")).directory != result.directory


def test_settings_that_no_model_takes_are_refused(place: Workspace, trained: Any) -> None:
    config = EvaluateConfig(model=(trained.dan_m67.name,), mean="0.5")
    with pytest.raises(UsageError, match="--mean means nothing"):
        evaluate_gbu(config, place, place.dataset("gbu"), place.protocol("gbu"))


def test_a_missing_package_is_named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write(place.root / "narrow.onnx"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FacedanError, match="needs onnx") as caught:
        find_model(place, path)
    assert "pip install 'facedan[onnx]'" in str(caught.value.fix)


def test_the_command_embeds_by_a_graph(
    place: Workspace, facedan: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    write(place.root / "narrow.onnx")
    (place.root / "odd.onnx").write_bytes(b"\x08\x07no graph")
    command = ("embed", "gbu", "--json", "--model")
    ended = facedan(*command, "narrow.onnx")
    assert ended.code == 0, ended.err
    rows = [json.loads(line)["vector"] for line in ended.out.splitlines()]
    np.testing.assert_allclose(rows, expected(place.dataset("gbu").root), atol=1e-5)
    ended = facedan(*command, "odd.onnx")
    assert ended.code == 1
    assert "no ONNX graph" in ended.err
    assert "Traceback" not in ended.err
    ended = facedan(*command, "narrow.onnx", "--input", "112")
    assert ended.code == 2
    assert "takes 72x64" in ended.err
