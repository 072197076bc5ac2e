"""Preprocessing outside: a drop-in for the recognisers of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Outcome
from tiny import Notes, draw
from torch import nn

from facedan_cli.config.common import EmbedConfig, ExportConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import UsageError
from facedan_cli.export.export import ExportResult, export
from facedan_cli.export.raw import RawEmbedder
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.workspace import Workspace

CODE = """
from torch import nn


def small():
    maps = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.PReLU(), nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(16, 8))
"""


def checkpoint(path: Path, model: str) -> Path:
    """A network whose statistics are those of some images, so that features differ as a trained network's do."""
    torch.manual_seed(1)
    network = build(model, 1).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, network.crop, network.crop) * 255)
    save_checkpoint(path, network.eval(), ModelCard(model, ("",), "weights", "weights-x", {"model": model}))
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "gate"
    for identity in range(3):
        draw(root / f"person{identity}" / "0.png", identity, 0, size=112)
    return root


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("iresnet") / "model.safetensors", "iresnet18")


@pytest.fixture(scope="module")
def onnx_file(recogniser: Path) -> ExportResult:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    return export(ExportConfig(model="", out=recogniser.with_suffix(".onnx"), raw=True), recogniser)


def features(model: Path, faces: Path, root: Path) -> np.ndarray:
    """The rows of `facedan embed`."""
    done = embed(EmbedConfig(dataset="gate"), read_dataset(faces), FaceModel.of(model), Workspace.open(root))
    return np.asarray(done.load()[0])


def test_insightface_takes_it_and_gives_what_embed_gives(
    recogniser: Path, onnx_file: ExportResult, faces: Path, tmp_path: Path
) -> None:
    """As insightface's ArcFaceONNX reads a graph and feeds it."""
    import onnx
    from onnxruntime import InferenceSession

    graph = onnx.load(onnx_file.path).graph
    first = [node.name for node in graph.node[:8]]
    assert not any(name.startswith(("Sub", "_minus", "Mul", "_mul")) for name in first)  # else it would feed 0-255
    session = InferenceSession(onnx_file.path, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], made.shape[1:]) == ("input.1", [3, 112, 112], [512])
    images = [cv2.imread(str(path)) for path in sorted(faces.rglob("*.png"))]
    blob = cv2.dnn.blobFromImages(images, 1.0 / 127.5, (112, 112), (127.5, 127.5, 127.5), swapRB=True)
    found = session.run([made.name], {given.name: blob})[0]
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert (abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(found / lengths, features(recogniser, faces, tmp_path), atol=2e-6)
    np.testing.assert_allclose(session.run(None, {given.name: blob[:1]})[0], found[:1], rtol=1e-3, atol=1e-4)


def test_the_metadata_say_that_preprocessing_is_outside(onnx_file: ExportResult) -> None:
    expected = {
        "preprocessing": "outside",
        "features": "not normalised",
        "colours": "RGB, (x - mean) / divisor",
        "mean": "127.5 127.5 127.5",
        "divisor": "127.5",
        "template": "arcface5",
    }
    assert expected.items() <= onnx_file.metadata.items()


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("model", ["mobilefacenet", "dlib-resnet"])
def test_torchscript_takes_normalised_images_and_no_others(model: str, tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "model.safetensors", model)
    told = Notes()
    result = export(ExportConfig(model="", out=tmp_path / "model.pt", raw=True), made, report=told)
    assert "InsightFace's programs feed (x - 127.5) / 127.5" in told.warnings[0]
    assert f"mean {result.metadata['mean']}" in told.notes[-1]
    network = load_checkpoint(made)[0]
    embedder = RawEmbedder(network, "embedding", flip=False).eval()
    mean, divisor = (torch.tensor([*map(float, result.metadata[key].split())]) for key in ("mean", "divisor"))
    images = torch.rand(2, 3, *embedder.sides) * 255
    loaded = torch.jit.load(result.path)
    with torch.no_grad():
        own = network(images)["embedding"]
        normalised = (images - mean[:, None, None]) / (divisor.expand(3)[:, None, None])
        for form in (embedder, loaded):
            torch.testing.assert_close(form(normalised), own, rtol=1e-3, atol=1e-4)
            assert form(normalised[:0]).shape == (0, 128)
            with pytest.raises(Exception, match="normalised images, from"):
                form(images)
            with pytest.raises(Exception, match=r"not .*(torch.uint8)|images must be floating-point"):
                form(images.to(torch.uint8))
            with pytest.raises(Exception, match="images of shape"):
                form(normalised[:, :, 1:])


def test_a_network_that_crops_has_its_preprocessing_inside(trained: Any, tmp_path: Path) -> None:
    model = trained.dan_m67 / "checkpoints" / "model.safetensors"
    with pytest.raises(UsageError, match=r"--raw means nothing .* crops of 64 from 72 pixels"):
        export(ExportConfig(model="", out=tmp_path / "model.pt", raw=True), model)
    with pytest.raises(UsageError, match="--raw means nothing for safetensors"):
        export(ExportConfig(model="", out=tmp_path / "model.safetensors", raw=True), model)


def test_anybodys_network_and_any_module_of_it_go_out(
    facedan: Callable[..., Outcome], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "exported_networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    done = facedan("export", "exported_networks:small", "model.onnx", "--layer", "2", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metadata"]["layer"] == "2"
    embedded = facedan("embed", faces, "--model", "exported_networks:small", "--layer", "2", "--json")
    rows = np.array([json.loads(line)["vector"] for line in embedded.out.splitlines()])
    images = [cv2.imread(str(path))[:, :, ::-1] for path in sorted(faces.rglob("*.png"))]
    blob = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    session = pytest.importorskip("onnxruntime").InferenceSession("model.onnx")
    np.testing.assert_allclose(session.run(None, {"images": blob})[0], rows, atol=2e-6)
    wrong = facedan("export", "exported_networks:small", "model.pt", "--layer", "7")
    assert (wrong.code, "--layer does not know '7'" in wrong.err) == (2, True)


def test_the_embedding_of_raw_is_what_the_body_gives() -> None:
    torch.manual_seed(0)
    network = build("mbf", 1).eval()
    embedder = RawEmbedder(network, "embedding", flip=True)
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    body = network.get_submodule("body")
    assert isinstance(body, nn.Module)
    with torch.no_grad():
        assert torch.equal(embedder(images), body(images) + body(images.flip(3)))
