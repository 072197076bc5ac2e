"""Images that changed are aligned again, whatever their sizes and times say; those that did not are not."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from facedan_cli.alignment import source_image
from facedan_cli.alignment import sources as inputs
from facedan_cli.alignment.align import AlignResult, align
from facedan_cli.config.common import AlignConfig
from facedan_cli.data import contents
from facedan_cli.report import Report

NAMES = ("ann/1.ppm", "ann/2.ppm", "bob/1.ppm", "bob/2.ppm")
SIDE = 40
TIME = 10**18


@pytest.fixture(params=[True, False], ids=["settled", "not to be trusted"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignConfig:
    """Four uncompressed faces that are aligned already, of the same size and time; whether the quick check counts."""
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**18) if request.param else 10**18)
    monkeypatch.setattr(inputs, "is_local", lambda device, file: True)
    for number, name in enumerate(NAMES):
        draw(tmp_path / "raw" / name, number)
    return AlignConfig(raw=tmp_path / "raw", out=tmp_path / "out", size=SIDE, no_align=True, workers=1, device="cpu")


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    os.utime(path, ns=(TIME, TIME))


def faces(config: AlignConfig) -> dict[str, bytes]:
    """What lies in the aligned tree."""
    return {path.relative_to(config.out).as_posix(): path.read_bytes() for path in sorted(config.out.rglob("*.jpg"))}


def done(result: AlignResult) -> tuple[int, int, int]:
    return result.aligned, result.already, result.failed


def lines(config: AlignConfig) -> list[dict[str, object]]:
    return [json.loads(line) for line in (config.out / "aligned.jsonl").read_text().splitlines()]


def afresh(config: AlignConfig, tmp_path: Path) -> dict[str, bytes]:
    other = AlignConfig(raw=config.raw, out=tmp_path / "afresh", size=SIDE, no_align=True, workers=1, device="cpu")
    align(other)
    return faces(other)


def rewritten(raw: Path) -> None:
    draw(raw / "ann/2.ppm", 77)


def moved_here(raw: Path) -> None:
    draw(raw.parent / "other.ppm", 77)
    os.replace(raw.parent / "other.ppm", raw / "ann/2.ppm")


def copied_over(raw: Path) -> None:
    draw(raw.parent / "other.ppm", 77)
    shutil.copy2(raw.parent / "other.ppm", raw / "ann/2.ppm")


def linked_here(raw: Path) -> None:
    (raw / "ann/2.ppm").unlink()
    os.link(raw / "bob/2.ppm", raw / "ann/2.ppm")


def link_turned(raw: Path) -> None:
    (raw / "ann/2.ppm").unlink()
    (raw / "ann/2.ppm").symlink_to(raw / "bob/2.ppm")


def swapped(raw: Path) -> None:
    os.rename(raw / "ann/2.ppm", raw / "passing")
    os.rename(raw / "bob/1.ppm", raw / "ann/2.ppm")
    os.rename(raw / "passing", raw / "bob/1.ppm")


@pytest.mark.parametrize("change", [rewritten, moved_here, copied_over, linked_here, link_turned, swapped])
def test_what_changed_is_aligned_again(config: AlignConfig, tmp_path: Path, change: Callable[[Path], None]) -> None:
    assert done(align(config)) == (4, 0, 0)
    assert done(align(config)) == (0, 4, 0)
    before = faces(config)
    if contents.SETTLED_NS < 0:
        wait_for_the_clock(config.raw)
    change(config.raw)
    changed = 2 if change is swapped else 1
    assert done(align(config)) == (changed, 4 - changed, 0)
    assert faces(config) == afresh(config, tmp_path) != before
    assert done(align(config)) == (0, 4, 0)


def wait_for_the_clock(raw: Path) -> None:
    """Until a change is of another tick of the file system's clock than the last one."""
    probe = raw.parent / "probe"
    last = max((raw / name).stat().st_ctime_ns for name in NAMES)
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_ctime_ns > last:
            return


