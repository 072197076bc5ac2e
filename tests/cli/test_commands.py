from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Started, ending, run_facedan, run_sparingly, start_facedan
from tiny import SETTINGS, draw_datasets, write_gbu

from facedan_cli.models.checkpoint import read_card
from facedan_cli.runs import read_record
from facedan_cli.workspace import Workspace

THE_FOUR_COMMANDS = """
facedan align ./raw ./aligned
facedan pretrain --source casia
facedan adapt --source casia --target frgc --kernels 5 --layers fc6,fc7
facedan evaluate gbu --far 0.001
"""
Facedan = Callable[..., Any]


def test_the_four_commands_compose_verbatim(tmp_path: Path) -> None:
    """Figures are drawn."""
    draw_datasets(tmp_path / "raw", size=160, identities=2)
    write_gbu(tmp_path / "protocols" / "gbu", identities=2)
    (tmp_path / "facedan.toml").write_text(SETTINGS, encoding="utf-8")
    out, err = [], []
    for line in THE_FOUR_COMMANDS.strip().splitlines():
        _, *command = shlex.split(line)
        work = run_facedan if "evaluate" in command else run_sparingly
        process = Started(work, *command, directory=tmp_path)
        for kept, said in zip((out, err), process.communicate(), strict=True):
            kept.append(said)
        assert process.returncode == 0, err[-1]
    assert Path(out[0].strip()) == Path("aligned")
    assert len(list((tmp_path / "aligned").glob("casia/*/*.*"))) == 8
    before, after = (tmp_path / line.strip() for line in out[1:3])  # one line each: the checkpoint
    assert read_card(before).stage == "pretrain"
    card = read_card(after)
    assert (card.stage, card.config["kernels"], card.config["layers"]) == ("adapt", 5, "fc6,fc7")
    assert f"starting from {before.parents[1].name}" in err[2]
    assert f"measuring {after.parents[1].name} as 'DAN_m67'" in err[3]
    header, row, *_ = out[3].splitlines()
    assert header.split("  ")[0] == "model"
    assert [f"{partition} @ FAR 0.001" in header for partition in ("Good", "Bad", "Ugly")] == [True] * 3
    assert row.startswith("DAN_m67 ")
    (figure,) = (tmp_path / "results").glob("gbu-*/roc.png")
    assert figure.stat().st_size > 1000
    assert read_record(after.parents[1])["argv"][1:3] == ["adapt", "--source"]


def test_sigint_ends_with_130_and_the_run_can_be_resumed(workspace: Workspace, facedan: Facedan) -> None:
    command = ["pretrain", "--source", "casia", "-w", str(workspace.root), "--iterations", "400"]
    process = start_facedan(*command)
    with ending(process):
        while not any(log.stat().st_size for log in workspace.root.glob("runs/*/metrics.jsonl")):
            assert process.returncode is None, process.said()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "Error: stopped at step" in err
    assert "Fix: the same command" in err
    assert "Traceback" not in err
    planned = facedan(*command, "--dry-run")
    assert planned.out.splitlines()[0].endswith("(to be resumed)")


