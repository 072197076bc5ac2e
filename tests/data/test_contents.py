from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.data import contents
from facedan_cli.data.contents import MISSING, NO_FILE, UNREADABLE, Contents, digest_of, is_settled
from facedan_cli.data.dataset import FaceDataset, read_dataset

NAMES = ("ann/1.pgm", "ann/2.pgm", "bob/1.pgm", "bob/2.pgm")


class Reads:
    """Which files are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []

        def read(file: str) -> tuple[bytes, os.stat_result | None]:
            self.names.append(os.path.relpath(file, self.root))
            return digest_of(file)

        self.root = Path()
        monkeypatch.setattr(contents, "digest_of", read)

    def of(self, root: Path, index: Path, names: tuple[str, ...] = NAMES) -> list[str]:
        """Files that are read for a fingerprint by a process that begins; what they hold is right."""
        self.names, self.root = [], root
        remembered = Contents(index)
        assert list(remembered.digests(root, names)) == [
            hashlib.sha256((root / name).read_bytes()).digest() for name in names
        ]
        remembered.keep()
        return sorted(self.names)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**18))  # a test has no time to wait until files are settled
    monkeypatch.setattr(contents, "is_local", lambda device, file: True)
    return Reads(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of the same size and time."""
    for number, name in enumerate(NAMES):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, number)
    return tmp_path / "faces"


def write(path: Path, grey: int) -> None:
    path.write_bytes(b"P5 2 2 255\n" + bytes([grey] * 4))
    os.utime(path, ns=(10**18, 10**18))


def rewritten(root: Path) -> None:
    write(root / "ann/2.pgm", 77)


def moved_here(root: Path) -> None:
    write(root.parent / "other.pgm", 77)
    os.replace(root.parent / "other.pgm", root / "ann/2.pgm")


def linked_here(root: Path) -> None:
    (root / "ann/2.pgm").unlink()
    os.link(root / "bob/2.pgm", root / "ann/2.pgm")


def swapped(root: Path) -> None:
    os.rename(root / "ann/2.pgm", root / "passing")
    os.rename(root / "bob/1.pgm", root / "ann/2.pgm")
    os.rename(root / "passing", root / "bob/1.pgm")


def copied_over(root: Path) -> None:
    """As rsync without -t, and cp -p."""
    write(root.parent / "other.pgm", 77)
    shutil.copy2(root.parent / "other.pgm", root / "ann/2.pgm")


def link_turned(root: Path) -> None:
    (root / "ann/2.pgm").unlink()
    (root / "ann/2.pgm").symlink_to(root / "bob/2.pgm")