def test_a_copied_tree_is_found_done(config: AlignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    align(config)
    before = faces(config)
    shutil.copytree(config.raw, config.raw.parent / "copy")
    shutil.rmtree(config.raw)
    (config.raw.parent / "copy").rename(config.raw)
    assert done(align(config)) == (0, 4, 0)
    assert faces(config) == before
    if contents.SETTLED_NS < 0:  # with what it found then, no image is read once more
        assert len(lines(config)) == 8
        monkeypatch.setattr(source_image, "digest_of", lambda file: pytest.fail("read"))
        assert done(align(config)) == (0, 4, 0)
    assert len(lines(config)) == (8 if contents.SETTLED_NS < 0 else 4)


def test_other_times_alone_are_no_change(config: AlignConfig) -> None:
    align(config)
    os.utime(config.raw / NAMES[0])
    (config.raw / NAMES[1]).chmod(0o600)
    assert done(align(config)) == (0, 4, 0)


def of_earlier_version(config: AlignConfig) -> None:
    kept = [
        {key: value for key, value in line.items() if key not in ("changed", "inode", "digest")}
        for line in lines(config)
    ]
    (config.out / "aligned.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))


class Heard(Report):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_of_an_earlier_version_faces_newer_than_their_images_count(config: AlignConfig, tmp_path: Path) -> None:
    align(config)
    of_earlier_version(config)
    later = 2 * TIME
    for path in config.out.rglob("*.jpg"):
        os.utime(path, ns=(later, later))
    heard = Heard()
    assert done(align(config, heard)) == (0, 4, 0)
    assert len(heard.warnings) == (contents.SETTLED_NS > 0)  # then their times of writing alone say so
    wait_for_the_clock(config.raw)
    draw(config.raw / "ann/2.ppm", 77)
    os.utime(config.out / "ann/2.jpg", ns=(TIME, TIME))
    assert done(align(config)) == (1, 3, 0)
    assert faces(config) == afresh(config, tmp_path)


def test_of_an_earlier_version_copied_images_count_with_a_warning(config: AlignConfig) -> None:
    align(config)
    of_earlier_version(config)
    for path in config.out.rglob("*.jpg"):
        os.utime(path, ns=(TIME + 2 * 10**9,) * 2)  # long before the images' status changed
    heard = Heard()
    assert done(align(config, heard)) == (0, 4, 0)
    assert "4 images were copied" in heard.warnings[0]
    os.utime(config.raw / NAMES[0])
    assert done(align(config)) == (1, 3, 0)


def test_an_empty_face_as_of_a_power_cut_is_made_again(config: AlignConfig) -> None:
    align(config)
    before = faces(config)
    (config.out / "ann/2.jpg").write_bytes(b"")
    assert done(align(config)) == (1, 3, 0)
    assert faces(config) == before


def pack(config: AlignConfig, archive: Path, label: str) -> None:
    """A tar of the tree as it is, of the size and time of every other."""
    with tarfile.open(archive.with_name("new"), "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in NAMES:
            header = tarfile.TarInfo(f"{label}/{name}")
            content = (config.raw / name).read_bytes()
            header.size, header.mtime = len(content), 1_600_000_000
            with (config.raw / name).open("rb") as file:
                tar.addfile(header, file)
    os.utime(archive.with_name("new"), ns=(TIME, TIME))
    os.replace(archive.with_name("new"), archive)


def test_what_changed_in_an_archive_is_aligned_again(config: AlignConfig, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / "faces.tar"
    pack(config, archive, "x")
    packed = AlignConfig(
        raw=tmp_path / "packed", out=tmp_path / "out", size=SIDE, no_align=True, workers=1, device="cpu"
    )
    assert done(align(packed)) == (4, 0, 0)
    swapped(config.raw)
    wait_for_the_clock(config.raw)
    pack(config, archive, "x")
    assert done(align(packed)) == (2, 2, 0)
    assert faces(packed) == afresh(packed, tmp_path)
    shutil.copy2(archive, tmp_path / "copy")
    (tmp_path / "copy").replace(archive)
    assert done(align(packed)) == (0, 4, 0)
