from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from facedan_cli.alignment import aligner as align_faces
from facedan_cli.alignment.align import AlignResult, align
from facedan_cli.alignment.landmarks import exchanged, is_reflected
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import AlignedRecord, read_records
from facedan_cli.data.templates import POINT_NAMES, TEMPLATES, three_points
from facedan_cli.errors import FacedanError, UsageError
from facedan_cli.report import Advance, Report
from facedan_cli.synthetic.render import WEB, draw_identity, draw_view, render
from facedan_cli.workspace import locked

EYES = "path,righteyex,righteyey,lefteyex,lefteyey\n"


class Notes(Report):
    """Keeps what it is told; raises KeyboardInterrupt after so many advances."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.details: list[str] = []
        self.started: tuple[int | None, int] = (None, 0)
        self.advanced = 0
        self._interrupt_after = interrupt_after

    def note(self, text: str) -> None:
        self.notes.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        self.started = (total, done)

        def advance(count: int, status: str) -> None:
            self.advanced += count
            if self._interrupt_after is not None and self.advanced >= self._interrupt_after:
                raise KeyboardInterrupt

        yield advance


def draw(path: Path, seed: int, size: int = 60) -> None:
    """An image that need not hold a face."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size // 6, size // 6, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)).save(path)


@pytest.fixture
def given_eyes(tmp_path: Path) -> AlignConfig:
    """Six images of three identities with known eyes, so that no network is needed."""
    rows = []
    for identity in ("anna", "bo", "carl"):
        for number in (1, 2):
            draw(tmp_path / "raw" / identity / f"{number}.png", seed=number)
            rows.append(f"{identity}/{number}.png,20,{20 + number},40,22\n")
    (tmp_path / "eyes.csv").write_text(EYES + "".join(rows))
    return AlignConfig(
        raw=tmp_path / "raw", out=tmp_path / "out", landmarks=tmp_path / "eyes.csv", size=50, device="cpu", workers=2
    )


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    rng = np.random.default_rng(3)
    return render(draw_identity(rng), draw_view(rng, WEB), 160)


def records(result: AlignResult) -> list[AlignedRecord]:
    return list(read_records(result.manifest))


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def mapped(record: AlignedRecord) -> np.ndarray:
    """The record's points in the aligned face."""
    assert record.points is not None
    matrix = np.array(record.transform)
    return np.array(list(record.points.values())) @ matrix[:, :2].T + matrix[:, 2]


def test_the_tree_is_mirrored_and_every_image_has_its_line(given_eyes: AlignConfig) -> None:
    (given_eyes.raw / "anna" / "notes.txt").write_text("no image")
    result = align(given_eyes)
    assert result == AlignResult(given_eyes.out, given_eyes.out / "aligned.jsonl", 6, 0, 0, None)
    assert [record.path for record in records(result)] == [
        f"{identity}/{number}.png" for identity in ("anna", "bo", "carl") for number in (1, 2)
    ]
    assert files(given_eyes.out) == sorted(
        [".lock", "align.json", "aligned.jsonl"] + [record.path.replace("png", "jpg") for record in records(result)]
    )
    for record in records(result):
        with Image.open(given_eyes.out / record.output) as face:
            assert (face.format, face.mode, face.size) == ("JPEG", "RGB", (50, 50))


def test_given_eyes_come_to_lie_on_the_template(given_eyes: AlignConfig) -> None:
    for record in records(align(given_eyes)):
        assert (record.source, record.faces, record.template, record.size) == ("landmarks", None, "vggface", 50)
        np.testing.assert_allclose(mapped(record), TEMPLATES["vggface"].points(50)[:2], atol=1e-3)


def test_given_five_points_use_the_mouth_too(tmp_path: Path) -> None:
    draw(tmp_path / "raw" / "a.png", seed=0)
    names = ("image_left_eye", "image_right_eye", "nose", "image_left_mouth", "image_right_mouth")
    header = ",".join(f"{name}_{axis}" for name in names for axis in "xy")
    (tmp_path / "points.csv").write_text(f"path,{header}\na.png,20,20,40,20,30,30,24,44,36,44\n")
    config = AlignConfig(raw=tmp_path / "raw", out=tmp_path / "out", landmarks=tmp_path / "points.csv", device="cpu")
    (record,) = records(align(config))
    template = TEMPLATES["vggface"].points(250)
    errors = three_points(mapped(record)) - template
    np.testing.assert_allclose(errors.mean(0), 0, atol=1e-3)  # least squares spread the error over all three
    assert 0.1 < np.abs(errors[2]).max() < 20


