from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from facedan_cli.config.common import CACHES
from facedan_cli.data import batches, cache
from facedan_cli.data.batches import FaceStore, read_faces
from facedan_cli.data.cache import Cache, Decoded, expect
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.images import UnreadableImage
from facedan_cli.errors import FacedanError
from facedan_cli.report import SILENT, Report

SIZE, COUNT = 6, 9

BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from facedan_cli.data.cache import Cache
from facedan_cli.data.dataset import read_dataset

root, directory, began, pause = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])

def faces():
    for index in range(9):
        with began.open("a") as file:
            file.write("one more" + chr(10))
        time.sleep(pause)
        yield index, np.full((6, 6, 3), index, np.uint8)

print(Cache("disk", directory).keep(read_dataset(root), 6, faces()).faces[:, 0, 0, 0].tolist())
"""


@pytest.fixture
def folder(tmp_path: Path) -> FaceDataset:
    """Uncompressed images, each of one grey: none differs from another in the length of its file."""
    root = tmp_path / "faces"
    root.mkdir()
    for index in range(COUNT):
        draw(root / f"{index}.ppm", index)
    return read_dataset(root)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "cache"


def draw(path: Path, grey: int) -> None:
    assert cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), grey, np.uint8))


def keep(folder: FaceDataset, directory: Path, report: Report = SILENT) -> Decoded:
    """Keep the faces on disk, and read them from there."""
    with ThreadPoolExecutor(2) as pool:
        faces = read_faces(folder, range(len(folder)), SIZE, pool)
        kept = Cache("disk", directory).keep(folder, SIZE, faces, report)
    assert kept is not None
    assert isinstance(kept.faces, np.memmap)
    return kept


def greys(kept: Decoded) -> list[int]:
    assert kept.faces.shape == (len(kept.faces), SIZE, SIZE, 3)
    assert kept.faces.dtype == np.uint8
    assert (kept.faces == kept.faces[:, :1, :1, :1]).all()
    return kept.faces[:, 0, 0, 0].tolist()


def only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


class Decodes:
    """Which files are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        read_face = batches.read_face

        def read(path: Path, size: int) -> np.ndarray:
            self.names.append(path.name)
            return read_face(path, size)

        monkeypatch.setattr(batches, "read_face", read)

    def __len__(self) -> int:
        return len(self.names)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    return Decodes(monkeypatch)


def test_a_second_run_decodes_nothing(folder: FaceDataset, directory: Path, decodes: Decodes) -> None:
    assert greys(keep(folder, directory)) == list(range(COUNT))
    assert len(decodes) == COUNT
    assert greys(keep(folder, directory)) == list(range(COUNT))
    assert len(decodes) == COUNT


def test_the_file_is_named_by_data_set_and_size_and_is_an_array(folder: FaceDataset, directory: Path) -> None:
    keep(folder, directory)
    path = only(directory, "*.npy")
    assert path.name == f"faces-{folder.fingerprint[:8]}-{SIZE}.npy"
    assert np.load(path).shape == (COUNT, SIZE, SIZE, 3)
    assert sorted(entry.suffix for entry in directory.iterdir()) == [".json", ".lock", ".npy"]


def test_sizes_and_data_sets_have_files_of_their_own(folder: FaceDataset, directory: Path, decodes: Decodes) -> None:
    with ThreadPoolExecutor(2) as pool:
        part = FaceDataset(folder.root, folder.paths[2:], folder.names[2:])
        for _ in range(2):
            for some, size in ((folder, SIZE), (folder, 9), (part, SIZE)):
                images = FaceStore(some, size, pool, cache=Cache("disk", directory))
                assert images.load([1])[0][1].tolist() == np.full((size, size, 3), COUNT - len(some) + 1).tolist()
    assert len(list(directory.glob("*.npy"))) == 3
    assert len(decodes) == 3 * COUNT - 2


def test_all_parts_of_a_data_set_share_its_file(folder: FaceDataset, directory: Path, decodes: Decodes) -> None:
    (folder.root / "3.ppm").write_bytes(b"no image")
    for start in (0, 4):  # as pretrain and adapt, of which one may hold more images aside
        with ThreadPoolExecutor(2) as pool:
            whole = FaceStore(folder, SIZE, pool, cache=Cache("disk", directory))
            part = whole.part(FaceDataset(folder.root, folder.paths[start:], folder.names[start:]))
            assert [int(face[0, 0, 0]) for _, face in part.load([0, 1, 4])] == [start, start + 1, start + 4]
            assert part.unreadable == {"3.ppm": "not an image of a known format"}
    assert len(list(directory.glob("*.npy"))) == 1
    assert len(decodes) == COUNT


