from __future__ import annotations

from pathlib import Path

import pytest

from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.manifest import AlignedRecord, OddLine
from facedan_cli.data.origins import read_origins
from facedan_cli.errors import FacedanError


def test_a_damaged_line_of_the_manifest_costs_no_other(tmp_path: Path) -> None:
    facts = {"template": "lfw", "size": 9, "bytes": 1, "modified": 1}
    failed = AlignedRecord(path="anna/2.png", status="failed", reason="no face", meant="anna/2.jpg", **facts)
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "1.jpg").touch()
    (tmp_path / "aligned.jsonl").write_text("odd\n" + failed.to_line())
    odd: list[OddLine] = []
    origins = read_origins(tmp_path, read_dataset(tmp_path), odd)
    assert [one.number for one in odd] == [1]
    assert [lost.identity for lost in origins.failed.values()] == ["anna"]
    with pytest.raises(FacedanError, match="line 1, is damaged"):
        read_origins(tmp_path, read_dataset(tmp_path))