def test_unusable_landmarks_are_set_aside_and_missing_ones_searched(given_eyes: AlignConfig) -> None:
    rows = ["anna/1.png,20,20,61,20", "anna/2.png,20,20,20,20", "bo/1.png,20,20,40,20"]
    given_eyes.landmarks.write_text(EYES + "\n".join(rows) + "\n")
    notes = Notes()
    result = align(given_eyes, notes)
    reasons = {record.path: record.reason for record in records(result)}
    assert "outside" in reasons["anna/1.png"]
    assert "coincide" in reasons["anna/2.png"]
    assert reasons["bo/1.png"] == ""
    assert reasons["bo/2.png"] == "no face was found"
    assert notes.notes == [f"3 of the images are not in {given_eyes.landmarks}: they were searched"]
    assert len(notes.details) == result.failed == 5


def test_faces_are_found_in_images_of_every_kind(tmp_path: Path, portrait: np.ndarray) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    image = Image.fromarray(portrait)
    upright = Image.Exif()
    upright[0x0112] = 6
    image.save(raw / "colour.jpg", quality=95)
    image.convert("L").save(raw / "grey.pgm")
    image.convert("RGBA").save(raw / "alpha.png")
    image.convert("CMYK").save(raw / "inks.tif")
    cv2.imwrite(str(raw / "deep.png"), cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257)
    image.transpose(Image.Transpose.ROTATE_90).save(raw / "turned.jpg", quality=95, exif=upright)
    image.resize((32, 32)).save(raw / "tiny.webp", quality=95)
    image.resize((640, 640)).save(raw / "large.bmp")
    result = align(AlignConfig(raw=raw, out=tmp_path / "out", device="cpu"))
    assert (result.aligned, result.failed) == (8, 0)
    faces = {}
    for record in records(result):
        assert (record.faces, record.source) == (1, "mtcnn")
        assert record.probability > 0.7
        np.testing.assert_allclose(
            three_points(mapped(record)).mean(0), TEMPLATES["vggface"].points(250).mean(0), atol=0.01
        )
        faces[record.path] = cv2.imread(str(tmp_path / "out" / record.output), cv2.IMREAD_GRAYSCALE).astype(float)
    for name, face in faces.items():
        if name != "tiny.webp":
            assert np.abs(face - faces["colour.jpg"])[60:190, 60:190].mean() < 12, name


