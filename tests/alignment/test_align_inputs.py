from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from align_sets import draw_set, made

from facedan_cli.alignment import align as module
from facedan_cli.alignment.align import AlignResult, align
from facedan_cli.alignment.copy import Copier
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import read_records
from facedan_cli.errors import FacedanError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignConfig:
    """Twenty images of two identities, in the current directory."""
    monkeypatch.chdir(tmp_path)
    draw_set(tmp_path, 20)
    return AlignConfig(raw=Path("raw"), out=Path("out"), landmarks=Path("eyes.csv"), size=60, device="cpu", workers=2)


def contents(config: AlignConfig) -> dict[str, bytes]:
    return {path.relative_to(config.raw).as_posix(): path.read_bytes() for path in sorted(config.raw.rglob("*.png"))}


def write_tar(archive: Path, files: dict[str, bytes], mode: str = "w") -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, mode) as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def write_rec(archive: Path, images: list[tuple[int, bytes]]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.open("wb") as file:
        for label, content in images:
            record = struct.pack("<IfQQ", 0, label, 0, 0) + content
            file.write(struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4))


def reasons(result: AlignResult) -> dict[str, str]:
    return {record.path: record.reason for record in read_records(result.manifest) if record.status == "failed"}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_shards_give_the_faces_that_their_files_would(config: AlignConfig, suffix: str) -> None:
    align(config)
    expected = {name: face for name, face in made(config.out).items() if name.endswith(".jpg")}
    files = list(contents(config).items())
    mode = "w:gz" if suffix == ".tar.gz" else "w"
    for shard, part in enumerate((files[:7], files[7:])):
        write_tar(Path("shards") / f"web-{shard}{suffix}", dict(part), mode)
    packed = replace(config, raw=Path("shards"), out=Path("from-shards"))
    first = align(packed)
    assert (first.aligned, first.failed) == (20, 0)
    assert {name: face for name, face in made(packed.out).items() if name.endswith(".jpg")} == expected
    (packed.out / "p001" / "3.jpg").unlink()
    again = align(packed)
    assert (again.aligned, again.already) == (1, 19)
    assert made(packed.out)["p001/3.jpg"] == expected["p001/3.jpg"]


def test_a_rec_gives_folders_of_identities(config: AlignConfig) -> None:
    images = [(number // 10, content) for number, content in enumerate(contents(config).values())]
    images[4] = (0, b"no image")
    write_rec(Path("sets/casia/train.rec"), images)
    packed = replace(config, raw=Path("sets"), out=Path("from-rec"), landmarks=None, no_align=True)
    result = align(packed)
    assert (result.aligned, result.failed) == (19, 1)
    assert reasons(result) == {"casia/train.rec/00000004": "not an image of a known format"}
    folders = sorted(path.parent.relative_to(packed.out).as_posix() for path in packed.out.rglob("*.jpg"))
    assert folders == ["casia/0000000"] * 9 + ["casia/0000001"] * 10
    assert align(packed) == replace(result, aligned=0, already=19)


def test_a_damaged_archive_costs_the_others_nothing(config: AlignConfig) -> None:
    write_tar(config.raw / "shard.tar", {"../climbs.png": b"x", "p002/1.png": contents(config)["p000/1.png"]})
    (config.raw / "broken.tar.gz").write_bytes(b"no archive")
    (config.raw / "broken.rec").write_bytes(b"no archive either")
    result = align(replace(config, landmarks=None, no_align=True))
    assert result.aligned == 21
    assert {path: reason.split(":")[0] for path, reason in reasons(result).items()} == {
        "broken.tar.gz": "damaged",
        "broken.rec/00000000": "damaged",
        "shard.tar/../climbs.png": "its name leads out of the archive",
    }
    assert not list(Path().glob("climbs*"))


def test_a_list_mirrors_the_tree_of_its_root(config: AlignConfig) -> None:
    align(config)
    some = list(contents(config))[::3]
    Path("list.txt").write_text("".join(f"raw/{name}\n" for name in [*some, some[0], "gone.png", "../../x.png"]))
    listed = replace(config, raw=Path("list.txt"), out=Path("from-list"), root=Path("raw"))
    result = align(listed)
    assert (result.aligned, result.failed) == (len(some), 2)
    assert reasons(result)["gone.png"] == "the file is missing"
    assert "--root" in reasons(result)["raw/../../x.png"]
    for name in some:
        face = Path(name).with_suffix(".jpg")
        assert (listed.out / face).read_bytes() == (config.out / face).read_bytes()
    assert align(listed) == replace(result, aligned=0, already=len(some))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the list of images is empty"),
        ("gone.png\n", "none of the listed images can be used"),
    ],
)
def test_lists_that_cannot_be(config: AlignConfig, content: str, message: str) -> None:
    Path("list.txt").write_text(content)
    with pytest.raises(FacedanError, match=message):
        align(replace(config, raw=Path("list.txt")))
    assert not config.out.exists()


def test_a_name_that_no_face_can_have_is_set_aside(config: AlignConfig) -> None:
    content = contents(config)["p000/1.png"]
    files = {"x" * 300 + ".png": content, "a.png": content, "a.jpg/b.png": content}
    write_tar(Path("shards/one.tar"), files)
    result = align(replace(config, raw=Path("shards"), landmarks=None, no_align=True))
    assert result.aligned == 1
    said = sorted(reasons(result).values())
    assert len(said) == 2
    assert "File exists" in said[0] or "Not a directory" in said[0]
    assert "File name too long" in said[1]


def test_images_of_compressed_archives_are_held_within_bounds(
    config: AlignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(config)
    largest = max(map(len, files.values()))
    monkeypatch.setattr(module, "FILE_BYTES_AT_ONCE", 2 * largest)
    sizes = []
    monkeypatch.setattr(Copier, "__call__", lambda self, jobs: sizes.append(len(jobs)) or [])
    write_tar(Path("shards/one.tgz"), files, "w:gz")
    align(replace(config, raw=Path("shards"), landmarks=None, no_align=True, workers=1))
    assert sum(sizes) == 20
    assert max(sizes) <= 4


def test_grey_faces_of_a_set_at_another_size_are_enlarged(config: AlignConfig) -> None:
    ramp = np.tile(np.linspace(40, 100, 30).astype(np.uint8), (30, 1))
    cv2.imwrite("raw/grey.png", ramp)
    align(replace(config, landmarks=None, no_align=True))
    face = cv2.imread("out/grey.jpg")
    assert face.shape == (60, 60, 3)
    expected = cv2.resize(ramp, (60, 60), interpolation=cv2.INTER_CUBIC).astype(int)
    assert np.abs(face - expected[:, :, None]).max() <= 2
