"""A folder for the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Outcome
from tiny import Notes

from facedan_cli.config.common import EmbedConfig, ExportConfig
from facedan_cli.data.dataset import read_dataset
from facedan_cli.embedding.embed import embed
from facedan_cli.embedding.model import FaceModel
from facedan_cli.errors import FacedanError
from facedan_cli.export import hub
from facedan_cli.export.export import export
from facedan_cli.models.checkpoint import ModelCard, read_card, save_checkpoint
from facedan_cli.models.networks import build
from facedan_cli.runs import checkpoint_of


@pytest.fixture(scope="module")
def folder(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that was evaluated before; other evaluations have nothing of it."""
    root = trained.workspace.root
    model = FaceModel.of(checkpoint_of(trained.dan_m67))
    part = {"vr": {"0.001": 0.5}, "interval": {"0.001": [0.25, 0.75]}, "eer": {"mid": 0.125}}
    part |= {"genuine": 1200, "impostor": 34000}
    search = {"rank1": 0.875, "interval": [0.8, 0.9], "open_set": {"0.01": {"dir": 0.25}}, "probes": 40}
    made = {"models": {"DAN_m67": model.sha256, "other": "0" * 64}, "images": {"gbu": {}}}
    summaries = {
        "gbu-1": {"protocol": "gbu", "warnings": ["7 of | them\nare training images"], "provenance": made}
        | {
            "models": [{"name": "DAN_m67", "partitions": {"Ugly": part}}, {"name": "other", "partitions": {"Ugly": {}}}]
        },
        "identify-2": {"protocol": "identify", "warnings": [], "provenance": made | {"layer": "fc6", "flip": True}}
        | {"models": [{"name": "DAN_m67", "partitions": {"all": search}}]},
        "verify-3": {"protocol": "verify", "warnings": [], "provenance": {"models": {"other": "0" * 64}}}
        | {"models": [{"name": "other", "partitions": {"all": part}}]},
    }
    results = tmp_path_factory.mktemp("workspace") / "results"
    for name, summary in summaries.items():
        (results / name).mkdir(parents=True)
        (results / name / "summary.json").write_text(json.dumps(summary))
    (results / "gbu-0").mkdir()
    (results / "gbu-0" / "summary.json").write_text('{"models": 3')
    told = Notes()
    out = results.parent / "model"
    export(ExportConfig(model="", out=out, format="hub"), model.file, results=results, report=told)
    assert [warning for warning in told.warnings if "gbu-0" in warning] == told.warnings
    assert len(told.warnings) == 1
    assert root.is_dir()
    return out


def test_embed_gives_the_same_bits_by_it(trained: Any, folder: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    faces = read_dataset(trained.workspace.root / "aligned" / "gbu")
    own, again = (
        embed(EmbedConfig(dataset="gbu"), faces, FaceModel.of(file), trained.workspace).load()[0]
        for file in (checkpoint_of(trained.dan_m67), folder / "model.safetensors")
    )
    assert np.array_equal(own, again)
    card, trained_card = read_card(folder / "model.safetensors"), read_card(checkpoint_of(trained.dan_m67))
    assert card.identities == ("",)
    assert (card.run, card.stage, card.config) == (trained_card.run, "adapt", trained_card.config)


def test_the_configuration_says_what_it_takes(trained: Any, folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    assert said["mean"] == pytest.approx([129.1863, 104.7624, 93.594])
    expected = {"network": "vggface-mini", "input": [3, 72, 72], "crop": 64, "std": [64.0, 64.0, 64.0]}
    expected |= {"channels": "rgb", "layer": "fc7", "flip": False, "length": 256, "run": trained.dan_m67.name}
    assert expected.items() <= said.items()


def test_the_model_card_has_what_was_measured_and_how_it_was_made(trained: Any, folder: Path) -> None:
    text = (folder / "README.md").read_text()
    header = text.split("---\n")[1].splitlines()
    assert {"library_name: facedan", "license: other", "- face-recognition", "- domain-adaptation"} <= set(header)
    assert "- source: casia" in text
    assert "- target: frgc" in text
    assert "λ = 0.5 times mk-mmd" in text
    assert "| batch | 6 |" in text
    rows = [line for line in text.splitlines() if re.search(r"\| (gbu|identify|verify) on", line)]
    assert rows == [
        "| gbu on gbu, Ugly | fc7 | verification rate at FAR 0.001 | 50.00 [1] | 25.00 to 75.00 "
        "| 1,200 genuine, 34,000 impostor |",
        "| gbu on gbu, Ugly | fc7 | equal error rate | 12.50 [1] |  | 1,200 genuine, 34,000 impostor |",
        "| identify on gbu | fc6 + mirror image | rank-1 identification rate | 87.50 | 80.00 to 90.00 | 40 probes |",
        "| identify on gbu | fc6 + mirror image | detection and identification rate at FPIR 0.01 | 25.00 |  "
        "| 40 probes |",
    ]
    assert "[1] 7 of \\| them are training images" in text


def test_the_example_in_the_model_card_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1], found)  # type: ignore[index]
    assert found["features"].shape == (2, 256)
    torch.testing.assert_close(found["features"].norm(dim=1), torch.ones(2))


def test_the_summaries_of_evaluate_are_understood(
    trained: Any, facedan: Callable[..., Outcome], tmp_path: Path
) -> None:
    model = checkpoint_of(trained.dan_s7)
    root = trained.workspace.root
    done = facedan("evaluate", "verify", "casia", "--model", model, "--workspace", root, "--ci", "none", "--json")
    measured = json.loads(done.out)["models"][0]["partitions"]
    out = tmp_path / "folder"
    assert facedan("export", trained.dan_s7.name, out, "--format", "hub", "--workspace", root).out == f"{out}\n"
    text = (out / "README.md").read_text()
    (part,) = measured.values()
    assert f"| verify on casia | fc7 | verification rate at FAR 0.001 | {100 * part['vr']['0.001']:.2f}" in text


def small(path: Path, **facts: Any) -> Path:
    save_checkpoint(path, build("mobilefacenet", 1), ModelCard("mobilefacenet", ("",), "weights", "w", {}, **facts))
    return path


def test_a_licence_is_that_of_the_weights_it_began_from(tmp_path: Path) -> None:
    init = {"form": "foamliu's MobileFaceNet", "sha256": "1", "channels": "rgb"}
    model = small(tmp_path / "published.safetensors", init=init)
    export(ExportConfig(model="", out=tmp_path / "out", format="hub"), model)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0" in text
    assert "form foamliu's MobileFaceNet" in text
    assert "No evaluation of this model was found" in text
    assert "--size 112 --template arcface5" in text


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = small(tmp_path / "model.safetensors"), tmp_path / "out"
    config = ExportConfig(model="", out=out, format="hub")
    export(config, model)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FacedanError, match="exists already"):
        export(config, model)
    monkeypatch.setattr(hub, "model_card", lambda *_: 1 / 0)
    forced = ExportConfig(model="", out=out, format="hub", force=True)
    with pytest.raises(ZeroDivisionError):
        export(forced, model)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(hub, "model_card", lambda *_: "card")
    export(forced, model)
    assert (out / "README.md").read_text() == "card"
    (out / ".git").mkdir()
    with pytest.raises(FacedanError, match=r"holds other files, such as \.git"):
        export(forced, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "out"]
    shutil.rmtree(out)
