from __future__ import annotations

from pathlib import Path

import pytest

from facedan_cli.errors import FacedanError
from facedan_cli.protocols.lfw import is_view2, read_view2


def write_folds(path: Path, folds: int, per_kind: int) -> Path:
    lines = [f"{folds}\t{per_kind}"]
    for fold in range(folds):
        lines += [f"Person_{fold}\t1\t{n + 2}" for n in range(per_kind)]
        lines += [f"Person_{fold}\t{n + 1}\tOther_{fold}\t1" for n in range(per_kind)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_view_2_has_ten_folds_of_600_pairs(tmp_path: Path) -> None:
    pairs = read_view2(write_folds(tmp_path / "pairs.txt", 10, 300))
    assert is_view2(pairs)
    assert len(pairs) == 6000
    assert [pair.fold for pair in pairs] == [fold for fold in range(10) for _ in range(600)]
    assert [pair.same for pair in pairs] == ([True] * 300 + [False] * 300) * 10


def test_smaller_lists_are_read_but_are_not_view_2(tmp_path: Path) -> None:
    pairs = read_view2(write_folds(tmp_path / "pairs.txt", 3, 2))
    assert {pair.fold for pair in pairs} == {0, 1, 2}
    assert not is_view2(pairs)


@pytest.mark.parametrize("content", ["a/1.jpg a/2.jpg 1\na/1.jpg b/1.jpg 0\n", "1\nA\t1\t2\nA\t1\tB\t1\n"])
def test_lists_without_folds_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(content)
    with pytest.raises(FacedanError, match=r"pairs\.txt has no folds") as error:
        read_view2(path)
    assert "10 300" in error.value.fix


def test_an_image_compared_with_itself_is_refused(tmp_path: Path) -> None:
    path = write_folds(tmp_path / "pairs.txt", 2, 2)
    path.write_text(path.read_text().replace("Person_1\t1\t2", "Person_1\t2\t2"))
    with pytest.raises(FacedanError, match="compares Person_1/Person_1_0002 with itself"):
        read_view2(path)
