from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facedan_cli.config.models import NETWORKS
from facedan_cli.workspace import Workspace

Facedan = Callable[..., Any]


@pytest.fixture(autouse=True)
def inside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace is the current directory; its facedan.toml is empty."""
    monkeypatch.chdir(workspace.root)
    Path("facedan.toml").write_text("", encoding="utf-8")


def settings(text: str, path: str = "facedan.toml") -> None:
    Path(path).write_text(text, encoding="utf-8")


def planned(facedan: Facedan, *arguments: object, command: str = "pretrain") -> dict[str, Any]:
    ended = facedan(command, "--source", "casia", "--dry-run", "--json", *arguments)
    assert ended.code == 0, ended.err
    config: dict[str, Any] = json.loads(ended.out)["config"]
    return config


def test_a_flag_goes_before_environment_config_settings_and_default(
    facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(facedan)["lr"] == NETWORKS["vggface"].pretrain.lr
    settings("[pretrain]\nlr = 0.2\nbatch = 4\nseed = 2")
    assert planned(facedan)["lr"] == 0.2
    settings("[pretrain]\nlr = 0.3\nseed = 3\n", "other.toml")
    assert planned(facedan, "--config", "other.toml")["lr"] == 0.3
    monkeypatch.setenv("FACEDAN_PRETRAIN_LR", "0.4")
    assert planned(facedan, "--config", "other.toml")["lr"] == 0.4
    everything = planned(facedan, "--lr", "0.5", "--config", "other.toml")
    assert everything["lr"] == 0.5
    assert (everything["seed"], everything["batch"]) == (3, 4)  # each value from the first place that has it


def test_the_order_on_the_command_line_does_not_matter(
    facedan: Facedan, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings("[pretrain]\nlr = 0.2")
    settings("[pretrain]\nlr = 0.3", "other.toml")
    config = tmp_path / "workspace" / "other.toml"
    monkeypatch.chdir("/")
    for arguments in (["-w", workspace.root, "--config", config], ["--config", config, "-w", workspace.root]):
        assert planned(facedan, *arguments)["lr"] == 0.3
    monkeypatch.setenv("FACEDAN_WORKSPACE", str(workspace.root))
    assert planned(facedan)["lr"] == 0.2


def test_a_models_recipe_fills_what_nobody_set(facedan: Facedan) -> None:
    config = planned(facedan, "--model", "vggface-mini", "--batch", "8")
    assert config["batch"] == 8
    assert config["optimizer"] == NETWORKS["vggface-mini"].pretrain.optimizer
    assert config["iterations"] == NETWORKS["vggface-mini"].pretrain.iterations


def test_keys_may_be_written_with_dashes_and_as_the_option_is_called(facedan: Facedan, trained: Any) -> None:
    settings('[pretrain]\nweight-decay = 0.25\n[adapt]\nlambda = 0.75\nlayers = "fc6"')
    assert planned(facedan)["weight_decay"] == 0.25
    ended = planned(facedan, "--target", "frgc", "--init", trained.before, command="adapt")
    assert (ended["lambda"], ended["layers"]) == (0.75, "fc6")


def test_named_data_sets_are_found(facedan: Facedan) -> None:
    Path("aligned/casia").rename("elsewhere")
    settings('[datasets]\ncasia = "elsewhere"')
    assert planned(facedan)["source"] == "casia"


def test_a_protocol_may_have_settings_that_another_has_not(facedan: Facedan, trained: Any) -> None:
    root = trained.workspace.root
    before = (root / "facedan.toml").read_text(encoding="utf-8")
    settings('[evaluate]\nfar = ["0.5"]\nprotocol = "protocols/gbu"\nreplicates = 0', "evaluate.toml")
    shown = facedan("evaluate", "gbu", "-w", root, "--protocol", root / "protocols/gbu", "--config", "evaluate.toml")
    assert shown.code == 0, shown.err
    assert "Good @ FAR 0.5" in shown.out
    shown = facedan(
        "evaluate", "identify", "-w", root, "--config", "evaluate.toml", "--gallery", "casia", "--probe", "frgc"
    )
    assert "no probe has a mate" in shown.err  # and not that it knows no far
    assert (root / "facedan.toml").read_text(encoding="utf-8") == before


def test_protocols_are_set_by_their_own_variables(
    facedan: Facedan, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEDAN_EVALUATE_GBU_FAR", "0.25 0.5")
    shown = facedan("evaluate", "gbu", "-w", trained.workspace.root, "--replicates", "0", "-q")
    assert "Good @ FAR 0.25" in shown.out
    assert "Good @ FAR 0.5" in shown.out


@pytest.mark.parametrize(
    ("text", "error", "fix"),
    [
        ("[pretrain]\niteratons = 3", "unknown key 'iteratons' in [pretrain]", "did you mean iterations?"),
        ("[pretrian]\nlr = 3", "unknown section [pretrian]", "did you mean pretrain?"),
        ("[pretrain]\njson = true", "unknown key 'json' in [pretrain]", ""),
        ("[pretrain]\nworkspace = 'x'", "unknown key 'workspace' in [pretrain]", ""),
        ("[pretrain]\nhelp = true", "unknown key 'help' in [pretrain]", ""),
        ("lr = 3", "'lr' in facedan.toml stands in no section", ""),
        ("[pretrain", "facedan.toml is not valid TOML", "correct the file"),
    ],
)
def test_what_a_file_cannot_mean_is_an_error_that_suggests(facedan: Facedan, text: str, error: str, fix: str) -> None:
    settings(text)
    ended = facedan("pretrain", "--source", "casia", "--dry-run")
    assert (ended.code, ended.out) == (2, "")
    assert error in ended.err
    assert f"Fix: {fix}" in ended.err


def test_a_misspelt_key_of_evaluate_is_an_error_in_each_protocol(facedan: Facedan) -> None:
    settings("[evaluate]\nfarr = 3")
    ended = facedan("evaluate", "gbu")
    assert ended.code == 2
    assert "unknown key 'farr' in [evaluate]" in ended.err


@pytest.mark.parametrize("value", ['"fast"', "[1, 2]"])
def test_a_value_of_the_wrong_kind_is_an_error(facedan: Facedan, value: str) -> None:
    settings(f"[pretrain]\nlr = {value}")
    ended = facedan("pretrain", "--source", "casia", "--dry-run")
    assert (ended.code, ended.out) == (2, "")
    assert "lr" in ended.err


def test_a_config_that_is_not_there_is_an_error(facedan: Facedan) -> None:
    ended = facedan("pretrain", "--source", "casia", "--config", "gone.toml")
    assert ended.code == 2
    assert "there is no file gone.toml" in ended.err


def test_a_runs_config_given_back_is_the_same_run(
    facedan: Facedan, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained.workspace.root
    monkeypatch.chdir(root)
    for directory in (trained.before, trained.control, trained.dan_s7, trained.dan_m67):
        command = directory.name.split("-")[0]
        ended = facedan(command, "--config", directory / "config.toml", "--dry-run", "--json")
        assert ended.code == 0, ended.err
        planned = json.loads(ended.out)
        assert planned["run"] == f"runs/{directory.name}"
        assert planned["state"] == "finished"


def test_a_runs_config_means_the_same_run_when_a_newer_start_is_there(
    facedan: Facedan, trained: Any, workspace: Workspace
) -> None:
    shutil.copytree(trained.workspace.root / "runs", "runs")
    assert facedan("pretrain", "--source", "casia", "--model", "vggface-mini", "--iterations", "1", "-q").code == 0
    by_default = planned(facedan, "--target", "frgc", command="adapt")
    assert by_default["init"] != trained.before.name
    again = planned(facedan, "--config", trained.dan_m67 / "config.toml", command="adapt")
    assert again["init"] == trained.before.name


def test_a_preset_sets_the_penalty_but_for_what_is_typed(facedan: Facedan, trained: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(trained.workspace.root)
    init = ("--target", "frgc", "--init", trained.before.name)
    before = planned(facedan, *init, command="adapt")
    paper = planned(facedan, *init, "--preset", "paper", command="adapt")
    assert {key for key in paper if paper[key] != before[key]} == {"estimator"}
    assert (paper["estimator"], paper["lambda"], paper["kernels"], paper["layers"]) == ("biased", 0.5, 5, "fc6,fc7")
    monkeypatch.setenv("FACEDAN_ADAPT_LAMBDA", "3")
    monkeypatch.setenv("FACEDAN_ADAPT_SEED", "7")
    typed = planned(facedan, *init, "--preset", "strong", "--kernels", 1, command="adapt")
    assert (typed["lambda"], typed["kernels"], typed["seed"]) == (10, 1, 7)
    monkeypatch.setenv("FACEDAN_ADAPT_PRESET", "paper")
    assert planned(facedan, *init, command="adapt")["lambda"] == 3
    monkeypatch.delenv("FACEDAN_ADAPT_LAMBDA")
    monkeypatch.delenv("FACEDAN_ADAPT_PRESET")
    settings("[adapt]\npreset = 'strong'\niterations = 4\n", "other.toml")
    assert planned(facedan, *init, "--config", "other.toml", command="adapt")["lambda"] == 10
    settings("[adapt]\npreset = 'strong'\nlambda = 2\n", "other.toml")
    assert planned(facedan, *init, "--config", "other.toml", command="adapt")["lambda"] == 2


def test_an_unknown_preset_is_told(facedan: Facedan, trained: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(trained.workspace.root)
    ended = facedan("adapt", "--source", "casia", "--target", "frgc", "--preset", "papper", "--dry-run")
    assert ended.code == 2
    assert "paper" in ended.err