def test_what_fails_is_listed_and_costs_the_others_nothing(tmp_path: Path, portrait: np.ndarray) -> None:
    raw = tmp_path / "raw"
    (raw / "x").mkdir(parents=True)
    Image.fromarray(portrait).save(raw / "good.png")
    whole = (raw / "good.png").read_bytes()
    (raw / "short.png").write_bytes(whole[: len(whole) // 2])
    (raw / "text.jpg").write_text("no image")
    (raw / "gone.jpg").symlink_to(raw / "nowhere.jpg")
    Image.new("RGB", (200, 200), "navy").save(raw / "x" / "blank.jpg")
    result = align(AlignConfig(raw=raw, out=tmp_path / "out", device="cpu"))
    assert (result.aligned, result.failed) == (1, 4)
    assert result.set_aside == tmp_path / "out" / "set-aside.tsv"
    assert result.set_aside.read_text().splitlines() == [
        "gone.jpg\tthe file is missing",
        "short.png\tcut short: the end of the file is missing",
        "text.jpg\tnot an image of a known format",
        "x/blank.jpg\tno face was found",
    ]
    failed = {record.path: record for record in records(result) if record.status == "failed"}
    assert len(failed) == 4
    assert failed["x/blank.jpg"].faces == 0
    assert all(record.output is record.transform is record.points is None for record in failed.values())


def test_odd_file_names_stay_on_their_line(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    names = ["tab\there.jpg", "line\nbreak.jpg", os.fsdecode(b"latin-\xe9.jpg")]
    for name in names:
        (raw / name).write_text("no image")
    result = align(AlignConfig(raw=raw, out=tmp_path / "out", device="cpu"))
    assert {record.path for record in records(result)} == set(names)
    lines = result.set_aside.read_bytes().splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [b"latin-\xe9.jpg", b"line break.jpg", b"tab here.jpg"]
    assert align(AlignConfig(raw=raw, out=tmp_path / "out", device="cpu")) == result


def test_the_largest_central_face_is_aligned(tmp_path: Path, portrait: np.ndarray) -> None:
    scene = np.full((400, 600, 3), 128, np.uint8)
    scene[20:120, 10:110] = cv2.resize(portrait, (100, 100), interpolation=cv2.INTER_AREA)
    scene[120:280, 220:380] = portrait
    (tmp_path / "raw").mkdir()
    Image.fromarray(scene).save(tmp_path / "raw" / "two.png")
    (record,) = records(align(AlignConfig(raw=tmp_path / "raw", out=tmp_path / "out", device="cpu")))
    assert record.faces == 2
    assert record.box[0] > 200


@pytest.mark.parametrize("second_pass", [True, False])
def test_the_manifest_says_at_which_attempt_a_face_was_found(
    tmp_path: Path, portrait: np.ndarray, second_pass: bool
) -> None:
    (tmp_path / "raw").mkdir()
    Image.fromarray(portrait).save(tmp_path / "raw" / "clear.png")
    Image.fromarray((portrait // 16 + 5).astype(np.uint8)).save(tmp_path / "raw" / "dark.png")
    config = AlignConfig(raw=tmp_path / "raw", out=tmp_path / "out", device="cpu", second_pass=second_pass)
    clear, dark = records(align(config))
    assert clear.source == "mtcnn"
    if second_pass:
        assert dark.source.startswith("mtcnn, ")
    else:
        assert (dark.source, dark.reason) == (None, "no face was found")


def test_again_does_only_what_is_missing(given_eyes: AlignConfig) -> None:
    first = align(given_eyes)
    lines = first.manifest.read_bytes()
    stamps = {name: (given_eyes.out / name).stat().st_mtime_ns for name in files(given_eyes.out) if "jpg" in name}
    assert align(given_eyes) == replace(first, aligned=0, already=6)
    assert first.manifest.read_bytes() == lines
    (given_eyes.out / "bo" / "2.jpg").unlink()
    draw(given_eyes.raw / "dora" / "1.png", seed=9)  # new, and not in the landmarks
    notes = Notes()
    again = align(given_eyes, notes)
    assert (again.aligned, again.already, again.failed) == (1, 5, 1)
    assert notes.started == (7, 5)
    assert notes.advanced == 2
    assert [record.path for record in records(again)][6:] == ["bo/2.png", "dora/1.png"]
    for name, stamp in stamps.items():
        assert ((given_eyes.out / name).stat().st_mtime_ns == stamp) == (name != "bo/2.jpg")


def test_a_failure_is_tried_again_only_when_its_file_was_replaced(given_eyes: AlignConfig) -> None:
    image = given_eyes.raw / "bo" / "1.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    first = align(given_eyes)
    assert (first.aligned, first.failed) == (5, 1)
    again = align(given_eyes)
    assert (again.aligned, again.already, again.failed) == (0, 5, 1)
    assert again.set_aside == first.set_aside
    assert len(records(again)) == 6
    image.write_bytes(whole)
    repaired = align(given_eyes)
    assert (repaired.aligned, repaired.already, repaired.failed, repaired.set_aside) == (1, 5, 0, None)
    assert not (given_eyes.out / "set-aside.tsv").exists()


def test_an_image_that_was_replaced_is_aligned_again(given_eyes: AlignConfig) -> None:
    align(given_eyes)
    image = given_eyes.raw / "anna" / "1.png"
    before = (given_eyes.out / "anna" / "1.jpg").read_bytes()
    draw(image, seed=77)
    assert align(given_eyes).aligned == 1
    assert (given_eyes.out / "anna" / "1.jpg").read_bytes() != before
    image.write_bytes(b"broken")
    os.utime(image, (1, 1))
    assert align(given_eyes).failed == 1
    assert not (given_eyes.out / "anna" / "1.jpg").exists()


def test_a_killed_run_goes_on_behind_its_last_whole_line(given_eyes: AlignConfig) -> None:
    manifest = align(given_eyes).manifest
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:4]) + lines[4][:70])
    again = align(given_eyes)
    assert (again.aligned, again.already) == (2, 4)
    assert manifest.read_bytes() == b"".join(lines)


def test_an_interrupted_run_keeps_what_it_recorded(given_eyes: AlignConfig) -> None:
    config = replace(given_eyes, detector_batch=1)
    with pytest.raises(KeyboardInterrupt):
        align(config, Notes(interrupt_after=2))
    assert len((config.out / "aligned.jsonl").read_text().splitlines()) == 2
    again = align(config)
    assert (again.aligned, again.already) == (4, 2)
    assert [record.path for record in records(again)] == [record.path for record in records(align(config))]


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(
    given_eyes: AlignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes
    written = []

    def until_full(path: Path, data: bytes) -> int:
        if not data.startswith(b"\xff\xd8"):  # no face: a mark of the tree, a list
            return write_bytes(path, data)
        if len(written) == 3:
            write_bytes(path, data[:10])
            raise OSError(28, "No space left on device")
        size = write_bytes(path, data)
        written.append(path)
        return size

    monkeypatch.setattr(Path, "write_bytes", until_full)
    config = replace(given_eyes, detector_batch=1, workers=1)
    with pytest.raises(OSError, match="No space left"):
        align(config)
    monkeypatch.undo()
    written = [name for name in files(config.out) if name.endswith(".jpg")]
    assert written == ["anna/1.jpg", "anna/2.jpg", "bo/1.jpg"]
    again = align(config)
    assert again.aligned + again.already == 6
    assert len([name for name in files(config.out) if name.endswith(".jpg")]) == 6


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"template": "lfw"}, "--template"),
        ({"size": 60}, "--size"),
        ({"min_face": 30}, "--min-face"),
        ({"second_pass": False}, "--second-pass"),
        ({"landmarks": None}, "--landmarks"),
    ],
)
def test_other_settings_are_not_mixed_into_a_tree(given_eyes: AlignConfig, change: dict[str, Any], option: str) -> None:
    align(given_eyes)
    before = (given_eyes.out / "aligned.jsonl").read_bytes()
    with pytest.raises(FacedanError, match=f"another {option}$") as caught:
        align(replace(given_eyes, **change))
    assert "--force" in caught.value.fix
    assert (given_eyes.out / "aligned.jsonl").read_bytes() == before


