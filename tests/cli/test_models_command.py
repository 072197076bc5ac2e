"""`facedan models`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facedan_cli.cli.app import app
from facedan_cli.config.models import NETWORKS

CODE = "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten())\n"


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_every_network_is_listed_with_its_size_and_licence() -> None:
    lines = output().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(NETWORKS)
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert "43.6 M" in by_name["iresnet50"]
    assert "non-commercial" in by_name["iresnet50"]
    assert "embedding (gdconv)" in by_name["mobilefacenet"]
    assert "224x224 of 250" in by_name["vggface"]
    facts = {row["name"]: row for row in json.loads(output("--json"))}
    assert facts["dlib-resnet"]["input"] == [150, 150]
    assert facts["dlib-resnet"]["parameters"] == 5_614_592


def test_one_network_is_listed_with_its_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = json.loads(output("mobilefacenet", "--json"))["modules"]
    assert modules["gdconv"] == [512, 1, 1]
    assert modules["features.0.conv.0"] == [128, 56, 56]
    (tmp_path / "net_of_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    printed = output("net_of_user:net", "--input", "32x32").splitlines()
    assert printed[1].split()[0] == "net_of_user:net"
    assert [line.split() for line in printed[3:]] == [["layer", "features"], ["0", "4x1x1"], ["1", "4"]]