def to_nobody(*command: object) -> None:
    """A command that is read as `| head -0` reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    run_sparingly(*command)


def test_a_broken_pipe_is_quiet(trained: Any) -> None:
    process = Started(to_nobody, "embed", "gbu", "--json", "-q", "-w", trained.workspace.root)
    _, err = process.communicate()
    assert [line for line in err.splitlines() if not line.startswith("Warning: no aligned.jsonl")] == []
    assert process.returncode == 0


def test_training_prints_only_the_checkpoint(
    workspace: Workspace, facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    first = facedan("pretrain", "--source", "casia")
    assert first.code == 0
    assert Path(first.out.removesuffix("\n")).is_file()
    assert "aligned already" in first.err
    again = facedan("pretrain", "--source", "casia")
    assert again.out == first.out
    assert "is finished already (--force does it again)" in again.err
    quiet = facedan("pretrain", "--source", "casia", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, first.out, "")
    made = json.loads(facedan("pretrain", "--source", "casia", "--json").out)
    assert made.keys() == {"schema", "stage", "run", "checkpoint", "skipped", "metrics", "set_aside"}
    assert (made["checkpoint"], made["skipped"], made["set_aside"]) == (first.out.strip(), True, None)
    assert made["metrics"]["step"] == 6
    adapted = facedan(
        "adapt", "--source", "casia", "--target", "frgc", "--init", first.out.strip(), "--bandwidth", "batch", "--json"
    )
    assert json.loads(adapted.out)["stage"] == "adapt"


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    workspace: Workspace, facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    planned = facedan("pretrain", "--source", "casia", "--dry-run")
    assert planned.code == 0
    first, *more = planned.out.splitlines()
    assert first.startswith("runs/pretrain-casia-")
    assert first.endswith("(to be run)")
    assert "model vggface-mini" in more[-1]
    as_json = json.loads(facedan("pretrain", "--source", "casia", "--dry-run", "--json").out)
    assert as_json["run"] == first.split()[0]
    assert not Path("runs").exists()


def test_embed_prints_its_directory_or_a_line_an_image(trained: Any, facedan: Facedan) -> None:
    common = ["-w", trained.workspace.root, "-q"]
    plain = facedan("embed", "casia", *common)
    directory = Path(plain.out.strip())
    assert {path.name for path in directory.iterdir()} >= {"vectors.npy", "images.csv"}
    lines = [json.loads(line) for line in facedan("embed", "casia", "--json", *common).out.splitlines()]
    assert [line["row"] for line in lines] == list(range(16))
    assert lines[0].keys() == {"row", "path", "identity", "vector"}
    assert (lines[5]["path"], lines[5]["identity"]) == ("person1/1.png", "person1")
    vectors = np.load(directory / "vectors.npy")
    np.testing.assert_allclose([line["vector"] for line in lines], vectors, atol=1e-6)


def test_embed_reads_paths_from_stdin(
    trained: Any, facedan: Facedan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(trained.workspace.root / "aligned" / "gbu")
    command = ["embed", "-", "--json", "-q", "-w", trained.workspace.root, "--model", trained.before.name]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"00002d1.png\n00000d0.png\n")))
    some = facedan(*command)
    assert some.code == 0
    assert [json.loads(line)["path"] for line in some.out.splitlines()] == ["00002d1.png", "00000d0.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"00002d1.png\ngone.png\n")))
    fewer = facedan(*command)
    assert fewer.code == 3
    assert len(fewer.out.splitlines()) == 1
    listed = fewer.err.partition(" set aside; ")[2].partition(" names each")[0]
    assert Path(listed).read_text(encoding="utf-8") == "gone.png\tthe file is missing\n"


def test_evaluate_prints_a_table_or_an_object(trained: Any, facedan: Facedan) -> None:
    models = [word for run in (trained.before, trained.control, trained.dan_m67) for word in ("--model", run.name)]
    command = ["evaluate", "gbu", "-w", trained.workspace.root, *models, "--far", "0.1", "--far", "0.001"]
    shown = facedan(*command)
    assert shown.code == 0
    header, *lines = shown.out.splitlines()
    rows, legend = lines[:3], lines[3:]
    assert "Good @ FAR 0.1" in header
    assert "Ugly @ FAR 0.001" in header
    assert [row[:11].strip() for row in rows] == ["source only", "λ = 0", "DAN_m67"]
    assert all(row.count("*") == 3 for row in rows)  # 12 impostors do not resolve 0.001
    assert any(line.startswith("* too few impostors for this FAR") for line in legend)
    assert "†" not in shown.out  # four identities tell no models apart
    printed = json.loads(facedan(*command, "--json", "-q").out)
    written = json.loads((Path(printed["results"]) / "summary.json").read_text(encoding="utf-8"))
    assert printed == written
    vr = printed["models"][2]["partitions"]["Bad"]["vr"]["0.1"]
    assert f"{100 * vr:.2f} [" in rows[2]


def test_evaluate_pairs_and_identify_print_their_figures(trained: Any, facedan: Facedan, tmp_path: Path) -> None:
    common = ["-w", trained.workspace.root, "-q", "--replicates", "0"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "a,b,label\nperson0/0.png,person0/1.png,same\nperson0/0.png,person1/0.png,different\n", encoding="utf-8"
    )
    shown = facedan("evaluate", "pairs", pairs, "--images", "casia", "--far", "0.5", *common)
    assert shown.out.splitlines()[0].split() == ["model", "VR", "@", "FAR", "0.5", "EER"]
    assert "[" not in shown.out  # no intervals were asked for
    probe = tmp_path / "probe"
    shutil.copytree(trained.workspace.root / "aligned" / "casia", probe)
    shown = facedan("evaluate", "identify", "--gallery", "casia", "--probe", probe, *common)
    assert shown.out.splitlines()[0].split() == ["model", "rank", "1"]
    printed = facedan("evaluate", "identify", "--gallery", "casia", "--probe", probe, *common, "--json")
    rank1 = json.loads(printed.out)["models"][0]["partitions"]["all"]["rank1"]
    assert 0 < rank1 < 1  # no image meets its copy
    assert shown.out.splitlines()[1].split() == ["DAN_m67", f"{100 * rank1:.2f}"]


def test_set_aside_inputs_end_with_3_and_are_named(workspace: Workspace, facedan: Facedan) -> None:
    (workspace.root / "aligned" / "casia" / "person0" / "0.png").write_bytes(b"no image")
    for _ in ("made", "skipped"):
        ended = facedan("pretrain", "--source", "casia", "-w", workspace.root, "-q")
        assert ended.code == 3
        assert Path(ended.out.strip()).is_file()
        told = ended.err.replace("\n", "")
        assert "1 image was set aside; " in told
        assert told.endswith("set-aside.tsv names each and says why")


def test_version(facedan: Facedan) -> None:
    from facedan_cli import __version__

    assert facedan("--version").out == f"facedan {__version__}\n"
