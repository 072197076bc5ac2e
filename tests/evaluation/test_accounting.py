"""Every input and every measure is accounted for: who is missing is known wherever identities come from."""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedan_cli.alignment.align import align
from facedan_cli.alignment.recordio import MAGIC
from facedan_cli.config.common import AlignConfig, EvaluateConfig
from facedan_cli.evaluation.all_pairs import evaluate_verify
from facedan_cli.evaluation.protocols import evaluate_identify, evaluate_lfw, evaluate_pairs
from facedan_cli.evaluation.result import EvaluateResult
from facedan_cli.evaluation.text_tables import failures_table
from facedan_cli.metrics.accuracy import fold_accuracy, with_failed_pairs
from facedan_cli.metrics.roc import equal_error_rate
from facedan_cli.workspace import Dataset, Workspace

CONFIG = EvaluateConfig(model=("lbp",), far=("0.1",), fpir=("0.5",), ci="none")
LOST = ("1", 2)
"""The image that cannot be read: the third of subject 1."""


def jpeg(subject: int, number: int) -> bytes:
    """An image that is another one for each subject and number, whose subjects differ more than their images."""
    whose, which = np.random.default_rng(subject), np.random.default_rng((subject, number))
    coarse = whose.integers(0, 256, (6, 6, 3)) * 0.7 + which.integers(0, 256, (6, 6, 3)) * 0.3
    face = cv2.resize(coarse.astype(np.uint8), (112, 112), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", face)[1])


def files(suffix: str = ".jpg") -> dict[str, bytes]:
    """Images of three subjects by their names, one of which is no image."""
    names = [(str(subject), number) for subject in range(3) for number in range(3)]
    return {
        f"{subject}/{subject}{number}{suffix}": b"no image" if (subject, number) == LOST else jpeg(int(subject), number)
        for subject, number in names
    }


def as_tree(raw: Path) -> None:
    for name, content in files().items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)


def as_rec(raw: Path) -> None:
    raw.mkdir()
    with (raw / "train.rec").open("wb") as file:
        for key, (name, content) in enumerate(files().items()):
            record = struct.pack("<IfQQ", 0, float(name[0]), key, 0) + content
            file.write(struct.pack("<II", MAGIC, len(record)) + record + b"\0" * (-len(record) % 4))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def as_tar(raw: Path) -> None:
    write_tar(raw / "faces.tar", files())


def as_webdataset(raw: Path) -> None:
    members: dict[str, bytes] = {}
    for name, content in files().items():
        stem = name.rpartition("/")[2].removesuffix(".jpg")
        members |= {f"{stem}.jpg": content, f"{stem}.cls": name[:1].encode()}
    write_tar(raw / "shard-0.tar", members)


def aligned(tmp_path: Path, lay: Callable[[Path], None]) -> Path:
    lay(tmp_path / "raw")
    out = tmp_path / "aligned"
    align(AlignConfig(raw=tmp_path / "raw", out=out, size=112, no_align=True))
    return out


def partition(result: EvaluateResult) -> dict[str, Any]:
    found: dict[str, Any] = result.summary()["models"][0]["partitions"]["all"]
    return found


def verify(tmp_path: Path, root: Path) -> dict[str, Any]:
    data = Dataset("faces", root)
    return partition(evaluate_verify(CONFIG, Workspace(tmp_path / "workspace", {}), data, data))


def counts(found: dict[str, Any]) -> tuple[int, ...]:
    return (found["genuine"], found["impostor"], *(found["failures"][key] for key in ("images", "genuine", "impostor")))


