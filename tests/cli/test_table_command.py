from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import not_of_alignment

from facedan_cli.workspace import Workspace

Facedan = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("_no_figures")


@pytest.fixture(scope="module")
def root(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which stage 1 and three adaptations are finished; its facedan.toml has their settings."""
    unmeasured = shutil.ignore_patterns("embeddings", "results")
    return Path(shutil.copytree(trained.workspace.root, tmp_path_factory.mktemp("table") / "place", ignore=unmeasured))


@pytest.fixture
def table(root: Path, facedan: Facedan) -> Facedan:
    """`facedan table` of rows that are trained already, cheaply measured."""
    given = ("--source", "casia", "--target", "frgc", "-w", root, "--replicates", 0)

    def run(protocol: str, *more: object, rows: str = "source,control,s7,m67") -> Any:
        return facedan("table", protocol, *given, "--rows", rows, *more)

    return run


def test_the_plan_names_the_runs_of_pretrain_and_adapt(table: Facedan, trained: Any, root: Path) -> None:
    before = sorted(root.rglob("*"))
    planned = table("gbu", "--dry-run", rows="source,control,s7,s67,m67")
    assert planned.code == 0
    first, control, s7, s67, m67 = planned.out.splitlines()
    assert first == f"source, seed 0: {root / 'runs' / trained.before.name} (finished)"
    assert control == f"control, seed 0: {root / 'runs' / trained.control.name} (finished)"
    assert f"{trained.dan_s7.name} (finished)" in s7
    assert f"{trained.dan_m67.name} (finished)" in m67
    assert s67.endswith("(to be run)")
    other = json.loads(table("gbu", "--dry-run", "--json", "--seeds", "5", "--iterations", 2).out)
    assert [(cell["row"], cell["seed"], cell["state"]) for cell in other[:2]] == [
        *(("source", 5, "to be run"), ("control", 5, "to be run")),
    ]
    assert [cell["run"] is None for cell in other] == [False, True, True, True]
    assert sorted(root.rglob("*")) == before


def test_what_is_printed_is_the_table_in_the_form_asked_for(table: Facedan) -> None:
    text = table("gbu", "--far", "0.1")
    assert text.code == 0
    title, header, *rows = text.out.splitlines()
    assert title == "Verification rate at FAR 0.1 (%) by gbu, vggface-mini, casia → frgc:"
    assert header.split() == ["method", "Good", "Bad", "Ugly"]
    assert [row.rsplit(maxsplit=3)[0] for row in rows[:4]] == ["VGG-mini-source", "λ = 0", "DAN_s7", "DAN_m67"]
    directory = Path(text.err.rstrip().rpartition("results: ")[2])
    for form, name in (("markdown", "table.md"), ("latex", "table.tex"), ("csv", "table.csv")):
        printed = table("gbu", "--far", "0.1", "--format", form, "-q")
        assert printed.out == (directory / name).read_text(encoding="utf-8")
        assert not_of_alignment(line.removeprefix("Warning: ") for line in printed.err.splitlines()) == []
    records = list(csv.DictReader(io.StringIO(printed.out)))
    assert [record["row"] for record in records[::3]] == ["source", "control", "s7", "m67"]
    summary = json.loads(table("gbu", "--far", "0.1", "--json", "-q").out)
    assert summary == json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    assert float(records[0]["value"]) == summary["rows"][0]["figures"][0]["mean"]


def test_settings_come_from_the_sections_of_the_commands(facedan: Facedan, root: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[pretrain]\nmodel = "vggface-mini"\niterations = 6\nbatch = 8\n'
        "[adapt]\niterations = 1\nbatch = 6\n"
        '[evaluate]\nfar = ["0.5"]\nci = "wilson"\n'
        '[table]\nrows = "source,m67"\nlambda = 2.0\n',
        encoding="utf-8",
    )
    given = ("--source", "casia", "--target", "frgc", "-w", root, "--config", settings, "--json")
    ended = facedan("table", "gbu", *given)
    assert (ended.code, "Error" in ended.err) == (0, False), ended.err
    found = json.loads(ended.out)
    assert [(row["row"], row["name"]) for row in found["rows"]] == [
        *(("source", "VGG-mini-source"), ("m67", "DAN_m67 λ=2")),
    ]
    assert found["bounds"] == "wilson"
    assert {figure["at"] for row in found["rows"] for figure in row["figures"]} == {"0.5"}
    run = found["rows"][1]["runs"]["0"]
    config = json.loads((root / "runs" / run / "run.json").read_text(encoding="utf-8"))["config"]
    assert (config["iterations"], config["batch"], config["lambda"]) == (1, 6, 2.0)


def test_searches_and_pairs_take_their_own_options(table: Facedan, root: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(
        "person0/0.png person0/1.png 1\nperson1/0.png person1/1.png 1\nperson0/0.png person1/0.png 0\n",
        encoding="utf-8",
    )
    found = table("pairs", "--pairs", pairs, "--images", "casia", "--far", "0.5", "--json", rows="source")
    assert found.code == 0
    assert json.loads(found.out)["rows"][0]["figures"][0]["partition"] == "all"
    faces = root / "aligned"
    for part, image in (("known", "0.png"), ("asked", "1.png")):
        for file in (faces / "casia").glob(f"*/{image}"):
            (faces / part / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, faces / part / file.parent.name)
    found = table("identify", "--gallery", "known", "--probe", "asked", rows="source,m67")
    assert found.code == 0
    assert found.out.splitlines()[1].split() == ["method", "rank", "1"]


def test_images_that_cannot_be_used_end_with_3(table: Facedan, root: Path) -> None:
    broken = root / "aligned" / "gbu" / "00001d0.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    found = table("gbu", rows="source")
    broken.write_bytes(whole)
    assert found.code == 3
    assert "set-aside.tsv names each" in found.err
    assert "could not be used" in found.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gbu", "--gallery", "casia"), 2, "--gallery"),
        (("identify", "--gallery", "casia"), 2, "--probe"),
        (("pairs", "--images", "casia"), 2, "--pairs FILE"),
        (("gbu", "--pairs", "pairs.txt"), 2, "--pairs FILE"),
        (("gdu",), 2, "PROTOCOL does not know 'gdu'"),
        (("gbu", "--seeds", "0,x"), 2, "--seeds cannot be '0,x'"),
        (("gbu", "--seeds=-1"), 2, "--seeds cannot be '-1'"),
        (("gbu", "--format", "tex"), 2, "--format does not know 'tex'"),
        (("gbu", "--format", "csv", "--json"), 2, "cannot both be printed"),
        (("gbu", "--lambda", "0"), 2, "every row would be the control"),
        (("gbu", "--images", "none-such"), 2, "no data set 'none-such'"),
        (("gbu", "--protocol", "none-such"), 1, "GBU_Good_Target.xml"),
        (("feret", "--images", "gbu"), 1, "protocols/feret"),
        (("gbu", "--far", "3"), 2, "'3'"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_done(
    workspace: Workspace, facedan: Facedan, arguments: tuple[str, ...], code: int, message: str
) -> None:
    given = ("--source", "casia", "--target", "frgc", "-w", workspace.root)
    ended = facedan("table", *arguments, *given)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert not (workspace.root / "runs").exists()


def test_torchrun_is_told_what_to_do(table: Facedan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = table("gbu")
    assert ended.code == 2
    assert "torchrun -m facedan_cli pretrain" in ended.err


def test_a_preset_of_adapt_is_that_of_the_table(table: Facedan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table("gbu", "--dry-run", rows="source,m67").out.splitlines()[1].endswith("(finished)")
    monkeypatch.setenv("FACEDAN_ADAPT_PRESET", "strong")
    assert table("gbu", "--dry-run", rows="source,m67").out.splitlines()[1].endswith("(to be run)")