@pytest.mark.parametrize("damage", ["{", "5"])
def test_damaged_settings_are_an_error_and_force_repairs_them(given_eyes: AlignConfig, damage: str) -> None:
    align(given_eyes)
    (given_eyes.out / "align.json").write_text(damage)
    with pytest.raises(FacedanError, match="is damaged"):
        align(given_eyes)
    assert align(replace(given_eyes, force=True)).aligned == 6


def test_force_starts_over(given_eyes: AlignConfig) -> None:
    align(given_eyes)
    (given_eyes.raw / "bo" / "2.png").unlink()
    result = align(replace(given_eyes, force=True, size=40))
    assert (result.aligned, result.already) == (5, 0)
    assert len(records(result)) == 5
    assert not (given_eyes.out / "bo" / "2.jpg").exists()
    with Image.open(given_eyes.out / "bo" / "1.jpg") as face:
        assert face.size == (40, 40)


def test_a_damaged_line_of_the_manifest_is_listed_removed_and_made_good(given_eyes: AlignConfig) -> None:
    whole = align(given_eyes)
    lines = whole.manifest.read_bytes().splitlines(keepends=True)
    whole.manifest.write_bytes(b"odd\n" + b"".join(lines[1:]))
    again = align(given_eyes)
    assert (again.aligned, again.already, again.failed) == (1, whole.aligned - 1, 1)
    assert again.set_aside is not None
    assert again.set_aside.read_text().startswith("aligned.jsonl, line 1\tdamaged")
    assert sorted(whole.manifest.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert align(given_eyes).failed == 0


def test_a_manifest_that_names_what_lies_outside_changes_nothing_there(given_eyes: AlignConfig) -> None:
    whole = align(given_eyes)
    outside = given_eyes.out.parent / "mine.jpg"
    outside.write_text("mine")
    lines = [json.loads(line) for line in whole.manifest.read_text().splitlines()]
    lines[0]["output"] = "../mine.jpg"
    whole.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    align(given_eyes)
    assert outside.read_text() == "mine"
    whole.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    align(replace(given_eyes, force=True))
    assert outside.read_text() == "mine"


def test_a_link_out_of_the_aligned_tree_is_not_followed(given_eyes: AlignConfig) -> None:
    elsewhere = given_eyes.out.parent / "elsewhere"
    elsewhere.mkdir()
    folder = next(path for path in given_eyes.raw.iterdir() if path.is_dir())
    given_eyes.out.mkdir()
    (given_eyes.out / folder.name).symlink_to(elsewhere)
    result = align(given_eyes)
    assert result.failed == sum(path.is_file() for path in folder.rglob("*"))
    assert list(elsewhere.iterdir()) == []
    assert result.set_aside is not None
    assert "leads out of the aligned tree" in result.set_aside.read_text()


def test_images_that_differ_in_their_extension_keep_apart(given_eyes: AlignConfig) -> None:
    draw(given_eyes.raw / "anna" / "1.bmp", seed=5)
    draw(given_eyes.raw / "anna" / "1.PPM", seed=6)
    given_eyes.landmarks.write_text(EYES + "1,20,20,40,22\n2,20,20,40,22\n")
    result = align(given_eyes)
    outputs = {record.path: record.output for record in records(result) if record.path.startswith("anna/1")}
    assert outputs == {"anna/1.PPM": "anna/1.jpg", "anna/1.bmp": "anna/1.bmp.jpg", "anna/1.png": "anna/1.png.jpg"}
    assert len({(given_eyes.out / output).read_bytes() for output in outputs.values()}) == 3


def test_a_name_once_given_stays(given_eyes: AlignConfig) -> None:
    given_eyes.landmarks.write_text(EYES + "1,20,20,40,22\n2,20,20,40,22\n")
    align(given_eyes)
    before = (given_eyes.out / "anna" / "1.jpg").read_bytes()
    draw(given_eyes.raw / "anna" / "1.bmp", seed=5)  # sorts before 1.png
    result = align(given_eyes)
    assert (result.aligned, result.already) == (1, 6)
    assert records(result)[-1].output == "anna/1.bmp.jpg"
    assert (given_eyes.out / "anna" / "1.jpg").read_bytes() == before


def test_workers_and_batches_do_not_change_the_result(given_eyes: AlignConfig, tmp_path: Path) -> None:
    contents = []
    for workers, batch in ((1, 1), (3, 2), (2, 32)):
        out = tmp_path / f"out{workers}"
        align(replace(given_eyes, out=out, workers=workers, detector_batch=batch))
        contents.append({name: (out / name).read_bytes() for name in files(out) if name != ".lock"})
    assert contents[0] == contents[1] == contents[2]


def test_images_beyond_the_memory_kept_are_taken_one_by_one(
    given_eyes: AlignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align_faces, "BYTES_AT_ONCE", 1)
    given_eyes.landmarks.write_text(EYES + "1,20,20,40,22\n")
    result = align(given_eyes)
    assert (result.aligned, result.failed) == (3, 3)


def test_the_threads_of_pytorch_are_given_back(given_eyes: AlignConfig) -> None:
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        align(given_eyes)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_a_second_process_is_refused(given_eyes: AlignConfig) -> None:
    with (
        locked(given_eyes.out, "the aligned tree"),
        pytest.raises(FacedanError, match=f"in use by process {os.getpid()} on "),
    ):
        align(given_eyes)
    assert align(given_eyes).aligned == 6


@pytest.mark.parametrize(
    ("raw", "out", "message"),
    [
        ("nowhere", "out", "does not exist"),
        ("eyes.csv", "out", "none of the listed images can be used"),
        ("empty", "out", "holds no images"),
        ("raw", "raw/aligned", "one lies in the other"),
        ("raw", ".", "one lies in the other"),
        ("raw", "raw", "one lies in the other"),
    ],
)
def test_trees_that_cannot_be_aligned(
    given_eyes: AlignConfig, tmp_path: Path, raw: str, out: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    with pytest.raises(FacedanError, match=message) as caught:
        align(replace(given_eyes, raw=tmp_path / raw, out=tmp_path / out))
    assert caught.value.fix
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "vgface"}, "vgface"),
        ({"size": 0}, "--size"),
        ({"min_face": 5}, "--min-face"),
        ({"detector_batch": 0}, "--detector-batch"),
        ({"device": "quantum"}, "quantum"),
        ({"contact_sheet": Path("sheet.docx")}, "--contact-sheet sheet.docx is no image"),
    ],
)
def test_options_that_cannot_be(given_eyes: AlignConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        align(replace(given_eyes, **change))
    assert not given_eyes.out.exists()


def test_the_settings_stand_beside_the_manifest(given_eyes: AlignConfig) -> None:
    align(given_eyes)
    settings = json.loads((given_eyes.out / "align.json").read_text())
    assert (settings["template"], settings["size"], settings["min_face"]) == ("vggface", 50, 40)
    assert len(settings["landmarks"]) == 64


def test_real_images(tmp_path: Path, shared_data: Path) -> None:
    raw = tmp_path / "raw"
    for number, image in enumerate(sorted(shared_data.glob("orl/s*/1.pgm"))[::5]):
        link = raw / f"s{number}" / "1.pgm"
        link.parent.mkdir(parents=True)
        link.symlink_to(image)
    result = align(AlignConfig(raw=raw, out=tmp_path / "out", device="cpu"))
    assert (result.aligned, result.failed) == (8, 0)


@pytest.mark.parametrize("copied", [False, True])
def test_a_face_without_contrast_is_set_aside(given_eyes: AlignConfig, copied: bool) -> None:
    Image.new("RGB", (60, 60), (9, 9, 9)).save(given_eyes.raw / "bo" / "2.png")
    config = replace(given_eyes, landmarks=None, no_align=True) if copied else given_eyes
    result = align(config)
    assert (result.aligned, result.failed) == (5, 1)
    assert result.set_aside is not None
    assert "no contrast" in result.set_aside.read_text()
    assert not (given_eyes.out / "bo" / "2.jpg").exists()


def test_a_camera_of_ten_bits_gives_the_face_of_eight(given_eyes: AlignConfig) -> None:
    with Image.open(given_eyes.raw / "anna" / "1.png") as image:
        grey = np.asarray(image.convert("L"))
    for name, values in (("1.png", grey), ("2.png", grey.astype(np.uint16) * 4)):
        Image.fromarray(values).save(given_eyes.raw / "anna" / name)
    (given_eyes.out.parent / "eyes.csv").write_text(EYES + "anna/1.png,20,21,40,22\nanna/2.png,20,21,40,22\n")
    assert align(replace(given_eyes, raw=given_eyes.raw / "anna")).aligned == 2
    eight, ten = (cv2.imread(str(given_eyes.out / name)).astype(int) for name in ("1.jpg", "2.jpg"))
    assert np.abs(eight - ten).max() <= 3


def test_faces_by_other_landmark_offsets_do_not_mix(given_eyes: AlignConfig) -> None:
    align(given_eyes)
    with pytest.raises(FacedanError, match=r"with another --landmark-offset$"):
        align(replace(given_eyes, landmark_offset="reference"))


def test_a_tree_that_names_no_landmark_offset_has_that_of_facenet_pytorch(given_eyes: AlignConfig) -> None:
    align(replace(given_eyes, landmark_offset="reference"))
    path = given_eyes.out / "align.json"
    settings = json.loads(path.read_text())
    assert settings.pop("landmark_offset") == "reference"
    path.write_text(json.dumps(settings))
    assert align(replace(given_eyes, landmark_offset="reference")).already == 6
    with pytest.raises(FacedanError, match=r"with another --landmark-offset$"):
        align(given_eyes)


def test_a_tree_whose_faces_were_cut_at_the_edge_is_not_continued(given_eyes: AlignConfig) -> None:
    align(given_eyes)
    path = given_eyes.out / "align.json"
    settings = json.loads(path.read_text())
    assert settings.pop("edges") == "black"
    path.write_text(json.dumps(settings))
    with pytest.raises(FacedanError, match="edges"):
        align(given_eyes)
    assert align(replace(given_eyes, force=True)).aligned == 6
    reference = replace(given_eyes, force=True, landmark_offset="reference")
    align(reference)
    assert "edges" not in json.loads(path.read_text())
    assert align(replace(reference, force=False)).already == 6


def test_the_reference_offset_lies_right_and_below(portrait: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    Image.fromarray(portrait).save(tmp_path / "raw" / "a.png")
    found = {}
    for offset in ("corrected", "reference"):
        result = align(AlignConfig(raw=tmp_path / "raw", out=tmp_path / offset, landmark_offset=offset, device="cpu"))
        (record,) = read_records(result.manifest)
        assert record.points is not None
        found[offset] = np.array(list(record.points.values()))
    assert ((found["reference"] - found["corrected"]).mean(0) > 0.3).all()


class Warnings(Report):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def all_pairs(rows: str) -> str:
    """Lines of eyes with left and right exchanged."""
    lines = [line.split(",") for line in rows.splitlines()]
    return "".join(f"{path},{c},{d},{a},{b}\n" for path, a, b, c, d in lines)


def test_exchanged_eyes_of_a_whole_file_give_the_same_faces(given_eyes: AlignConfig) -> None:
    rows = "".join(f"p/{number}.png,20,{20 + number},40,22\n" for number in range(12))
    for number in range(12):
        draw(given_eyes.raw / "p" / f"{number}.png", seed=number)
    eyes, swapped = given_eyes.out.parent / "right.csv", given_eyes.out.parent / "wrong.csv"
    eyes.write_text(EYES + rows)
    swapped.write_text(EYES + all_pairs(rows))
    config = replace(given_eyes, raw=given_eyes.raw / "p", out=given_eyes.out / "right", landmarks=eyes)
    align(config)
    told = Warnings()
    wrong = replace(config, out=given_eyes.out / "wrong", landmarks=swapped)
    assert align(wrong, told).aligned == 12
    assert len(told.warnings) == 1
    assert "in 12 lines" in told.warnings[0]
    for number in range(12):
        assert (wrong.out / f"{number}.jpg").read_bytes() == (config.out / f"{number}.jpg").read_bytes()
    assert {record.source for record in read_records(wrong.out / "aligned.jsonl")} == {
        "landmarks, left and right exchanged"
    }


def test_single_exchanged_eyes_are_found_by_a_search_or_set_aside(
    given_eyes: AlignConfig, portrait: np.ndarray, tmp_path: Path
) -> None:
    raw = tmp_path / "mixed"
    raw.mkdir()
    Image.fromarray(portrait).save(raw / "search.png")
    Image.fromarray(np.ascontiguousarray(portrait[::-1, ::-1])).save(raw / "down.png")
    draw(raw / "noise.png", seed=1, size=160)
    plain = align(AlignConfig(raw=raw, out=tmp_path / "plain", device="cpu"))
    points = {record.path: record.points for record in read_records(plain.manifest)}["search.png"]
    assert points is not None
    (a, b), (c, d) = points["image_left_eye"], points["image_right_eye"]
    rows = f"search.png,{c},{d},{a},{b}\ndown.png,{159 - a},{159 - b},{159 - c},{159 - d}\nnoise.png,{c},{d},{a},{b}\n"
    (tmp_path / "eyes.csv").write_text(EYES + rows)
    told = Warnings()
    result = align(
        AlignConfig(raw=raw, out=tmp_path / "out", landmarks=tmp_path / "eyes.csv", device="cpu", workers=1), told
    )
    assert (result.aligned, result.failed) == (2, 1)
    assert "in 1 lines" in told.warnings[0]
    assert result.set_aside is not None
    assert "noise.png\tits landmarks turn it upside down" in result.set_aside.read_text()
    upright, turned = (cv2.imread(str(tmp_path / "out" / name)).astype(int) for name in ("search.jpg", "down.jpg"))
    assert np.abs(upright - turned).mean() < 8


@pytest.mark.parametrize("turn", [0, 40, 100, 180, 260])
@pytest.mark.parametrize("corners_too", [False, True])
def test_the_mouth_tells_exchanged_eyes_however_the_face_is_turned(turn: int, corners_too: bool) -> None:
    angle = np.radians(turn)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = np.array([(-10, -10), (10, -10), (0, 0), (-8, 12), (8, 12)], float) @ spin.T + 50
    points = dict(zip(POINT_NAMES, map(tuple, upright.tolist()), strict=True))
    order = [1, 0, 2, 4, 3] if corners_too else [1, 0, 2, 3, 4]
    wrong = dict(zip(POINT_NAMES, map(tuple, upright[order].tolist()), strict=True))
    assert is_reflected(points) is False
    assert is_reflected(wrong) is True
    assert exchanged(wrong) == points
