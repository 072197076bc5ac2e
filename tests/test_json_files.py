"""Files that earlier runs kept may be anything by now: who reads them says which, and goes on."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.json_files import parse_object, read_entries, read_object
from facedan_cli.models.checkpoint import read_card
from facedan_cli.runs import newest_run, read_record
from facedan_cli.spreadsheet import csv_lines, read_csv
from facedan_cli.workspace import Workspace, digest, make_directory, read_settings, write_csv, write_json, write_text

DEEP = "[" * 100_000
ODD = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"7",
    DEEP.encode(),
    b'{"inputs": []}',
    b'{"inputs": {"source": 3}}',
    b'{"inputs": {"source": {"name": [1]}}}',
    b'{"config": "none"}',
    b'{"status": {}}',
    b'{"end": 5, "status": "complete"}',
]


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_an_odd_record_is_named_and_passed_over(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in (("pretrain-a-1", content), ("pretrain-b-2", b'{"status": "complete"}')):
        directory = tmp_path / "runs" / name
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "checkpoints" / "model.safetensors").write_bytes(b"weights")
        (directory / "run.json").write_bytes(text)
    with caplog.at_level(logging.WARNING, "facedan"):
        assert read_record(tmp_path / "runs" / "pretrain-a-1") == {}
        found = newest_run(Workspace.open(tmp_path), "pretrain")
    assert found is not None
    assert found.name == "pretrain-b-2"
    assert [str(tmp_path / "runs" / "pretrain-a-1" / "run.json") in line for line in caplog.messages] == [True]


def test_a_record_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(ValueError, match="larger than"):
        read_object(path)


def test_odd_lines_of_a_log_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "metrics.jsonl"
    odd = ["7", "{}", '{"step": "2"}', '{"step": 1, "loss": "low"}', DEEP, '{"step": true}']
    log.write_text("\n".join(['{"step": 1, "loss": 2.5}', *odd, '{"step": 3}', '{"step": 4, "lo']), encoding="utf-8")
    with caplog.at_level(logging.WARNING, "facedan"):
        assert read_entries(log) == [{"step": 1, "loss": 2.5}, {"step": 3}]
    assert caplog.messages == [f"{log} is damaged and passed over: line 2 is no entry, nor are 5 others"]
    assert read_entries(tmp_path / "none.jsonl") == []


def test_a_log_that_a_kill_cut_short_is_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2, "lo', encoding="utf-8")
    assert read_entries(log) == [{"step": 1}]
    assert not caplog.messages


@pytest.mark.parametrize(
    "card",
    [
        "{}",
        "[]",
        "7",
        DEEP,
        '{"model": "vggface", "identities": 3, "stage": "", "run": "", "config": {}}',
        '{"model": "vggface", "identities": [3], "stage": "", "run": "", "config": {}}',
        '{"model": "vggface", "identities": ["a"], "stage": "", "run": "", "config": []}',
        '{"model": ["vggface"], "identities": ["a"], "stage": "", "run": "", "config": {}}',
        '{"model": "vggface", "identities": ["a"], "stage": "", "run": "", "config": {}, "init": 5}',
    ],
)
def test_an_odd_card_is_named(card: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"facedan": card})
    with pytest.raises(FacedanError, match=re.escape(str(path))):
        read_card(path)


@pytest.mark.parametrize("text", [f"x = {'[' * 100_000}", "a = 1\x00", "[datasets\n"])
def test_odd_settings_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "facedan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        read_settings(path)


def test_settings_keep_names_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "facedan.toml").write_bytes(b'\xef\xbb\xbf[datasets]\r\na = "/data/caf\xe9"\r\n')
    assert read_settings(tmp_path / "facedan.toml") == {"datasets": {"a": "/data/caf\udce9"}}


texts = st.text(st.characters(codec=None), max_size=12)


@given(texts)
def test_any_text_is_kept_in_json_and_has_a_digest(text: str) -> None:
    assert len(digest({text: text})) == 64
    assert json.loads(json.dumps({text: text}, ensure_ascii=False).encode(errors="backslashreplace")) == {text: text}


def test_names_that_are_no_utf8_are_written_and_read(tmp_path: Path) -> None:
    name = "caf\udce9"
    write_json(tmp_path / "run.json", {name: name})
    assert json.loads((tmp_path / "run.json").read_bytes()) == {name: name}
    assert parse_object((tmp_path / "run.json").read_text(encoding="utf-8")) == {name: name}
    write_text(tmp_path / "config.toml", name)
    assert (tmp_path / "config.toml").read_bytes() == b"caf\xe9"
    assert digest(name) != digest("café") != digest("caf")


names = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=8)
odd_names = st.builds(
    str.__add__, st.sampled_from(["=", "+", "-", "@", "'", "''=", "\t", "\r", "\r\n", '"', ",", "＝"]), names
)


@given(st.lists(st.tuples(names | odd_names, odd_names | names), max_size=5))
def test_every_name_is_read_back_from_csv_and_none_is_a_formula(rows: list[tuple[str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "images.csv"
        write_csv(path, ("path", "identity"), rows)
        assert [tuple(row.values()) for row in read_csv(path)] == rows
    for line in csv_lines(("a", "b"), rows):
        first = line.lstrip('"')[:1]
        assert first not in ("=", "@", "\t", "\r", "＝")


def test_what_csv_says_of_numbers_and_formulas() -> None:
    rows = [(-0.5, "-1e-05", None), ("=HYPERLINK(1)", "-x", "+1"), ("'=a", "'a", "a\rb")]
    assert list(csv_lines(("x", "y", "z"), rows)) == [
        "x,y,z\n",
        "-0.5,-1e-05,\n",
        "'=HYPERLINK(1),'-x,+1\n",
        "''=a,'a,\"a\rb\"\n",
    ]


def test_a_table_that_is_none_says_so(tmp_path: Path) -> None:
    for content in (b"", b'path\n"a', b"path,identity\na\n"):
        (tmp_path / "images.csv").write_bytes(content)
        with pytest.raises(ValueError, match="is no table of ours"):
            read_csv(tmp_path / "images.csv")


def test_directories_are_made_however_deep(tmp_path: Path) -> None:
    directory = Path(str(tmp_path) + "/d" * 1500)
    try:
        make_directory(directory)
        assert directory.is_dir()
        make_directory(directory)
    finally:
        import subprocess

        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
