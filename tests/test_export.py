from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Outcome
from safetensors import safe_open
from torch import Tensor

from facedan_cli import export as module
from facedan_cli.config.common import EmbedConfig, ExportConfig
from facedan_cli.config.models import NETWORKS
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.export import ExportResult, export, normalisation
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.runs import checkpoint_of

SUFFIX = {"torchscript": ".pt", "safetensors": ".safetensors"}


@pytest.fixture
def model(trained: Any) -> Path:
    return checkpoint_of(trained.dan_m67)


def exported(model: Path, out: Path, **options: Any) -> ExportResult:
    if (options.get("format") or out.suffix.removeprefix(".")) == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    return export(ExportConfig(model="", out=out, **options), model)


@pytest.fixture(scope="module")
def onnx_file(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """fc6 of a face and its mirror image, as ONNX."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return exported(checkpoint_of(trained.dan_m67), out, layer="fc6", flip=True)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """Features by the file alone, as its reader would have them: images of shape (b, 3, 72, 72)."""
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["features"], {"images": images.astype(np.float32)})[0])
    loaded = torch.jit.load(path)
    return np.asarray(loaded(torch.from_numpy(images)).numpy())


def faces(root: Path) -> np.ndarray:
    read = [cv2.imread(str(path))[:, :, ::-1] for path in sorted(root.rglob("*.png"))]
    return np.ascontiguousarray(np.stack(read).transpose(0, 3, 1, 2))


def check_against_embed(trained: Any, model: Path, result: ExportResult, **options: Any) -> None:
    gbu = trained.workspace.root / "aligned" / "gbu"
    config = EmbedConfig(dataset="gbu", **options)
    vectors, _, _ = embed(config, read_dataset(gbu), FaceModel.of(model), trained.workspace).load()
    assert result.difference < 1e-5
    images = faces(gbu).astype(np.float32)
    np.testing.assert_allclose(run(result.path, images), vectors, atol=2e-6)
    np.testing.assert_allclose(run(result.path, images[:3]), vectors[:3], atol=2e-6)


def test_onnx_gives_what_embed_gives(trained: Any, model: Path, onnx_file: ExportResult) -> None:
    assert (onnx_file.format, onnx_file.path.name) == ("onnx", "model.onnx")
    check_against_embed(trained, model, onnx_file, layer="fc6", flip=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("options", [{}, {"layer": "fc6", "flip": True}])
def test_torchscript_gives_what_embed_gives(trained: Any, model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    result = exported(model, tmp_path / "model.pt", **options)
    assert (result.format, result.path) == ("torchscript", tmp_path / "model.pt")
    check_against_embed(trained, model, result, **options)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_refuses_images_of_another_size_or_range(model: Path, tmp_path: Path) -> None:
    path = exported(model, tmp_path / "model.pt").path
    grey = np.full((1, 3, 72, 72), 128, np.float32)
    assert np.isfinite(run(path, grey)).all()
    for wrong in (grey[:, :, :64, :64], np.pad(grey, ((0, 0), (0, 0), (4, 4), (4, 4))), grey[:, :1], grey[0]):
        with pytest.raises(Exception, match="images of shape"):
            run(path, wrong)
    with pytest.raises(Exception, match="from 0 to 255"):
        run(path, grey / 255)


def test_onnx_refuses_images_of_another_size(onnx_file: ExportResult) -> None:
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        run(onnx_file.path, np.full((1, 3, 64, 64), 128, np.float32))


def test_the_same_model_gives_the_same_file(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    first = exported(model, out).path.read_bytes()
    assert exported(model, out, force=True).path.read_bytes() == first


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_takes_bytes_too(trained: Any, model: Path, tmp_path: Path) -> None:
    path = exported(model, tmp_path / "model.ts").path
    images = faces(trained.workspace.root / "aligned" / "gbu")[:2]
    np.testing.assert_allclose(run(path, images), run(path, images.astype(np.float32)))


def test_safetensors_holds_the_weights_without_the_classifier(model: Path, tmp_path: Path) -> None:
    result = exported(model, tmp_path / "model.safetensors")
    tensors = load_checkpoint(model)[0].state_dict()
    with safe_open(result.path, framework="pt") as file:
        assert set(file.keys()) == {key for key in tensors if not key.startswith("classifier.")}
        assert all(bool((file.get_tensor(key) == tensors[key]).all()) for key in file.keys())  # noqa: SIM118
        assert json.loads(file.metadata()[module.METADATA_KEY]) == result.metadata


def test_onnx_says_what_is_in_it(trained: Any, onnx_file: ExportResult) -> None:
    model = pytest.importorskip("onnx").load(onnx_file.path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    expected = {
        "model": "vggface-mini",
        "layer": "fc6",
        "flip": "true",
        "length": "256",
        "stage": "adapt",
        "run": trained.dan_m67.name,
        "image_size": "72",
        "crop": "64",
        "mean": "129.1863 104.7624 93.594",
        "divisor": "64",
    }
    assert said == onnx_file.metadata
    assert expected.items() <= said.items()
    (images,), (features,) = model.graph.input, model.graph.output
    shapes = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in (images, features)
    ]
    assert (images.name, features.name) == ("images", "features")
    assert shapes == [["batch", 3, 72, 72], ["batch", 256]]
    assert str(Path(module.__file__).parents[1]).encode() not in onnx_file.path.read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_says_what_is_in_it(model: Path, tmp_path: Path) -> None:
    result = exported(model, tmp_path / "model.pt")
    extra = {module.METADATA_FILE: ""}
    torch.jit.load(result.path, _extra_files=extra)
    assert json.loads(extra[module.METADATA_FILE]) == result.metadata


def test_the_template_is_that_of_the_source_where_it_is_known(
    trained: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "template" not in exported(model, tmp_path / "1.safetensors").metadata
    asked = []
    monkeypatch.setattr(module, "find_manifest", lambda root: asked.append(root) or root / "aligned.jsonl")
    monkeypatch.setattr(module, "template_and_size", lambda manifest: "lfw at 250 pixels")
    assert exported(model, tmp_path / "2.safetensors").metadata["template"] == "lfw at 250 pixels"
    assert asked == [(trained.workspace.root / "aligned" / "casia").resolve()]
    shutil.copy(model, tmp_path / "alone.safetensors")
    assert "template" not in exported(tmp_path / "alone.safetensors", tmp_path / "3.safetensors").metadata


@pytest.mark.parametrize("kind", SUFFIX)
def test_what_differs_is_not_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    out = tmp_path / f"model{SUFFIX[kind]}"
    write = getattr(module, f"_write_{kind}")

    def wrong(*arguments: Any) -> Callable[[Tensor], Tensor]:
        features = write(*arguments)
        return lambda images: features(images) + (2e-5 if len(images) == 5 else 0.0)

    monkeypatch.setattr(module, f"_write_{kind}", wrong)
    with pytest.raises(FacedanError, match=rf"the {kind} file gives features that differ by 2e-05"):
        exported(model, out)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, f"_write_{kind}", lambda *_: lambda images: torch.full((len(images), 256), torch.nan))
    with pytest.raises(FacedanError, match="differ by nan"):
        exported(model, out)


def test_a_file_that_is_there_stays_unless_forced(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(FacedanError, match="exists already"):
        exported(model, out)
    assert out.read_text(encoding="utf-8") == "mine"
    exported(model, out, force=True)
    assert out.stat().st_size > 1000
    with pytest.raises(UsageError, match="is a directory"):
        exported(model, tmp_path, format="safetensors", force=True)


def test_the_suffix_or_the_option_says_the_format(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the suffix of model\.bin says no format") as caught:
        exported(model, tmp_path / "model.bin")
    assert ".onnx, .pt, .ts, .safetensors" in caught.value.fix
    assert exported(model, tmp_path / "model.bin", format="safetensors").format == "safetensors"
    with pytest.raises(UsageError, match="--format does not know 'onx'"):
        exported(model, tmp_path / "model.bin", format="onx")
    with pytest.raises(UsageError, match="--layer does not know 'fc8'"):
        exported(model, tmp_path / "model.pt", layer="fc8")


def test_missing_packages_are_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name.startswith("onnxr") else object())
    with pytest.raises(FacedanError, match="--format onnx needs onnxruntime") as caught:
        export(ExportConfig(model="", out=tmp_path / "model.onnx"), tmp_path / "no such checkpoint")
    assert caught.value.fix == "pip install 'facedan[export]'"


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"vggface"}))  # which is as vggface-mini, and large
def test_normalisation_is_what_the_network_does(name: str) -> None:
    network = build(name, 2).eval()
    mean, divisor = normalisation(network)
    side = network.crop
    pictures = torch.rand(1, 3, side, side) * 255
    first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    seen = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(pictures)
    torch.testing.assert_close(seen[0], (pictures - torch.tensor(mean).view(3, 1, 1).float()) / divisor)


def test_facenet_goes_out_too(tmp_path: Path) -> None:
    network = build("facenet", 3)
    checkpoint = tmp_path / "checkpoint.safetensors"
    save_checkpoint(checkpoint, network, ModelCard("facenet", ("a", "b", "c"), "pretrain", "run", {}))
    result = exported(checkpoint, tmp_path / "model.safetensors", layer="pool")
    assert result.metadata["length"] == "1792"
    assert result.metadata["mean"] == "127.5 127.5 127.5"


def test_the_command_prints_the_path_and_nothing_else(
    facedan: Callable[..., Outcome], trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(trained.workspace.root)
    out = tmp_path / "model.onnx"
    planned = facedan("export", trained.dan_s7.name, out, "--dry-run")
    assert planned.code == 0
    assert planned.out == f"{Path('runs') / trained.dan_s7.name}/checkpoints/model.safetensors as onnx to {out}\n"
    assert not out.exists()
    done = facedan("export", trained.dan_s7.name, out)
    assert (done.code, done.out) == (0, f"{out}\n")
    assert "checked on batches of 1, 2, 5: features differ by" in done.err
    refused = facedan("export", trained.dan_s7.name, out)
    assert (refused.code, refused.out) == (1, "")
    assert "Fix: --force" in refused.err
    forced = facedan("export", trained.dan_s7, out, "--force", "--json", "-q", "--format", "safetensors")
    assert forced.err == ""
    facts = json.loads(forced.out)
    assert facts["path"] == str(out)
    assert facts["format"] == "safetensors"
    assert 0 <= facts["largest_difference"] < 1e-5
    assert facts["metadata"]["run"] == trained.dan_s7.name