CHANGES = (rewritten, moved_here, linked_here, swapped, copied_over, link_turned)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_another_data_set(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    def fingerprint() -> str:
        return read_dataset(root).remembered_in(tmp_path / "workspace").fingerprint

    before, sizes = fingerprint(), read_dataset(root).fingerprint_by_size
    change(root)
    assert read_dataset(root).fingerprint_by_size == sizes
    assert fingerprint() != before
    assert fingerprint() == read_dataset(root).fingerprint


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed_by_the_quick_check(
    root: Path, tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of settled files: the clock of the file system has ticked between the two."""
    monkeypatch.setattr(contents, "is_local", lambda device, file: True)
    monkeypatch.setattr(contents, "SETTLED_NS", 50_000_000)
    reads, index = Reads(monkeypatch), tmp_path / "index"
    while is_young(root):
        pass
    assert reads.of(root, index) == list(NAMES)
    assert reads.of(root, index) == []
    change(root)
    reads.of(root, index)  # right, whatever is read


def is_young(root: Path) -> bool:
    return not all(is_settled((root / name).stat(), time.time_ns()) for name in NAMES)


def test_an_unchanged_tree_is_not_read_again_wherever_it_is_moved(root: Path, tmp_path: Path, reads: Reads) -> None:
    index = tmp_path / "workspace" / "cache" / "index"
    assert reads.of(root, index) == list(NAMES)
    assert reads.of(root, index) == []
    moved = root.rename(tmp_path / "elsewhere")
    assert reads.of(moved, index) == []
    (tmp_path / "link").symlink_to(moved)
    assert reads.of(tmp_path / "link", index) == []
    os.link(moved / NAMES[0], moved / "ann" / "3.pgm")  # which changes the status of both names
    assert reads.of(moved, index, (*NAMES, "ann/3.pgm")) == [NAMES[0], "ann/3.pgm"]
    copy = shutil.copytree(moved, tmp_path / "copy")
    assert reads.of(copy, index) == list(NAMES)
    assert reads.of(copy, index) == []
    write(moved / NAMES[2], 9)
    assert reads.of(moved, index) == [NAMES[2]]


def test_equal_trees_are_one_data_set(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "link").symlink_to(root)
    assert read_dataset(copy).fingerprint == read_dataset(root).fingerprint
    assert read_dataset(tmp_path / "link").fingerprint == read_dataset(root).fingerprint


def test_identities_and_order_belong_to_the_data_set(root: Path) -> None:
    paths = NAMES[:2]
    folders = [
        FaceDataset(root, paths, ("ann", "ann")),
        FaceDataset(root, paths, ("ann", "bob")),
        FaceDataset(root, paths[::-1], ("ann", "ann")),
        FaceDataset(root, paths + paths[:1], ("ann",) * 3),
        FaceDataset(root, paths, ("ann\0", "ann")),
    ]
    assert len({folder.fingerprint for folder in folders}) == len(folders)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x", "xy"])), max_size=4))
def test_fingerprints_are_equal_only_of_equal_lists(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    place = tmp_path_factory.getbasetemp()
    paths, names = tuple(path for path, _ in rows), tuple(name for _, name in rows)
    other = FaceDataset(place, (*paths, "b"), (*names, "xy"))
    assert FaceDataset(place, paths, names).fingerprint == FaceDataset(place, paths, names).fingerprint
    assert FaceDataset(place, paths, names).fingerprint != other.fingerprint


def test_what_has_no_bytes_has_a_word_in_its_place(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    (root / "round.png").symlink_to("round.png")
    os.symlink("nothing", root / "broken.png")
    (root / "ann" / "1.pgm").chmod(0)
    names = ["gone.png", "broken.png", "round.png", "pipe.png", "folder.png"]
    found = list(Contents(tmp_path / "index").digests(root, names))
    assert found == [MISSING, MISSING, MISSING, NO_FILE, NO_FILE]
    (of_unreadable,) = Contents().digests(root, ["ann/1.pgm"])
    whole = hashlib.sha256(b"P5 2 2 255\n" + bytes(4)).digest()
    assert of_unreadable == (whole if os.geteuid() == 0 else UNREADABLE)


def test_young_files_are_not_remembered(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may change again within a tick of the clock."""
    monkeypatch.setattr(contents, "is_local", lambda device, file: True)
    reads, index = Reads(monkeypatch), tmp_path / "index"
    assert reads.of(root, index) == reads.of(root, index) == list(NAMES)
    assert not index.exists()


def test_nothing_is_remembered_where_times_are_not_to_be_trusted(
    root: Path, tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kinds in (["nfs4"], ["fuse.sshfs"], ["cifs"], ["9p"], []):
        mounts = [("0:0", "/", kind) for kind in kinds]
        monkeypatch.setattr(contents, "is_local", is_local_by(mounts, monkeypatch))
        assert reads.of(root, tmp_path / "index") == reads.of(root, tmp_path / "index") == list(NAMES)
    monkeypatch.setattr(contents, "is_local", is_local_by([("0:0", "/", "nfs"), ("0:0", "/tmp", "ext4")], monkeypatch))
    assert contents.is_local(99, "/tmp/x")
    assert not contents.is_local(99, "/tmpx/x")


def is_local_by(mounts: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], bool]:
    monkeypatch.setattr(contents, "_mounts", lambda: mounts)
    contents._system.cache_clear()
    contents._system_at.cache_clear()
    return IS_LOCAL


IS_LOCAL = contents.is_local


@pytest.fixture(autouse=True)
def no_mounts_remembered() -> None:
    contents._system.cache_clear()
    contents._system_at.cache_clear()


def emptied(index: Path) -> None:
    index.write_bytes(b"")


def overwritten(index: Path) -> None:
    index.write_bytes(b"something else" * 999)


def cut(index: Path) -> None:
    os.truncate(index, index.stat().st_size // 2)


def torn(index: Path) -> None:
    with index.open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) - 300)
        file.write(os.urandom(200))


def made_a_folder(index: Path) -> None:
    index.unlink()
    index.mkdir()


def other_table(index: Path) -> None:
    index.unlink()
    with sqlite3.connect(index) as database:
        database.execute("CREATE TABLE files (file TEXT, seal TEXT)")


def other_digests(index: Path) -> None:
    with sqlite3.connect(index) as database:
        database.execute("UPDATE files SET digest = zeroblob(32)")


def other_types(index: Path) -> None:
    with sqlite3.connect(index) as database:
        database.execute("UPDATE files SET digest = 7, seal = 'x'")


@pytest.mark.parametrize(
    "damage", [emptied, overwritten, cut, torn, made_a_folder, other_table, other_digests, other_types]
)
def test_a_damaged_index_costs_time_and_nothing_else(
    root: Path, tmp_path: Path, reads: Reads, damage: Callable[[Path], None]
) -> None:
    index = tmp_path / "index"
    reads.of(root, index)
    damage(index)
    assert reads.of(root, index) == list(NAMES)
    if damage not in (made_a_folder, other_table):
        assert reads.of(root, index) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_index_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path, reads: Reads) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert reads.of(root, tmp_path / "locked" / "cache" / "index") == list(NAMES)


def test_an_index_whose_directory_cannot_be_is_done_without(root: Path, tmp_path: Path, reads: Reads) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert reads.of(root, tmp_path / "file" / "index") == list(NAMES)


def test_only_keep_writes(root: Path, tmp_path: Path, reads: Reads) -> None:
    remembered = Contents(tmp_path / "workspace" / "index")
    assert len(set(remembered.digests(root, NAMES))) == len(NAMES)
    assert not (tmp_path / "workspace").exists()
    assert len(set(remembered.digests(root, NAMES))) == len(NAMES)  # from memory
    remembered.keep()
    assert reads.of(root, tmp_path / "workspace" / "index") == []


def test_several_processes_share_an_index(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from facedan_cli.data import contents
contents.SETTLED_NS = -(10**18)
contents.is_local = lambda device, file: True
root, index = Path(sys.argv[1]), Path(sys.argv[2])
for name in sys.argv[3:]:
    remembered = contents.Contents(index)
    list(remembered.digests(root, [f"{name}-{number}.png" for number in range(40)]))
    remembered.keep()
"""
    names = [f"{letter}-{number}.png" for letter in "abcdef" for number in range(40)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    processes = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path, tmp_path / "index", *letters])
        for letters in ("abc", "def", "cba", "fde")
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    with sqlite3.connect(tmp_path / "index") as database:
        digests = {row[0] for row in database.execute("SELECT digest FROM files")}
    assert digests == {hashlib.sha256(name.encode()).digest() for name in names}