def test_what_cannot_be_read_is_remembered(folder: FaceDataset, directory: Path, decodes: Decodes) -> None:
    odd = os.fsdecode(b"\xff\n.ppm")  # names are bytes
    (folder.root / odd).write_bytes(b"no image")
    (folder.root / "4.ppm").write_bytes((folder.root / "4.ppm").read_bytes()[:50])
    folder = read_dataset(folder.root)
    first = keep(folder, directory)
    again = keep(folder, directory)
    assert len(decodes) == COUNT + 1
    assert first.unreadable == again.unreadable
    assert again.unreadable.keys() == {odd, "4.ppm"}
    assert greys(again) == [*range(4), 0, *range(5, COUNT), 0]


@pytest.mark.parametrize("how", ["rewritten", "rewritten and dated back", "replaced by an older file"])
def test_a_data_set_that_changed_is_decoded_anew(
    folder: FaceDataset, directory: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.root / "5.ppm"
    before = path.stat()
    keep(folder, directory)
    time.sleep(0.02)  # the clock of the file system ticks by up to 10 ms
    target = path if how != "replaced by an older file" else folder.root.parent / "new.ppm"
    draw(target, 200)
    if how != "rewritten":
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.replace(path)
    decodes = Decodes(monkeypatch)
    folder = read_dataset(folder.root)
    assert greys(keep(folder, directory))[5] == 200
    assert len(decodes) == COUNT
    assert len(list(directory.glob("*.npy"))) == 1  # the new one has taken the place of the old one


def test_other_permissions_or_times_are_no_other_faces(
    folder: FaceDataset, directory: Path, decodes: Decodes, tmp_path: Path
) -> None:
    keep(folder, directory)
    (folder.root / "5.ppm").chmod(0o600)
    os.utime(folder.root / "6.ppm")
    assert greys(keep(read_dataset(folder.root), directory)) == list(range(COUNT))
    moved = folder.root.rename(tmp_path / "elsewhere")
    (tmp_path / "more").mkdir()
    moved = moved.rename(tmp_path / "more" / "faces")
    assert greys(keep(read_dataset(moved), directory)) == list(range(COUNT))
    assert len(decodes) == COUNT


def test_what_changes_while_it_is_read_is_not_kept(folder: FaceDataset, directory: Path) -> None:
    def faces() -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
        for index in range(COUNT):
            yield index, np.full((SIZE, SIZE, 3), index, np.uint8)
        draw(folder.root / "5.ppm", 200)

    with pytest.raises(FacedanError, match="'faces' changed"):
        Cache("disk", directory).keep(folder, SIZE, faces())
    assert greys(keep(read_dataset(folder.root), directory))[5] == 200


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_bytes(b"PK\3\4 something else altogether" * 99)


def make_list(path: Path) -> None:
    path.write_text("[1, 2]")


def other_array(path: Path) -> None:
    np.save(path, np.zeros((COUNT, SIZE, SIZE, 4), np.uint8))


def other_type(path: Path) -> None:
    np.save(path, np.zeros((COUNT, SIZE, SIZE, 3), np.int8))


def objects(path: Path) -> None:
    np.save(path, np.array([{}] * COUNT), allow_pickle=True)


def other_facts(path: Path) -> None:
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "fingerprint": "0" * 64}))


def other_version(path: Path) -> None:
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "version": "0.0"}))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        *(("*.npy", d) for d in (truncate, lengthen, empty, remove, overwrite, other_array, other_type, objects)),
        *(("*.json", d) for d in (truncate, empty, remove, overwrite, make_list, other_facts, other_version)),
    ],
)
def test_a_damaged_or_foreign_file_is_built_again(
    folder: FaceDataset, directory: Path, decodes: Decodes, pattern: str, damage: object
) -> None:
    keep(folder, directory)
    assert callable(damage)
    damage(only(directory, pattern))
    assert greys(keep(folder, directory)) == list(range(COUNT))
    assert len(decodes) == 2 * COUNT
    keep(folder, directory)
    assert len(decodes) == 2 * COUNT


