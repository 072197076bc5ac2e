from __future__ import annotations

import json
import re
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

from facedan_cli.config.common import EmbedConfig, ExportConfig
from facedan_cli.config.models import NETWORKS
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.export import export as module
from facedan_cli.export import graphs, metadata, weights
from facedan_cli.export.export import ExportResult, export
from facedan_cli.export.metadata import normalisation
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.embedder import Embedder
from facedan_cli.models.networks import build
from facedan_cli.models.pretrained.state_dict import METADATA_KEY
from facedan_cli.runs import checkpoint_of

Run = Callable[[np.ndarray], np.ndarray]
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


@pytest.fixture(scope="module")
def forms(trained: Any, onnx_file: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The embedder of fc6 and a face's mirror image, in this process and by the exported files."""
    model = checkpoint_of(trained.dan_m67)
    script = exported(model, tmp_path_factory.mktemp("script") / "model.pt", layer="fc6", flip=True).path
    embedder = Embedder(load_checkpoint(model)[0], "fc6", flip=True).eval().requires_grad_(False)
    return {
        "embedder": lambda images: np.asarray(embedder(torch.from_numpy(images))),
        "torchscript": lambda images: run(script, images),
        "onnx": lambda images: run(onnx_file.path, images),
    }


SHAPES = [(1, 3, 71, 71), (2, 3, 73, 73), (1, 3, 64, 64), (1, 3, 72, 71), (1, 3, 71, 72), (1, 3, 144, 36)]
OTHERS = [(1, 1, 72, 72), (1, 4, 72, 72), (1, 72, 72, 3), (3, 72, 72), (1, 1, 3, 72, 72)]
FORMS = ("embedder", "torchscript", "onnx")


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [*SHAPES, *OTHERS], ids=str)
def test_images_of_another_shape_are_refused(forms: dict[str, Run], form: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(Exception, match=r"(?i)images of shape|invalid") as refused:
        forms[form](np.full(shape, 128, np.float32))
    said = str(refused.value)
    if form == "onnx":
        assert re.search(r"(?i)invalid (rank|dimensions) for", said)
    else:
        assert "images of shape (batch, 3, 72, 72) are needed, not " in said
        assert ", ".join(map(str, shape)) in said


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("form", FORMS)
def test_no_images_give_no_features(forms: dict[str, Run], form: str) -> None:
    assert forms[form](np.zeros((0, 3, 72, 72), np.float32)).shape == (0, 256)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("form", FORMS)
def test_images_from_0_to_1_are_refused(forms: dict[str, Run], form: str) -> None:
    """An ONNX graph has no errors of its own: it gives NaN, of these images alone."""
    grey = np.full((1, 3, 72, 72), 128, np.float32)
    assert np.isfinite(forms[form](grey)).all()
    if form == "onnx":
        assert np.isnan(forms[form](np.concatenate([grey, grey / 255]))).all(1).tolist() == [False, True]
    else:
        with pytest.raises(Exception, match="images from 0 to 255 are needed, not from 0 to 1"):
            forms[form](grey / 255)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("form", ["embedder", "torchscript"])
def test_images_of_another_type_are_refused(forms: dict[str, Run], form: str) -> None:
    with pytest.raises(Exception, match=r"images must be (uint8 or floating-point|floating-point or uint8)"):
        forms[form](np.full((1, 3, 72, 72), 128))


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
        assert json.loads(file.metadata()[METADATA_KEY]) == result.metadata


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
    assert str(Path(module.__file__).parents[2]).encode() not in onnx_file.path.read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_says_what_is_in_it(model: Path, tmp_path: Path) -> None:
    result = exported(model, tmp_path / "model.pt")
    extra = {graphs.METADATA_FILE: ""}
    torch.jit.load(result.path, _extra_files=extra)
    assert json.loads(extra[graphs.METADATA_FILE]) == result.metadata


def test_the_template_is_that_of_the_source_where_it_is_known(
    trained: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "template" not in exported(model, tmp_path / "1.safetensors").metadata
    asked = []
    monkeypatch.setattr(metadata, "find_manifest", lambda root: asked.append(root) or root / "aligned.jsonl")
    monkeypatch.setattr(metadata, "template_and_size", lambda manifest: "lfw at 250 pixels")
    assert exported(model, tmp_path / "2.safetensors").metadata["template"] == "lfw at 250 pixels"
    assert asked == [(trained.workspace.root / "aligned" / "casia").resolve()]
    shutil.copy(model, tmp_path / "alone.safetensors")
    assert "template" not in exported(tmp_path / "alone.safetensors", tmp_path / "3.safetensors").metadata


@pytest.mark.parametrize("kind", SUFFIX)
def test_what_differs_is_not_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    out = tmp_path / f"model{SUFFIX[kind]}"
    place, name = weights if kind == "safetensors" else graphs, f"write_{kind}"
    write = getattr(place, name)

    def wrong(*arguments: Any) -> Callable[[Tensor], Tensor]:
        features = write(*arguments)
        return lambda images: features(images) + (2e-5 if len(images) == 5 else 0.0)

    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(FacedanError, match=rf"{kind} .* 2e-05"):
        exported(model, out)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(place, name, lambda *_: lambda images: torch.full((len(images), 256), torch.nan))
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


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name != "vggface" and not name.endswith(("4", "0", "101"))]
)
def test_normalisation_is_what_the_network_does(name: str) -> None:
    network = build(name, 2).eval()
    mean, divisor = normalisation(network)
    side = network.crop
    images = torch.rand(1, 3, side, side) * 255
    first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    seen = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(images)
    channels = torch.tensor([mean, divisor], dtype=torch.float32).view(2, 3, 1, 1)
    torch.testing.assert_close(seen[0], (images - channels[0]) / channels[1])


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
    monkeypatch.chdir(trained.workspace.root)
    out = tmp_path / "model.pt"
    planned = facedan("export", trained.dan_s7.name, out, "--dry-run")
    assert planned.code == 0
    assert (
        planned.out == f"{Path('runs') / trained.dan_s7.name}/checkpoints/model.safetensors as torchscript to {out}\n"
    )
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
