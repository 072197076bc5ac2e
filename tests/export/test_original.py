"""Weights go out in the layout in which they came, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome
from safetensors.torch import load_file, save_file
from torch import Tensor

from facedan_cli.config.common import ExportConfig
from facedan_cli.embedding.model import find_model
from facedan_cli.errors import UsageError
from facedan_cli.export.export import export
from facedan_cli.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.workspace import Workspace

Tensors = dict[str, Tensor]


def published(model: str) -> Tensors:
    """The tensors of a network by its publisher's names, with counts and statistics that are not the first ones."""
    torch.manual_seed(3)
    tensors = build(model, 1).state_dict()
    own = {key.removeprefix("body."): value for key, value in tensors.items() if not key.startswith("classifier.")}
    return {
        key: torch.tensor(77) if key.endswith("_tracked") else (value * (1 + torch.rand_like(value) / 8)).contiguous()
        for key, value in own.items()
    }


def read(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)


def round_trip(path: Path, **options: Any) -> Any:
    """What comes back of a file: it is imported, and exported as it was."""
    model = find_model(Workspace.open(path.parent / "workspace"), str(path), **options)
    out = path.with_name(f"again{path.suffix}")
    export(ExportConfig(model="", out=out, format="original"), model.file)
    return read(out)


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert torch.equal(found[name], value), name
        assert found[name].is_contiguous()


@pytest.mark.parametrize("model", ["mbf", "iresnet18", "facenet"])
def test_a_state_dict_comes_back(model: str, tmp_path: Path) -> None:
    tensors = published(model)
    torch.save(tensors, tmp_path / "backbone.pth")
    assert_same(round_trip(tmp_path / "backbone.pth"), tensors)


def test_a_checkpoint_of_adaface_comes_back_in_bgr(tmp_path: Path) -> None:
    tensors = {f"model.{name}": value for name, value in published("adaface-ir18").items()}
    torch.save({"epoch": 3, "state_dict": {**tensors, "head.kernel": torch.rand(512, 9)}}, tmp_path / "adaface.ckpt")
    found = round_trip(tmp_path / "adaface.ckpt")
    assert found.keys() == {"state_dict"}
    assert_same(found["state_dict"], tensors)


def test_a_checkpoint_with_objects_comes_back(tmp_path: Path) -> None:
    """Objects of other classes are never read, so the state dict is found by the names alone."""
    tensors = {f"model.{name}": value for name, value in published("mobilefacenet").items()}
    torch.save({"state_dict": tensors, "options": Workspace(tmp_path, {})}, tmp_path / "trained.ckpt")
    assert_same(round_trip(tmp_path / "trained.ckpt")["state_dict"], tensors)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_types_and_missing_counts_come_back(suffix: str, tmp_path: Path) -> None:
    tensors = {
        f"module.{name}": value.half()
        for name, value in published("mobilefacenet").items()
        if not name.endswith("num_batches_tracked")
    }
    (save_file if suffix == ".safetensors" else torch.save)(tensors, tmp_path / f"half{suffix}")
    found = round_trip(tmp_path / f"half{suffix}")
    assert_same(found if suffix == ".pt" else {name: found[name] for name in tensors}, tensors)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_order_of_channels_that_was_stated_comes_back(channels: str, tmp_path: Path) -> None:
    tensors = published("mobilefacenet")
    torch.save(tensors, tmp_path / "weights.pth")
    assert_same(round_trip(tmp_path / "weights.pth", channels=channels), tensors)


def test_the_published_mobilefacenet_comes_back(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data.parent / "weights" / "mobilefacenet.pt"
    if not file.is_file():
        pytest.skip("../shared/weights is not beside this checkout")
    (tmp_path / "mobilefacenet.pt").symlink_to(file)
    expected = read(file)
    assert len(expected) == 307
    found = round_trip(tmp_path / "mobilefacenet.pt")
    assert_same({name: found.pop(name) for name in expected}, expected)  # in the order of the modules
    assert not found


def checkpoint(path: Path, model: str, **facts: Any) -> Path:
    torch.manual_seed(3)
    save_checkpoint(path, build(model, 1), ModelCard(model, ("",), "adapt", "run", {"lambda": 0.5}, **facts))
    return path


def test_weights_of_adapted_networks_keep_what_training_gave_them(tmp_path: Path) -> None:
    """Half precision would round them."""
    model = checkpoint(tmp_path / "model.safetensors", "mobilefacenet", init={"form": "x", "dtype": "float16"})
    out = tmp_path / "out.pth"
    export(ExportConfig(model="", out=out, format="original"), model)
    own = load_checkpoint(model)[0].state_dict()
    assert all(torch.equal(value, own[f"body.{name}"]) for name, value in read(out).items())


def test_vggface_goes_out_by_the_names_of_vgg_face_dag(trained: Any, tmp_path: Path) -> None:
    model = trained.dan_m67 / "checkpoints" / "model.safetensors"
    export(ExportConfig(model="", out=tmp_path / "vgg.pth", format="original"), model)
    own = load_checkpoint(model)[0].state_dict()
    assert_same(
        read(tmp_path / "vgg.pth"),
        {name: value.contiguous() for name, value in own.items() if not name.startswith("classifier.")},
    )


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model.safetensors", "dlib-resnet")
    with pytest.raises(UsageError, match=r"--format original does not write dlib's \.dat"):
        export(ExportConfig(model="", out=tmp_path / "out.dat", format="original"), model)
    model = checkpoint(tmp_path / "model.safetensors", "mobilefacenet")
    with pytest.raises(UsageError, match=r"--format original writes \.pth, .* not '\.onnx'"):
        export(ExportConfig(model="", out=tmp_path / "out.onnx", format="original"), model)
    with pytest.raises(UsageError, match="--layer and --flip mean nothing for original"):
        export(ExportConfig(model="", out=tmp_path / "out.pth", format="original", flip=True), model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_own_network_gives_its_modules_state_dict(
    facedan: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from torch import nn\n\n\ndef two():\n    maps = nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1)\n"
    code += "    return nn.Sequential(nn.Sequential(*maps), nn.Flatten(), nn.Linear(2, 4))\n"
    (tmp_path / "original_networks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    done = facedan("export", "original_networks:two", "own.pth", "--format", "original")
    assert done.code == 0, done.err
    assert list(read(Path("own.pth"))) == ["0.0.weight", "0.0.bias", "2.weight", "2.bias"]