@pytest.mark.parametrize("lay", [as_tree, as_rec, as_tar, as_webdataset])
def test_whose_a_failed_image_is_is_known_of_trees_and_of_archives(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    root = aligned(tmp_path, lay)
    assert counts(verify(tmp_path, root)) == (7, 21, 1, 2, 6)
    if lay is as_tree:  # the manifest of an earlier version does not say where a face would have been
        manifest = root / "aligned.jsonl"
        lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        without = [{key: value for key, value in line.items() if key != "meant"} for line in lines]
        manifest.write_text("".join(json.dumps(line) + "\n" for line in without), encoding="utf-8")
        assert counts(verify(tmp_path, root)) == (7, 21, 1, 2, 6)


def test_an_image_of_nobody_knows_whom_is_no_subjects_and_makes_a_warning(tmp_path: Path) -> None:
    root = aligned(tmp_path, as_rec)
    manifest = root / "aligned.jsonl"
    lines = [json.loads(line) | {"meant": None} for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = Dataset("faces", root)
    result = evaluate_verify(CONFIG, Workspace(tmp_path / "workspace", {}), data, data)
    assert counts(partition(result)) == (7, 21, 1, 0, 0)
    assert [warning for warning in result.warnings if "1 of the images that could not be aligned" in warning]


def test_whose_a_failed_image_is_is_known_of_a_list(tmp_path: Path) -> None:
    root = aligned(tmp_path, as_rec)
    names = [f"{key // 3:07d}/{key:08d}.jpg" for key in range(9)]
    (root / names[5]).write_bytes(b"no image")
    listed = root / "faces.tsv"
    listed.write_text("".join(f"{name}\tperson {key % 2}\n" for key, name in enumerate(names)), encoding="utf-8")
    found = verify(tmp_path, listed)
    subjects = [key % 2 for key in range(9) if key != 5]
    genuine = sum(a == b for place, a in enumerate(subjects) for b in subjects[:place])
    assert counts(found) == (genuine, 28 - genuine, 1, 3, 5)


def test_a_failure_gives_its_reason_to_its_own_image_alone(tmp_path: Path) -> None:
    def lay(raw: Path) -> None:
        as_tree(raw)
        (raw / "1" / "12.png").write_bytes(jpeg(1, 2))  # beside 12.jpg, which cannot be read

    root = aligned(tmp_path, lay)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("1/12.png 1/11.jpg 1\n1/12.jpg 1/11.jpg 1\n1/12.png 0/00.jpg 0\n2/12.jpg 0/00.jpg 0\n")
    result = evaluate_pairs(CONFIG, Workspace(tmp_path / "workspace", {}), Dataset("faces", root), pairs)
    assert counts(partition(result)) == (1, 1, 2, 1, 1)
    assert result.set_aside is not None
    assert dict(line.split("\t") for line in result.set_aside.read_text(encoding="utf-8").splitlines()) == {
        "1/12.jpg": "not aligned: not an image of a known format",
        "2/12.jpg": "not among the images",
    }


def test_accuracy_and_eer_are_given_twice(tmp_path: Path) -> None:
    for subject in range(4):
        for number in (1, 2):
            image = tmp_path / "lfw" / f"P{subject}" / f"P{subject}_{number:04d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(jpeg(subject, number))
    (tmp_path / "lfw" / "P3" / "P3_0002.jpg").write_bytes(b"no image")
    lines = ["2\t2", "P0\t1\t2", "P1\t1\t2", "P0\t1\tP1\t1", "P0\t2\tP1\t2"]
    lines += ["P2\t1\t2", "P3\t1\t2", "P2\t1\tP3\t1", "P2\t2\tP3\t2"]
    listed = tmp_path / "pairs.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = evaluate_lfw(CONFIG, Workspace(tmp_path / "workspace", {}), Dataset("lfw", tmp_path / "lfw"), listed)
    found = partition(result)
    first, second = found["accuracy"]["folds"]
    assert found["failures"]["accuracy"]["folds"] == [first, second * 2 / 4]  # two of its four pairs are lost
    assert found["failures"]["accuracy"]["mean"] == (first + second / 2) / 2
    assert found["failures"]["eer"]["mid"] >= found["eer"]["mid"]
    shown = failures_table(result)
    assert shown is not None
    assert shown.header[-2:] == ["EER", "accuracy"]
    assert shown.rows[0][-1].startswith(f"{50 * (first + second / 2):.2f}")
    with (result.directory / "figures.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["measure"]: row["value_with_failures"] for row in csv.DictReader(file)}
    assert float(rows["accuracy"]) == found["failures"]["accuracy"]["mean"]
    assert float(rows["eer"]) == found["failures"]["eer"]["mid"]


def test_cmc_and_dir_are_given_twice_and_nobody_without_a_mate_left_is_a_stranger(tmp_path: Path) -> None:
    for side, numbers in (("gallery", [0]), ("probe", [1, 2])):
        for subject in range(5):
            for number in numbers:
                image = tmp_path / side / str(subject) / f"{number}.jpg"
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(jpeg(subject, number))
    (tmp_path / "gallery" / "4" / "0.jpg").unlink()  # subject 4 is a stranger
    (tmp_path / "gallery" / "3" / "0.jpg").write_bytes(b"no image")
    (tmp_path / "probe" / "0" / "1.jpg").write_bytes(b"no image")
    gallery, probe = (Dataset(name, tmp_path / name) for name in ("gallery", "probe"))
    result = evaluate_identify(CONFIG, Workspace(tmp_path / "workspace", {}), gallery, probe)
    found = partition(result)
    assert (found["probes"], found["without_mate"], found["failures"]["probes"]) == (5, 2, 3)
    assert found["failures"]["cmc"] == pytest.approx([rate * 5 / 8 for rate in found["cmc"]])
    point = found["open_set"]["0.5"]
    assert (point["budget"], found["failures"]["open_set"]["0.5"]["dir"]) == (1, pytest.approx(point["dir"] * 5 / 8))
    with (result.directory / "cmc.csv").open(newline="", encoding="utf-8") as file:
        assert [float(row["rate_with_failures"]) for row in csv.DictReader(file)] == found["failures"]["cmc"]
    shown = failures_table(result)
    assert shown is not None
    assert shown.header[-1] == "DIR @ FPIR 0.5"


SCORES = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


@given(genuine=SCORES, impostor=SCORES, failed=st.integers(0, 9))
def test_a_failed_genuine_comparison_is_rejected_at_every_threshold(
    genuine: list[int], impostor: list[int], failed: int
) -> None:
    lowest = np.append(np.array(genuine, float), np.full(failed, -np.inf))
    found = equal_error_rate(genuine, impostor, failed=failed)
    assert found == equal_error_rate(lowest, impostor)
    rates = [
        (np.mean(lowest <= threshold), np.mean(np.array(impostor) > threshold)) for threshold in [-9.0, *range(-4, 5)]
    ]
    assert any({found.low, found.high} == {float(frr), float(far)} for frr, far in rates)
    assert found.mid >= min(max(frr, far) for frr, far in rates) / 2


@given(
    pairs=st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=1, max_size=20),
    lost=st.lists(st.integers(0, 3), max_size=9),
)
def test_a_pair_that_could_not_be_compared_is_told_wrongly(pairs: list[tuple[int, bool, int]], lost: list[int]) -> None:
    scores, same, folds = map(np.array, zip(*pairs, strict=True))
    if len(np.unique(folds)) < 2:
        return
    made = fold_accuracy(scores, same, folds)
    found = with_failed_pairs(made, folds, np.array(lost, int))
    thresholds = dict(zip(np.unique(folds), made.thresholds, strict=True))
    for label, accuracy in zip(sorted({*map(int, folds), *lost}), found.folds, strict=True):
        here = folds == label
        right = np.count_nonzero((scores[here] > thresholds.get(label, 0)) == same[here])
        assert accuracy == pytest.approx(right / (np.count_nonzero(here) + lost.count(label)))
    assert found.mean == pytest.approx(np.mean(found.folds))
