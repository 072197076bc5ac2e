from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.workspace import (
    Dataset,
    Workspace,
    digest,
    find_manifest,
    locked,
    read_set_aside,
    read_settings,
    replacing,
    write_csv,
    write_json,
    write_set_aside,
    write_text,
)

HOLD = """
import sys, time
from pathlib import Path
from facedan_cli.workspace import locked
with locked(Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "model.safetensors"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk"), replacing(path) as temporary:  # noqa: PT012 - the block is the writer
        temporary.write_text("half of the ne", encoding="utf-8")
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        raise OSError("disk")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(path.parent) == [path.name]
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert os.listdir(path.parent) == [path.name]


def test_a_file_has_the_usual_permissions_whatever_its_writer_does(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with replacing(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "file").stat().st_mode == usual.stat().st_mode


def test_tables_and_lists_keep_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_csv(tmp_path / "table.csv", ("row", "path"), [(0, name), (1, 'a "b", c')])
    assert (tmp_path / "table.csv").read_bytes() == b'row,path\n0,caf\xe9.jpg\n1,"a ""b"", c"\n'
    listed = write_set_aside(tmp_path / "list.tsv", [(name, "cut\tshort\nhere"), ("b", "")])
    assert (tmp_path / "list.tsv").read_bytes() == b"caf\xe9.jpg\tcut short here\nb\t\n"
    assert read_set_aside(listed) == {name: "cut short here", "b": ""}


def test_with_nothing_set_aside_there_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    write_set_aside(path, [("a", "damaged")])
    assert write_set_aside(path, []) is None
    assert not path.exists()
    assert read_set_aside(None) == {}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)))
def test_a_digest_depends_on_the_value_and_not_on_its_order(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))
    assert digest(value) != digest(value | {"one more key": 0})


def test_a_second_process_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(FacedanError, match=rf"in use by process {holder.pid}"),
                locked(tmp_path, "the run"),
            ):
                pytest.fail("the lock was given twice")
        finally:
            holder.kill()
    with locked(tmp_path, "the run"):  # the killed process has let go of it
        pass


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "run", "the run"):  # noqa: PT012 - the block is the holder
        with pytest.raises(FacedanError, match="the run is in use"), locked(tmp_path / "run", "the run"):
            pytest.fail("the lock was given twice")
        raise KeyError
    with locked(tmp_path / "run", "the run"):
        pass


def test_a_data_set_is_found_by_setting_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("aligned/casia", "aligned/orl", "elsewhere/faces", "frgc"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "list.txt").touch()
    settings = {"datasets": {"orl": "elsewhere/faces", "far": str(tmp_path / "elsewhere"), "gone": "nowhere"}}
    workspace = Workspace(tmp_path, settings["datasets"])
    monkeypatch.chdir(tmp_path)
    assert workspace.dataset("casia") == Dataset("casia", tmp_path / "aligned" / "casia")
    assert workspace.dataset("orl").root == tmp_path / "elsewhere" / "faces"  # before aligned/orl
    assert workspace.dataset("far").root == tmp_path / "elsewhere"
    assert workspace.dataset("./aligned/casia") == Dataset("casia", Path("aligned/casia"))
    assert workspace.dataset("frgc") == Dataset("frgc", Path("frgc"))
    assert workspace.dataset("list.txt") == Dataset("list", Path("list.txt"))
    assert workspace.dataset_names() == ["casia", "far", "gone", "orl"]
    with pytest.raises(UsageError, match=r"the data set 'gone' should be at .*nowhere"):
        workspace.dataset("gone")
    with pytest.raises(UsageError, match=r"the data set \./casia does not exist"):
        workspace.dataset("./casia")
    with pytest.raises(UsageError, match="there is no data set 'cassia'") as caught:
        workspace.dataset("cassia")
    assert caught.value.fix.startswith("did you mean casia?")


def test_a_workspace_may_be_empty_but_not_a_file(tmp_path: Path) -> None:
    assert Workspace.open(tmp_path / "new").dataset_names() == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is not a directory"):
        Workspace.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrain\n", "not valid TOML"),
        ("lr = 1\n", "'lr' in .* stands in no section"),
        ("datasets = 1\n", "'datasets' in .* stands in no section"),
        ("[datasets]\ncasia = 1\n", "must map names to paths"),
        ('[datasets]\n"web/casia" = "a"\n', "called 'web/casia', which"),
        ('[datasets]\n".casia" = "a"\n', "called '.casia', which"),
        ('[datasets]\n"" = "a"\n', "called '', which"),
        ('[datasets]\n"a\\nb" = "a"\n', "which can be no part of a file's name"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "facedan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_settings(path)


def test_settings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facedan.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_settings(path)


def test_the_nearest_manifest_above_speaks_for_a_data_set(tmp_path: Path) -> None:
    faces = tmp_path / "aligned" / "casia"
    faces.mkdir(parents=True)
    assert find_manifest(faces) is None
    above = tmp_path / "aligned.jsonl"
    above.touch()
    assert find_manifest(faces) == above
    nearest = tmp_path / "aligned" / "aligned.jsonl"
    nearest.touch()
    assert find_manifest(faces) == nearest


def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [f".run.{gone.pid}.tmp.json", f".model.{gone.pid}.tmp.safetensors", f".x.{gone.pid}.tmp"]
    kept = [f".run.{os.getppid()}.tmp.json", ".lock", ".hidden.7", f"run.{gone.pid}.tmp.json", "model.safetensors"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    write_json(tmp_path / "run.json", {})
    assert not (tmp_path / left[0]).exists()
    assert (tmp_path / left[1]).exists()
    with locked(tmp_path, "the test"):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "run.json"])
