"""The recogniser that a user has, by the command line: adapted, measured, and read on faces with a margin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Outcome
from tiny import draw_datasets, mark_aligned

from facedan_cli.config.common import EmbedConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import find_model
from facedan_cli.models.checkpoint import load_checkpoint, read_card
from facedan_cli.workspace import Workspace

CODE = """
import torch
from torch import nn


def net():
    torch.manual_seed(3)
    blocks = [nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.PReLU(), nn.Conv2d(8, 8, 3, stride=4), nn.PReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16))
"""
SCHEDULE = ("--iterations", "3", "--batch", "4", "--holdout", "0", "--workers", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with aligned faces and the user's module, as the current directory."""
    (tmp_path / "users_net.py").write_text(CODE)
    draw_datasets(tmp_path / "aligned", size=64)
    for name in ("casia", "frgc", "gbu"):
        mark_aligned(tmp_path / "aligned" / name, template="arcface5", size=64, fitted=5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_net", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Workspace.open(tmp_path)


def test_a_network_of_the_user_is_adapted_measured_and_embedded(
    place: Workspace, facedan: Callable[..., Outcome]
) -> None:
    own = ("--input", "64x64", "--mean", "0.4", "--std", "0.3")
    domains = ("--source", "casia", "--target", "frgc")
    adapted = facedan("adapt", *domains, "--init", "users_net:net", *own, "--layers", "3,embedding", *SCHEDULE)
    assert adapted.code == 0, adapted.err
    checkpoint = Path(adapted.out.strip())
    card = read_card(checkpoint)
    assert (card.model, card.network) == ("users_net:net", {"input": "64x64", "mean": "0.4", "std": "0.3"})
    assert card.config["layers"] == "3,embedding"
    log = [json.loads(line) for line in (checkpoint.parents[1] / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(entry["loss"]) for entry in log if "loss" in entry)
    again = facedan("adapt", *domains, "--init", "users_net:net", *own, "--layers", "3,embedding", *SCHEDULE)
    assert "finished" in again.err
    measured = facedan("evaluate", "verify", "casia", "--model", "users_net:net", *own, "--model", str(checkpoint))
    assert measured.code == 0, measured.err
    assert len(json.loads(next(place.root.glob("results/*/summary.json")).read_text())["models"]) == 2
    # In another process the checkpoint is opened by the name that the user gave once.
    done = subprocess.run(
        [sys.executable, "-m", "facedan_cli", "embed", "gbu", "--model", str(checkpoint), "--layer", "3"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.load(Path(done.stdout.strip()) / "vectors.npy").shape[1] == 8 * 4 * 4


def test_a_network_of_the_user_is_pretrained(place: Workspace, facedan: Callable[..., Outcome]) -> None:
    trained = facedan("pretrain", "--source", "casia", "--model", "users_net:net", "--input", "64", *SCHEDULE)
    assert trained.code == 0, trained.err
    (place.root / "users_net.py").write_text(CODE.replace("3)", "4)"))  # other code is another run
    other = facedan("pretrain", "--source", "casia", "--model", "users_net:net", "--input", "64", *SCHEDULE)
    assert other.out != trained.out


def test_features_of_a_users_network_follow_its_settings_and_code(
    place: Workspace, facedan: Callable[..., Outcome]
) -> None:
    inputs = [(), ("--channels", "bgr"), ("--mean", "0.4"), ("--input", "64x48")]

    def embedded(*options: str) -> np.ndarray:
        done = facedan("embed", "casia", "--model", "users_net:net", "--input", "64x64", *options)
        assert done.code == 0, done.err
        rows: np.ndarray = np.load(Path(done.out.strip()) / "vectors.npy")
        return rows

    rows = [embedded(*options) for options in inputs]
    imported = next((place.root / "cache").glob("weights-net-*.safetensors"))
    of_checkpoint = facedan("embed", "casia", "--model", imported)
    (place.root / "users_net.py").write_text(CODE.replace("AdaptiveAvg", "AdaptiveMax"))  # the same weights
    sys.modules.pop("users_net")
    rows.append(embedded())
    assert facedan("embed", "casia", "--model", imported).out != of_checkpoint.out
    equal = [(i, j) for i, j in combinations(range(len(rows)), 2) if np.array_equal(rows[i], rows[j])]
    assert not equal
    assert np.array_equal(embedded(), rows[-1])


def test_what_a_users_code_prints_is_no_result_and_its_exit_an_error(
    place: Workspace, facedan: Callable[..., Outcome]
) -> None:
    (place.root / "users_net.py").write_text(CODE.replace("    torch.manual", "    print('loud')\n    torch.manual"))
    done = facedan("embed", "gbu", "--model", "users_net:net", "--input", "64x64")
    assert (done.code, Path(done.out.strip()).is_dir()) == (0, True)
    assert "loud" in done.err
    (place.root / "users_net.py").write_text("def net():\n    raise SystemExit(0)\n")
    sys.modules.pop("users_net")
    done = facedan("models", "users_net:net")
    assert done.code == 1
    assert "SystemExit" in done.err


def test_export_and_align_take_the_input_of_a_users_network(place: Workspace, facedan: Callable[..., Outcome]) -> None:
    own = ("--input", "64x48", "--mean", "0.4")
    exported = facedan("export", "users_net:net", "folder", "--format", "hub", *own)
    assert exported.code == 0, exported.err
    one, other = (
        np.load(Path(facedan("embed", "casia", "--model", *model).out.strip()) / "vectors.npy")
        for model in (("users_net:net", *own), ("folder",))
    )
    assert np.array_equal(one, other)
    assert facedan("export", "folder", "x.pt", "--input", "64x40").code == 2
    domains = ("--source", "casia", "--target", "frgc")
    refused = facedan("adapt", *domains, "--init", "folder/model.safetensors", "--mean", "0.5", *SCHEDULE)
    assert refused.code == 2
    assert "--mean means nothing" in refused.err

    for command, size in ((("--for", "users_net:net", "--input", "160"), 160), (("--for", "users_net:net"), 112)):
        aligned = facedan("align", "aligned/gbu", f"out{size}", *command, "--workers", "1")
        assert aligned.code in (0, 1, 3)
        assert json.loads(Path(f"out{size}/align.json").read_text())["size"] == size
    assert "--for" in facedan("align", "aligned/gbu", "out", "--input", "160").err


def test_random_weights_are_not_measured_without_a_word(place: Workspace, facedan: Callable[..., Outcome]) -> None:
    measured = facedan("embed", "gbu", "--model", "torchvision:squeezenet1_1", "--input", "64x64")
    assert measured.code == 0
    assert "random" in measured.err


def test_an_onnx_graph_is_adapted(place: Workspace, facedan: Callable[..., Outcome]) -> None:
    torch, onnxruntime = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
    import users_net

    net = users_net.net().eval()
    torch.onnx.export(net, (torch.zeros(1, 3, 64, 64),), "net.onnx", dynamo=False)
    domains = ("--source", "casia", "--target", "frgc")
    adapted = facedan("adapt", *domains, "--init", "net.onnx", *SCHEDULE)
    assert adapted.code == 0, adapted.err
    assert "folded" in adapted.err
    checkpoint = Path(adapted.out.strip())
    init = next((place.root / "cache").glob("weights-onnx-*.safetensors"))
    before, after = (load_checkpoint(path)[0] for path in (init, checkpoint))
    faces = torch.randint(0, 256, (3, 3, 64, 64)).byte()
    session = onnxruntime.InferenceSession("net.onnx")
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: ((one[None].float() - 127.5) / 127.5).numpy()})[0] for one in faces]
    with torch.no_grad():
        assert np.allclose(before(faces)["embedding"].numpy(), np.concatenate(rows), atol=1e-4)
        assert not np.allclose(after(faces)["embedding"].numpy(), np.concatenate(rows), atol=1e-4)

    onnx = pytest.importorskip("onnx")
    exported = onnx.load("net.onnx")
    onnx.helper.set_model_props(exported, {"facedan": "0.1.0"})
    onnx.save(exported, "exported.onnx")
    refused = facedan("adapt", *domains, "--init", "exported.onnx", *SCHEDULE)
    assert refused.code == 1
    assert "preprocessing inside" in refused.err


def test_of_faces_with_a_margin_the_middle_is_embedded(place: Workspace) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        face = random.integers(0, 256, (128, 128, 3), np.uint8)
        for name, image in (("frame", face), ("whole", face[8:120, 8:120])):
            path = place.root / "aligned" / name / "a" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    mark_aligned(place.root / "aligned" / "frame", template="arcface5-frame", size=128, fitted=5)
    mark_aligned(place.root / "aligned" / "whole", template="arcface5", size=112, fitted=5)
    model = find_model(place, "users_net:net", {"input": "112"})
    one, other = (
        embed(EmbedConfig(dataset=name), read_dataset(place.dataset(name).root), model, place).load()[0]
        for name in ("frame", "whole")
    )
    assert np.array_equal(one, other)
