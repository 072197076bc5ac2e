from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.alignment.index import (
    NO_ROW,
    ManifestIndex,
    contained,
    digest64,
    last_of_each,
    output_digest,
    repeated,
)
from facedan_cli.data.manifest import AlignedRecord, ManifestWriter

numbers = st.lists(st.integers(0, 9)).map(lambda values: np.array(values, np.uint64))


def record(path: str, output: str | None, version: int = 1) -> AlignedRecord:
    status = "failed" if output is None else "aligned"
    return AlignedRecord(
        path=path, output=output, status=status, template="lfw", size=9, bytes=version, modified=version
    )


def write(manifest: Path, records: Sequence[AlignedRecord]) -> None:
    with ManifestWriter(manifest) as writer:
        writer.append(records)


def slow_index(records: Sequence[AlignedRecord]) -> dict[str, AlignedRecord]:
    """By image its last line, unless another image's face has overwritten its own."""
    last = {record.path: record for record in records}
    owner = {record.output.lower(): record.path for record in records if record.output}
    return {path: line for path, line in last.items() if line.output is None or owner[line.output.lower()] == path}


@given(
    st.lists(
        st.builds(
            record, st.sampled_from("abcd"), st.sampled_from([None, "x.jpg", "X.jpg", "y.jpg"]), st.integers(0, 2)
        )
    )
)
def test_a_ledger_is_the_last_word_on_each_image(
    tmp_path_factory: pytest.TempPathFactory, records: list[AlignedRecord]
) -> None:
    manifest = tmp_path_factory.mktemp("index") / "m.jsonl"
    write(manifest, records)
    index, expected = ManifestIndex(manifest), slow_index(records)
    rows = index.find(np.array([digest64(path) for path in "abcde"], np.uint64))
    for path, row in zip("abcde", rows, strict=True):
        if path not in expected:
            assert row == NO_ROW
            continue
        line = expected[path]
        assert index.record(int(row)) == line
        assert index.versions[row] == digest64(line.bytes, line.modified)
        assert index.outputs[row] == (0 if line.output is None else output_digest(line.output))


def test_a_ledger_keeps_to_what_was_there_when_it_was_read(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", [record("a", "a.jpg")])
    index = ManifestIndex(tmp_path / "m.jsonl")
    write(tmp_path / "m.jsonl", [record("a", None), record("b", "b.jpg")])
    assert len(index.keys) == 1
    assert index.record(0).output == "a.jpg"


def test_digests_do_not_change_between_machines() -> None:
    assert digest64("anna/1.jpg") == 12038430837073086551
    assert digest64(12, 3) == digest64("12", "3") != digest64("1", "23")
    assert digest64("caf\udce9.jpg") != digest64("caf\udce8.jpg")
    assert output_digest("Anna/1.JPG") == output_digest("anna/1.jpg")


@given(numbers)
def test_last_of_each(values: np.ndarray) -> None:
    expected = {value: index for index, value in enumerate(values.tolist())}
    assert last_of_each(values).tolist() == [expected[value] for value in sorted(expected)]


@given(numbers, numbers)
def test_contained(values: np.ndarray, others: np.ndarray) -> None:
    assert contained(values, np.sort(others)).tolist() == [value in others.tolist() for value in values.tolist()]


@given(numbers)
def test_repeated(values: np.ndarray) -> None:
    listed = values.tolist()
    assert repeated(values).tolist() == sorted({value for value in listed if listed.count(value) > 1})
