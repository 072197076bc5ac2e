from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import draw, make_workspace

from facedan_cli.cli.app import explain, main
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.evaluation import evaluate
from facedan_cli.models import checkpoint
from facedan_cli.workspace import locked, sha256_file

Facedan = Callable[..., Any]
ADAPT = ("adapt", "--source", "casia", "--target", "frgc")
QUICKLY = (*ADAPT, "--bandwidth", "batch")  # a frozen bandwidth is taken from many images, however few there are


@pytest.fixture(scope="module")
def wrong(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with runs and with things that are wrong; to be copied, not changed."""
    root = tmp_path_factory.mktemp("wrong") / "place"
    shutil.copytree(trained.workspace.root, root, ignore=shutil.ignore_patterns("embed*", "results"))
    (root / "aligned" / "empty").mkdir()
    (root / "aligned" / "damaged" / "ann").mkdir(parents=True)
    for name in ("ann/1.jpg", "bob/1.jpg"):
        (root / "aligned" / "damaged" / name).parent.mkdir(exist_ok=True)
        (root / "aligned" / "damaged" / name).write_bytes(b"no image")
    draw(root / "aligned" / "one" / "ann" / "1.png", 0, 0)
    (root / "not-weights.pth").write_bytes(b"these are no weights")
    torch.save(torch.nn.Linear(2, 2), root / "module.pth")
    return root


@pytest.fixture
def place(wrong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current directory."""
    root = shutil.copytree(wrong, tmp_path / "place")
    monkeypatch.chdir(root)
    return root


def everything(root: Path) -> set[tuple[str, str]]:
    """Names and contents of all that lies under a directory."""
    return {(str(path.relative_to(root)), sha256_file(path) if path.is_file() else "") for path in root.rglob("*")}


@pytest.fixture(scope="module")
def whole(wrong: Path) -> set[tuple[str, str]]:
    """All that lies in it."""
    return everything(wrong)


@pytest.fixture
def untouched(wrong: Path, whole: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current directory is that workspace, and a test leaves it as it found it."""
    monkeypatch.chdir(wrong)
    yield
    assert everything(wrong) == whole


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("command", "code", "what", "fix"),
    [
        (("pretrain", "--source", "empty"), 1, "aligned/empty holds no images", "images end in"),
        (("pretrain", "--source", "frgc"), 1, "the source 'frgc' has no identity folders", "one folder per identity"),
        (("pretrain", "--source", "one"), 1, "one identity only ('ann')", "one folder per identity"),
        (("pretrain", "--source", "cassia"), 2, "no data set 'cassia'", "did you mean casia?"),
        (("pretrain", "--source", "./casia"), 2, "the data set ./casia does not exist", "check the path"),
        (("pretrain", "--source", "casia", "--model", "vgface"), 2, "no network 'vgface'", "did you mean vggface"),
        (("pretrain", "--source", "casia", "--init", "gone.pth"), 1, "no model 'gone.pth'", ""),
        (("pretrain", "--source", "casia", "--lr", "nan"), 2, "--lr must be a number", ""),
        (
            ("pretrain", "--source", "casia", "--seed", "3", "--device", "cuda:77"),
            2,
            "no device 'cuda:77'",
            "--device auto",
        ),
        ((*ADAPT, "--layers", "fc6,fc77"), 2, "there is no layer 'fc77'", "did you mean fc7"),
        ((*ADAPT, "--estimator", "unbaised"), 2, "know 'unbaised'", "did you mean unbiased"),
        ((*ADAPT, "--init", "adapt-casia-frgc-0"), 1, "there is no model", "did you mean adapt-casia-frgc-"),
        ((*ADAPT, "--init", "not-weights.pth"), 1, "cannot be read as weights", "state dict"),
        (("adapt", "--source", "casia", "--target", "casia"), 2, "the same data set", "give --target"),
        (("adapt", "--source", "casia", "--target", "./aligned/casia"), 2, "the same data set", "give --target"),
        (("adapt", "--source", "casia", "--target", "empty"), 1, "aligned/empty holds no images", ""),
        (("embed", "casia", "--layer", "fc8"), 2, "--layer does not know 'fc8'", "did you mean fc7"),
        (("embed", "facedan.toml"), 1, "listed images is there, such as", "a list has a line"),
        (("embed", "not-weights.pth"), 1, "none of the 1 listed images is there, such as these are no weights", ""),
        (("evaluate", "gbu", "--model", "not-weights.pth"), 1, "cannot be read as weights", ""),
        (("evaluate", "gbu", "--model", "module.pth"), 1, "is not a plain state dict", ""),
        (("evaluate", "gbu", "--model", "pretrain-casia"), 1, "there is no model", "did you mean pretrain-casia-"),
        (("evaluate", "gbu", "--far", "often"), 2, "'often' is not a false-accept rate", "0.001"),
        (("evaluate", "gbu", "--protocol", "runs"), 1, "the GBU protocol in runs is incomplete", ""),
        (("evaluate", "gbu", "--images", "ggbu"), 2, "there is no data set 'ggbu'", "did you mean gbu?"),
        (("evaluate", "pairs", "gone.txt", "--images", "casia"), 1, "cannot read the list of pairs", ""),
        (("evaluate", "identify", "--gallery", "casia", "--probe", "casia"), 2, "find itself", "give --probe"),
        (("pretrain", "--source", "casia", "-w", "facedan.toml"), 2, "is not a directory", "give --workspace"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_it_says_what_is_wrong_and_what_to_do_and_touches_nothing(
    facedan: Facedan, command: tuple[str, ...], code: int, what: str, fix: str
) -> None:
    ended = facedan(*command)
    assert ended.code == code, ended.err
    assert ended.out == ""
    error, _, advice = ended.err.partition("\nFix: ")
    assert what in error.rpartition("Error: ")[2]
    assert fix in advice
    assert advice.endswith("\n")
    assert "Traceback" not in ended.err


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "command",
    [
        ("pretrain",),
        ("pretrain", "--source", "casia", "--iteration", "3"),
        ("pretrain", "--source", "casia", "--iterations", "many"),
        ("embed", "gbu", "--batch", "0"),
        ("evaluate", "gbu", "--replicates", "-1"),
        ("evaluate", "bgu"),
        ("adpat", "--source", "casia"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(facedan: Facedan, command: tuple[str, ...]) -> None:
    ended = facedan(*command)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert "Fix: " in ended.err


def test_weights_that_are_none_fail_the_run_and_say_so(place: Path, facedan: Facedan) -> None:
    ended = facedan("pretrain", "--source", "casia", "--init", "not-weights.pth")
    assert ended.code == 1
    assert "not-weights.pth cannot be read as weights" in ended.err
    ended = facedan("pretrain", "--source", "casia", "--init", "module.pth")
    assert ended.code == 1
    assert "opening it would run code" in ended.err
    assert sorted(place.glob("runs/*/checkpoints/*")) == [*sorted(place.glob("runs/*/checkpoints/model.safetensors"))]


def test_when_all_images_are_damaged_nothing_is_made(place: Path, facedan: Facedan) -> None:
    for command in (("pretrain", "--source", "damaged"), ("embed", "damaged")):
        ended = facedan(*command)
        assert (ended.code, ended.out) == (1, "")
        assert "no image under aligned/damaged can be read" in ended.err
    assert list(place.glob("runs/pretrain-damaged-*/checkpoints/*")) == []
    assert list(place.glob("embeddings/damaged-*/[!.]*")) == []


def test_a_far_that_cannot_be_resolved_is_marked(place: Path, facedan: Facedan) -> None:
    ended = facedan("evaluate", "gbu", "--far", "0.001", "--replicates", "0")
    assert ended.code == 0
    assert ended.out.count("*") == 4
    assert "too few impostors" in ended.out


def test_images_that_a_sigset_names_and_that_are_not_there_are_listed(place: Path, facedan: Facedan) -> None:
    (place / "aligned" / "gbu" / "00000d0.png").unlink()
    ended = facedan("evaluate", "gbu", "--json", "--replicates", "0")
    assert ended.code == 3
    summary = json.loads(ended.out)
    assert summary["models"][0]["partitions"]["Good"]["failures"]["images"] == 1
    listed = Path(summary["results"]) / "set-aside.tsv"
    assert str(listed) in ended.err
    assert listed.read_text(encoding="utf-8") == "2008/00000d0.jpg\tnot among the images\n"


def test_an_empty_list_on_stdin_and_a_terminal_are_refused(
    place: Path, facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert "the list of images is empty" in facedan("embed", "-").err
    terminal = io.StringIO("")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    ended = facedan("embed", "-")
    assert ended.code == 2
    assert "stdin is a terminal" in ended.err


def test_file_names_need_not_be_utf8(place: Path, facedan: Facedan) -> None:
    for dataset in ("casia", "frgc"):
        draw(place / "aligned" / dataset / "zoe" / "1.png", 60, 1)
        heap = (place / "aligned" / dataset / "zoe").rename(place / "aligned" / dataset / os.fsdecode(b"zo\xeb"))
        shutil.copy(heap / "1.png", heap / os.fsdecode(b"caf\xe9.png"))
        (heap / os.fsdecode(b"broken\xe9.png")).write_bytes(b"no image")
    for command in (("pretrain", "--source", "casia"), QUICKLY, ("embed", "casia"), ("embed", "casia", "--json")):
        ended = facedan(*command)
        assert ended.code == 3, ended.err
        assert " set aside; " in ended.err
    assert len([json.loads(line) for line in ended.out.splitlines()]) == 18


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A workspace on a file system of its own with room for the data and not for a training state."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    options = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount file systems")
    try:
        make_workspace(disk)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_on_a_full_disk_a_run_stops_whole_and_goes_on_when_there_is_room(small_disk: Path, facedan: Facedan) -> None:
    command = ("pretrain", "--source", "casia", "-w", small_disk, "--checkpoint-every", "2", "-q")
    ended = facedan(*command)
    assert (ended.code, ended.out) == (1, "")
    assert "Error: No space left on device" in ended.err
    assert "Fix: make room and run the same command again" in ended.err
    assert list(small_disk.glob("runs/*/checkpoints/*")) == []
    remount(small_disk, "size=64m")
    ended = facedan(*command)
    assert ended.code == 0
    assert Path(ended.out.strip()).is_file()


def test_a_read_only_workspace_is_explained(small_disk: Path, facedan: Facedan) -> None:
    remount(small_disk, "ro")
    ended = facedan("pretrain", "--source", "casia", "-w", small_disk, "-q")
    assert (ended.code, ended.out) == (1, "")
    assert "Error: Read-only file system: " in ended.err
    assert "name another --workspace" in ended.err
    assert facedan("pretrain", "--source", "casia", "-w", small_disk, "--dry-run").code == 0


def test_a_full_disk_loses_no_finished_work(place: Path, facedan: Facedan, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = everything(place / "runs")
    monkeypatch.setattr(checkpoint, "save_file", full)
    ended = facedan(*QUICKLY, "--seed", "5")
    assert (ended.code, ended.out) == (1, "")
    assert "No space left on device" in ended.err
    after = everything(place / "runs")
    assert before <= after
    (new,) = {name.split("/")[0] for name, _ in after - before}
    assert list((place / "runs" / new / "checkpoints").iterdir()) == []


def test_a_run_in_use_is_refused_with_its_holder(place: Path, facedan: Facedan) -> None:
    planned = json.loads(facedan(*QUICKLY, "--seed", "6", "--dry-run", "--json").out)
    with locked(Path(planned["run"]), "the run"):
        ended = facedan(*QUICKLY, "--seed", "6")
    assert (ended.code, ended.out) == (1, "")
    assert f"is in use by process {os.getpid()} on " in ended.err
    assert "Fix: wait for it, or stop it" in ended.err


def test_a_damaged_state_is_explained(place: Path, facedan: Facedan) -> None:
    planned = json.loads(facedan(*QUICKLY, "--seed", "7", "--dry-run", "--json").out)
    state = Path(planned["run"]) / "checkpoints" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"half")
    ended = facedan(*QUICKLY, "--seed", "7")
    assert ended.code == 1
    assert "cannot be used" in ended.err
    assert "--force" in ended.err
    assert facedan(*QUICKLY, "--seed", "7", "--force", "-q").code == 0


def test_ctrl_c_ends_with_130_and_no_traceback(place: Path, facedan: Facedan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "read_dataset", interrupted)
    ended = facedan("evaluate", "gbu")
    assert (ended.code, ended.out) == (130, "")
    assert "Traceback" not in ended.err


def test_the_unexpected_is_one_line_unless_debugging(
    place: Path, facedan: Facedan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(evaluate, "read_dataset", broken)
    monkeypatch.delenv("FACEDAN_DEBUG", raising=False)
    ended = facedan("evaluate", "gbu")
    assert (ended.code, ended.out) == (1, "")
    assert "Error: this should not have happened: ZeroDivisionError: division by zero" in ended.err
    assert "FACEDAN_DEBUG=1" in ended.err
    assert "Traceback" not in ended.err
    monkeypatch.setenv("FACEDAN_DEBUG", "0")
    assert "Error:" in facedan("evaluate", "gbu").err
    monkeypatch.setenv("FACEDAN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "No space left on device: a/b", "make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), "Disk quota exceeded: a", "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "Permission denied: a", "check the permissions"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "Read-only file system: a", "name another --workspace"),
        (OSError("odd"), "odd", "check the path"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device", "make room"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory on the device", "lower --batch"),
        (MemoryError(), "out of memory", "lower --batch"),
        (RuntimeError("operator torchvision::nms does not exist"), "torchvision cannot load", "install both together"),
    ],
)
def test_errors_of_the_system_are_explained(error: Exception, what: str, fix: str) -> None:
    explained = explain(error)
    assert what in explained.what
    assert fix in explained.fix
    assert explained.exit_code == 1


def test_errors_that_explain_themselves_are_left_as_they_are() -> None:
    for error in (FacedanError("a", "b"), UsageError("a", "b")):
        assert explain(error) is error
