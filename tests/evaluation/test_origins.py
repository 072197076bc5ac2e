from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.manifest import AlignedRecord, OddLine
from facedan_cli.data.origins import missing_images, read_origins
from facedan_cli.errors import FacedanError
from facedan_cli.evaluation.image_sets import labelled_images
from facedan_cli.evaluation.models import EmbeddedSet
from facedan_cli.workspace import read_set_aside, write_set_aside


@pytest.mark.parametrize("path", ["anna.b/private.d/", "anna/", "x.tar/", "./"])
@pytest.mark.parametrize("meant", [None, "anna/private.jpg"])
def test_a_directory_that_cannot_be_read_is_nobodys_image(tmp_path: Path, path: str, meant: str | None) -> None:
    facts = {"template": "lfw", "size": 9, "bytes": 1, "modified": 1}
    failed = AlignedRecord(path=path, status="failed", reason="the directory cannot be read", meant=meant, **facts)
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "1.jpg").touch()
    (tmp_path / "aligned.jsonl").write_text(failed.to_line())
    folder = read_dataset(tmp_path)
    lost = missing_images(folder, read_origins(tmp_path, folder), {path: "the directory cannot be read"})
    absent: dict[str, str] = {}
    embedded = EmbeddedSet(tmp_path, np.ones((1, 2), np.float32), ["anna/1.jpg"], ["anna"], [""], lost)
    found = labelled_images(embedded, absent)
    assert found.unlabelled == 0
    assert (found.subjects.tolist(), found.acquired.tolist()) == (["anna"], [True])
    assert all(reason.endswith("the directory cannot be read") for reason in absent.values())
    assert absent


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


@pytest.mark.parametrize("name", ["b\tad.jpg", "l\u2028s.jpg", "r\rs.jpg", "b\\ad.jpg"])
def test_an_unreadable_image_keeps_its_subject_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / name).touch()
    folder = read_dataset(tmp_path)
    listed = write_set_aside(tmp_path / "set-aside.tsv", [(f"anna/{name}", "empty")])
    (lost,) = missing_images(folder, read_origins(tmp_path, folder), read_set_aside(listed))
    assert (lost.path, lost.identity, lost.reason) == (f"anna/{name}", "anna", "empty")
