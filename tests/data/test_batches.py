from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.data import batches
from facedan_cli.data.batches import BatchStream, FaceStore, cut, read_face, read_faces
from facedan_cli.data.cache import Cache
from facedan_cli.data.dataset import FaceDataset, read_dataset
from facedan_cli.data.images import UnreadableImage
from facedan_cli.distributed import shard_range
from facedan_cli.errors import FacedanError

SIZE, CROP, COUNT = 12, 8, 7
LABELS = np.arange(COUNT, dtype=np.int64) * 10


def mapped(index: int, size: int = SIZE) -> np.ndarray:
    """An image whose pixels say where they are: R the row, G the column, B the image."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([rows * 10, columns * 10, np.full_like(rows, index * 20)], axis=2).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image[:, :, ::-1])


@pytest.fixture
def folder(tmp_path: Path) -> FaceDataset:
    for index in range(COUNT):
        write(tmp_path / f"{index}.png", mapped(index))
    return read_dataset(tmp_path)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        everyone = threading.Barrier(3)
        list(threads.map(lambda _: everyone.wait(), range(3)))  # so that no thread is started later
        yield threads


@pytest.fixture(params=["ram", "disk", "none"])
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(request.param, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def images(folder: FaceDataset, pool: ThreadPoolExecutor, cache: Cache) -> FaceStore:
    return FaceStore(folder, SIZE, pool, cache=cache)


def stream(
    images: FaceStore,
    *,
    batch: int = 5,
    seed: tuple[int, ...] = (0, 1),
    labelled: bool = True,
    rows: range | None = None,
) -> BatchStream:
    return BatchStream(images, LABELS if labelled else None, batch, CROP, seed, rows)


def expected(step: int, batch: int, seed: tuple[int, ...]) -> tuple[torch.Tensor, list[int]]:
    """A batch as the first version of this package made it, image after image: old runs go on from their states."""
    order: list[int] = []
    while len(order) < (step + 1) * batch:
        order += np.random.default_rng((*seed, 0, len(order) // COUNT)).permutation(COUNT).tolist()
    random = np.random.default_rng((*seed, 1, step))
    offsets = random.integers(0, SIZE - CROP + 1, size=(batch, 2)).tolist()
    flips = (random.random(batch) < 0.5).tolist()
    crops, labels = [], []
    for index, (top, left), flip in zip(order[step * batch : (step + 1) * batch], offsets, flips, strict=True):
        crop = torch.from_numpy(mapped(index))[top : top + CROP, left : left + CROP].permute(2, 0, 1)
        crops.append(crop.flip(2) if flip else crop)
        labels.append(int(LABELS[index]))
    return torch.stack(crops), labels


def test_a_face_is_read_as_rgb_of_the_size_asked(tmp_path: Path) -> None:
    write(tmp_path / "a.png", mapped(3))
    np.testing.assert_array_equal(read_face(tmp_path / "a.png", SIZE), mapped(3))
    assert read_face(tmp_path / "a.png", 30).shape == (30, 30, 3)
    write(tmp_path / "flat.png", np.full((40, 40, 3), (200, 100, 50), np.uint8))
    np.testing.assert_array_equal(read_face(tmp_path / "flat.png", 13), np.full((13, 13, 3), (200, 100, 50)))


def test_of_an_image_that_is_not_square_the_middle_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "wide.png", mapped(0, 20)[:12])
    np.testing.assert_array_equal(read_face(tmp_path / "wide.png", 12), mapped(0, 20)[:12, 4:16])
    write(tmp_path / "high.png", mapped(0, 20)[:, :12])
    np.testing.assert_array_equal(read_face(tmp_path / "high.png", 12), mapped(0, 20)[4:16, :12])


def test_faces_come_in_order_and_few_are_held(
    folder: FaceDataset, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.root / "2.png").write_bytes(b"no image")
    begun: list[Path] = []

    def read(path: Path, size: int) -> np.ndarray:
        begun.append(path)
        return read_face(path, size)

    monkeypatch.setattr(batches, "read_face", read)
    monkeypatch.setattr(batches, "WINDOW", 2)
    order = [6, 2, 0, 5, 1, 3]
    for place, (index, face) in enumerate(read_faces(folder, order, SIZE, pool)):
        assert index == order[place]
        assert len(begun) <= place + 1 + 2
        if index == 2:
            assert isinstance(face, UnreadableImage)
        else:
            np.testing.assert_array_equal(face, mapped(index))
    assert place == len(order) - 1


def test_crops_are_windows_of_their_image_mirrored_or_not(images: FaceStore) -> None:
    corners, mirrored = set(), Counter[bool]()
    for step in range(40):
        crops, labels = stream(images)[step]
        assert (crops.dtype, tuple(crops.shape)) == (torch.uint8, (5, 3, CROP, CROP))
        assert crops.is_contiguous(memory_format=torch.channels_last)
        for crop, label in zip(crops.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True):
            flipped = bool(crop[0, 0, 1] > crop[0, -1, 1])
            upright = crop[:, ::-1] if flipped else crop
            top, left, index = upright[0, 0] // [10, 10, 20]
            np.testing.assert_array_equal(upright, mapped(int(index))[top : top + CROP, left : left + CROP])
            assert label == LABELS[index]
            corners.add((int(top), int(left)))
            mirrored[flipped] += 1
    assert len(corners) == (SIZE - CROP + 1) ** 2  # every corner, the first and the last among them
    assert 70 < mirrored[True] < 130


@pytest.mark.parametrize("batch", [1, 5, 3 * COUNT])
def test_batches_are_what_they_have_always_been(images: FaceStore, batch: int) -> None:
    for step in (0, 1, 6):
        crops, labels = stream(images, batch=batch, seed=(3, 1))[step]
        wanted = expected(step, batch, (3, 1))
        assert torch.equal(crops, wanted[0])
        assert labels.tolist() == wanted[1]


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_the_shares_of_all_processes_are_the_global_batch(images: FaceStore, processes: int) -> None:
    shares = [stream(images, rows=shard_range(5, part, processes)) for part in range(processes)]
    for step in (0, 1, 8):
        crops, labels = zip(*(own[step] for own in shares), strict=True)
        assert [len(part) for part in crops] == [len(shard_range(5, part, processes)) for part in range(processes)]
        assert torch.equal(torch.cat(crops), stream(images)[step][0])
        assert torch.equal(torch.cat(labels), stream(images)[step][1])


def test_a_process_decodes_its_own_rows_only(
    folder: FaceDataset, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def read(path: Path, size: int) -> np.ndarray:
        begun.append(path)
        return read_face(path, size)

    monkeypatch.setattr(batches, "read_face", read)
    stream(FaceStore(folder, SIZE, pool, cache=Cache("none")), rows=range(1, 3))[0]
    assert len(begun) == 2


@pytest.mark.parametrize("rows", [None, range(1, 4), range(2, 2)])
def test_a_device_cuts_the_same_crops(images: FaceStore, rows: range | None) -> None:
    faces = stream(images, rows=rows)
    for step in range(9):
        crops, labels = faces._sent(step, torch.device("cpu"), None)
        assert torch.equal(crops, faces[step][0])
        assert crops.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(labels, faces[step][1])


@given(size=st.integers(1, 9), count=st.integers(0, 5), seed=st.integers(0, 99), data=st.data())
def test_cut_is_slicing_and_mirroring(size: int, count: int, seed: int, data: st.DataObject) -> None:
    crop = data.draw(st.integers(1, size))
    random = torch.Generator().manual_seed(seed)
    faces = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=random)
    corners = torch.randint(0, size - crop + 1, (count, 2), generator=random)
    flips = torch.rand(count, generator=random) < 0.5
    found = cut(faces, corners, flips, crop)
    assert found.shape == (count, 3, crop, crop)
    for row, (top, left) in enumerate(corners.tolist()):
        wanted = faces[row, top : top + crop, left : left + crop].permute(2, 0, 1)
        assert torch.equal(found[row], wanted.flip(2) if flips[row] else wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_arrive_on_a_gpu_as_they_are_on_the_cpu(images: FaceStore) -> None:
    device = torch.device("cuda")
    for step, batch in enumerate(stream(images).batches(0, 50, device)):
        assert {tensor.device.type for tensor in batch} == {"cuda"}
        assert all(map(torch.equal, (tensor.cpu() for tensor in batch), stream(images)[step]))


def test_an_unlabelled_stream_tells_no_labels(images: FaceStore) -> None:
    crops, labels = stream(images, labelled=False)[3]
    assert torch.equal(labels, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(crops, stream(images)[3][0])


def test_each_epoch_shows_each_image_once(images: FaceStore) -> None:
    faces = stream(images)
    shown = [label for step in range(3 * COUNT) for label in faces[step][1].tolist()]
    epochs = [shown[start : start + COUNT] for start in range(0, len(shown), COUNT)]
    assert len(epochs) == 15
    assert all(sorted(epoch) == LABELS.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 12


def test_a_batch_may_be_larger_than_the_data_set(images: FaceStore) -> None:
    _, labels = stream(images, batch=3 * COUNT)[2]
    assert Counter(labels.tolist()) == Counter(LABELS.tolist() * 3)


def test_a_batch_is_a_function_of_seed_and_step(images: FaceStore) -> None:
    walked = [stream(images)[step] for step in range(9)]
    fresh = stream(images)
    for step in (8, 0, 4):
        assert all(map(torch.equal, fresh[step], walked[step]))
    assert not torch.equal(fresh[0][0], fresh[1][0])
    for seed in ((1, 1), (0, 2), (0, 1, 3)):
        assert not torch.equal(stream(images, seed=seed)[0][0], walked[0][0])


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (5, 7), (3, 3)])
def test_batches_are_the_items_one_after_the_other(images: FaceStore, start: int, stop: int) -> None:
    found = list(stream(images).batches(start, stop))
    assert len(found) == stop - start
    for step, batch in zip(range(start, stop), found, strict=True):
        assert all(map(torch.equal, batch, stream(images)[step]))


@pytest.mark.parametrize("mode", ["ram", "none"])
def test_a_reader_that_stops_leaves_no_thread_behind(folder: FaceDataset, pool: ThreadPoolExecutor, mode: str) -> None:
    images = FaceStore(folder, SIZE, pool, cache=Cache(mode))
    list(pool.map(abs, range(100)))  # all of the pool's own threads are there
    stream(images)[0]
    running = threading.active_count()
    taken = stream(images).batches(0, 1000)
    next(taken)
    assert threading.active_count() == running + (1 if mode == "ram" else batches.DECODING_AHEAD)
    taken.close()
    assert threading.active_count() == running


def test_every_cache_gives_the_same(folder: FaceDataset, pool: ThreadPoolExecutor, cache: Cache) -> None:
    (folder.root / "3.png").write_bytes(b"no image")
    plain, kept = (stream(FaceStore(folder, SIZE, pool, cache=one)) for one in (Cache("none"), cache))
    for step in range(6):
        assert all(map(torch.equal, plain[step], kept[step]))
    assert plain.images.unreadable == kept.images.unreadable == {"3.png": "not an image of a known format"}


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_what_is_kept_needs_no_files(folder: FaceDataset, pool: ThreadPoolExecutor, tmp_path: Path, mode: str) -> None:
    images = FaceStore(folder, SIZE, pool, cache=Cache(mode, tmp_path / "cache"))
    before = stream(images)[0]
    for path in folder.paths:
        os.unlink(folder.root / path)
    assert all(map(torch.equal, stream(images)[0], before))


@pytest.mark.parametrize("rows", [[1, 2, 5], [6, 0, 3], [4]])
def test_a_part_is_like_a_data_set_of_its_own(
    folder: FaceDataset, pool: ThreadPoolExecutor, cache: Cache, rows: list[int]
) -> None:
    (folder.root / "2.png").write_bytes(b"no image")
    some = FaceDataset(folder.root, tuple(folder.paths[row] for row in rows), ("",) * len(rows))
    part = FaceStore(folder, SIZE, pool, cache=cache).part(some)
    alone = FaceStore(some, SIZE, pool)
    assert part.folder == some
    for step in range(4):
        found, wanted = (BatchStream(images, LABELS[: len(rows)], 5, CROP, (0, 1))[step] for images in (part, alone))
        assert all(map(torch.equal, found, wanted))
    assert part.part(some).load([0])[0][0] == part.load([0])[0][0]


def test_an_unreadable_image_is_replaced_by_the_next_and_listed(
    folder: FaceDataset, pool: ThreadPoolExecutor, cache: Cache
) -> None:
    whole = (folder.root / "4.png").read_bytes()
    (folder.root / "4.png").write_bytes(whole[: len(whole) // 2])
    (folder.root / "5.png").unlink()
    (folder.root / "6.png").write_bytes(b"")
    images = FaceStore(folder, SIZE, pool, cache=cache)
    loaded = images.load([4, 5, 6, 3])
    assert [index for index, _ in loaded] == [0, 0, 0, 3]
    np.testing.assert_array_equal(loaded[0][1], mapped(0))
    assert images.unreadable.keys() == {"4.png", "5.png", "6.png"}
    assert images.unreadable["5.png"] == "the file is missing"
    assert set(stream(images)[0][1].tolist()) <= {0, 10, 20, 30}


def test_with_no_readable_image_there_is_nothing_to_do(
    folder: FaceDataset, pool: ThreadPoolExecutor, cache: Cache
) -> None:
    for path in folder.paths:
        (folder.root / path).write_bytes(b"no image")
    with pytest.raises(FacedanError, match=r"no image under .* can be read"):
        next(stream(FaceStore(folder, SIZE, pool, cache=cache)).batches(0, 1))


def test_faces_are_changed_before_the_crop_as_seed_step_and_row_say(images: FaceStore) -> None:
    """So processes with shares of a batch, and a device, change them as one process does; the cache stays as it was."""
    asked: list[int] = []

    def change(face: np.ndarray, index: int, random: np.random.Generator) -> np.ndarray:
        asked.append(index)
        assert face.shape == (SIZE, SIZE, 3)
        return (face // 2 + random.integers(0, 100)).astype(np.uint8)

    changed = BatchStream(images, LABELS, 5, CROP, (0, 1), None, change)
    plain, (crops, labels) = stream(images)[3], changed[3]
    assert torch.equal(labels, plain[1])
    assert [int(LABELS[index]) for index in asked] == labels.tolist()
    added = crops.int() - plain[0] // 2
    assert (added.amax((1, 2, 3)) == added.amin((1, 2, 3))).all()
    assert len(added.amax((1, 2, 3)).unique()) > 2
    shares = [BatchStream(images, LABELS, 5, CROP, (0, 1), shard_range(5, part, 2), change)[3] for part in (0, 1)]
    assert torch.equal(torch.cat([share for share, _ in shares]), crops)
    assert torch.equal(changed._sent(3, torch.device("cpu"), None)[0], crops)
    assert not torch.equal(changed[4][0] - stream(images)[4][0] // 2, added.to(torch.uint8))
    assert torch.equal(stream(images)[3][0], plain[0])
