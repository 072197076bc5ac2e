from __future__ import annotations

from pathlib import Path

import pytest

from facedan_cli.data.dataset import read_dataset
from facedan_cli.data.levels import check_levels, deeper_identities, warn_of_levels
from facedan_cli.errors import FacedanError
from facedan_cli.report import Report
from facedan_cli.workspace import Dataset


class Heard(Report):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def tree(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "1.png").write_bytes(b"image")
    return root


@pytest.mark.parametrize(
    "first", [("train", "test"), ("Train_Set", "VAL"), ("images",), ("part1", "part2"), ("fold-1", "fold-2")]
)
def test_divisions_are_not_identities(tmp_path: Path, first: tuple[str, ...]) -> None:
    root = tree(tmp_path, *(f"{one}/{identity}" for one in first for identity in ("ann", "bob")))
    dataset, folder = Dataset("v", root), read_dataset(root)
    with pytest.raises(FacedanError, match=r"seem to lie a level deeper.* such as .*/ann") as caught:
        check_levels(dataset, folder)
    assert str(root / min(first)) in caught.value.fix
    listed = root / "list.txt"
    listed.write_text("".join(f"{path}\t{path.split('/')[1]}\n" for path in folder.paths), encoding="utf-8")
    check_levels(Dataset("v", listed), read_dataset(listed))


def test_few_folders_with_many_folders_each_are_doubted(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{half}/{identity}" for half in ("a", "b") for identity in range(4)))
    heard = Heard()
    check_levels(Dataset("v", root), read_dataset(root))
    warn_of_levels(heard, Dataset("v", root), read_dataset(root))
    assert "2 identities, but most images lie in 8 folders below" in heard.warnings[0]


def test_identities_with_sessions_are_identities(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{identity}/{clip}" for identity in ("ann", "bob", "cid", "dan") for clip in range(3)))
    assert deeper_identities(read_dataset(root)) is None


def test_identities_called_train_are_identities_where_their_images_lie_in_their_folders(tmp_path: Path) -> None:
    assert deeper_identities(read_dataset(tree(tmp_path, "train", "test"))) is None