def test_any_faces_may_be_expected(tmp_path: Path) -> None:
    """First and last page of the file among them; 5 pixels: no face begins with a page."""
    np.save(tmp_path / "faces.npy", np.zeros((300, 5, 5, 3), np.uint8))
    mapped = np.load(tmp_path / "faces.npy", mmap_mode="r")
    for faces in (mapped, np.asarray(mapped), np.zeros((300, 5, 5, 3), np.uint8)):
        expect(faces, range(300))


def test_an_error_while_it_is_built_leaves_no_file(folder: FaceDataset, directory: Path) -> None:
    def faces() -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
        yield 0, np.zeros((SIZE, SIZE, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache("disk", directory).keep(folder, SIZE, faces())
    assert [entry.suffix for entry in directory.iterdir()] == [".lock"]
    assert greys(keep(folder, directory)) == list(range(COUNT))


def test_a_disk_without_room_says_so_at_once(
    folder: FaceDataset, directory: Path, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = cache.shutil.disk_usage(directory.parents[1])._replace(free=COUNT * SIZE * SIZE * 3 - 1)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: room)
    with pytest.raises(FacedanError, match=r"faces of 'faces' take 0\.0 GB; 0\.0 GB is left at .*cache$"):
        keep(folder, directory)
    assert len(decodes) == 0


def test_more_than_all_memory_is_refused_at_once(folder: FaceDataset) -> None:
    with pytest.raises(FacedanError, match=r"take \d+\.\d GB; \d+\.\d GB is this machine's memory"):
        Cache("ram").keep(folder, 1 << 20, ())


def process(folder: FaceDataset, directory: Path, began: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder.root), str(directory), str(began), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_several_processes_one_builds_and_the_others_wait(
    folder: FaceDataset, directory: Path, tmp_path: Path
) -> None:
    processes = [process(folder, directory, tmp_path / "began", 0.05) for _ in range(3)]
    outputs = [one.communicate(timeout=60)[0] for one in processes]
    assert outputs == [f"{list(range(COUNT))}\n"] * 3
    assert len((tmp_path / "began").read_text().splitlines()) == COUNT


def test_who_waits_says_so(folder: FaceDataset, directory: Path) -> None:
    class Told(Report):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)
            go_on.set()

    go_on = threading.Event()

    def slow() -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
        building.set()
        assert go_on.wait(10)
        yield from ((index, np.full((SIZE, SIZE, 3), index, np.uint8)) for index in range(COUNT))

    building = threading.Event()
    with ThreadPoolExecutor(1) as other:
        builder = other.submit(Cache("disk", directory).keep, folder, SIZE, slow())
        assert building.wait(10)
        assert greys(keep(folder, directory, Told())) == list(range(COUNT))
        assert builder.result() is not None
    (note,) = Told.notes
    assert note.endswith("waiting for it")


def test_a_killed_builder_is_in_nobodys_way(folder: FaceDataset, directory: Path, tmp_path: Path) -> None:
    began = tmp_path / "began"
    killed = process(folder, directory, began, 30)
    deadline = time.monotonic() + 60
    while not (began.exists() and list(directory.glob(".*.tmp.npy"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert list(directory.glob(".*.tmp.npy"))
    assert greys(keep(folder, directory)) == list(range(COUNT))
    assert not list(directory.glob(".*.tmp.*"))


@pytest.mark.parametrize(
    ("mode", "room", "kept"), [("auto", 1, True), ("auto", 0, False), ("ram", 0, True), ("none", 1, False)]
)
def test_what_is_kept_in_memory(
    folder: FaceDataset, mode: str, room: int, kept: bool, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CACHE_BYTES", COUNT * SIZE * SIZE * 3 - 1 + room)
    with ThreadPoolExecutor(2) as pool:
        images = FaceStore(folder, SIZE, pool, cache=Cache(mode))
        assert len(decodes) == COUNT * kept
        for _ in range(2):
            assert [int(face[0, 0, 0]) for _, face in images.load(range(COUNT))] == list(range(COUNT))
    assert len(decodes) == COUNT * (1 if kept else 2)


@pytest.mark.parametrize("mode", CACHES)
def test_of_no_faces_none_are_kept(folder: FaceDataset, directory: Path, mode: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        images = FaceStore(FaceDataset(folder.root, (), ()), SIZE, pool, cache=Cache(mode, directory))
    assert images.load([]) == []
    assert not directory.exists()


def test_a_cache_is_one_of_four() -> None:
    with pytest.raises(ValueError, match="one of auto, ram, disk, none, not 'memory'"):
        Cache("memory")
    with pytest.raises(ValueError, match="wants a directory"):
        Cache("disk")
