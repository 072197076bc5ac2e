"""Files that others wrote, damaged at random: each reader gives a result, or an error of the tool's own."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from pyarrow import table
from pyarrow.parquet import write_table
from safetensors.torch import save_file

from facedan_cli.alignment.index import ManifestIndex
from facedan_cli.alignment.landmarks import read_landmarks
from facedan_cli.alignment.recordio import rec_images
from facedan_cli.alignment.source_image import SourceImage
from facedan_cli.alignment.tar import tar_images
from facedan_cli.data.images import UnreadableImage, read_image
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.errors import FacedanError
from facedan_cli.models.checkpoint import load_pcanet, read_card
from facedan_cli.models.pretrained.state_dict import read_state_dict
from facedan_cli.onnx_graph import Recogniser, output_of, preprocessing_of, read_graph
from facedan_cli.protocols.bee import read_matrix, write_matrix
from facedan_cli.protocols.embeddings import read_embeddings
from facedan_cli.protocols.feret import read_feret
from facedan_cli.protocols.pairs import read_pairs
from facedan_cli.protocols.scores import read_scores
from facedan_cli.protocols.sigset import read_sigset

ROUNDS = 60
NUMBERS = (b"0", b"-1", b"99999999999", b"9" * 5000, b"1e400", b"nan", b"\xff\xff\xff\xff\x7f", b"\0" * 8, b"../")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with one to three changes."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        until = min(len(content), at + rng.choice((1, 1, 4, 8, 40)))
        change = rng.randrange(6)
        if change == 0:
            content = content[:at]
        elif change == 1:
            content = content[:at] + rng.randbytes(until - at) + content[until:]
        elif change == 2:
            content = content[:at] + rng.choice(NUMBERS) + content[until:]
        elif change == 3:
            content = content[:at] + content[at:until] * rng.choice((0, 2, 500)) + content[until:]
        elif change == 4:
            content = content[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) + content[at + 1 :]
        else:
            other = rng.randrange(len(content) + 1)
            content = content[:at] + content[other : other + 512] + content[at:]
    return content


def image_file() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def tar(mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
        for name, content in (("anna/1.png", image_file()), ("anna/1.cls", b"7"), ("b" * 120 + "/2.png", b"x" * 600)):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            header = tarfile.TarInfo(f"anna/{kind.decode()}.png")
            header.type, header.linkname = kind, "anna/1.png" if kind == tarfile.LNKTYPE else "1.png"
            archive.addfile(header)
    return file.getvalue()


def rec() -> bytes:
    magic = (0xCED7230A).to_bytes(4, "little")
    record = (0).to_bytes(4, "little") + np.float32(1).tobytes() + bytes(16) + b"abcd"
    whole = magic + len(record).to_bytes(4, "little") + record
    parts = b"".join(magic + (flag << 29 | 28).to_bytes(4, "little") + record for flag in (1, 2, 3))
    return whole + parts + whole


def manifest() -> bytes:
    facts = {"output": "a/1.jpg", "status": "aligned", "points": {"image_left_eye": (1.0, 2.0)}}
    facts |= {"box": (1.0, 2.0, 3.0, 4.0), "transform": ((1.0, 0.0, 2.0), (0.0, 1.0, 2.0))}
    record = AlignedRecord(path="a/1.png", template="lfw", size=64, bytes=5, modified=9, **facts)
    return record.to_line().encode() * 3


def sigset() -> bytes:
    signature = (
        '<biometric-signature name="S{0}"><presentation name="p{0}" file-name="d/{0}.jpg"/></biometric-signature>'
    )
    signatures = "".join(signature.format(number) for number in range(3))
    return f"<?xml version='1.0'?><biometric-signature-set>{signatures}</biometric-signature-set>".encode()


def matrix(place: Path) -> bytes:
    write_matrix(place / "m.mtx", np.zeros((2, 3), np.float32), "q.xml", "t.xml")
    return (place / "m.mtx").read_bytes()


def checkpoint(place: Path) -> bytes:
    card = {"model": "vggface-mini", "identities": ["a", "b"], "stage": "pretrain", "run": "r", "config": {}}
    save_file({"projection": torch.zeros(2, 3)}, place / "c", metadata={"facedan": json.dumps(card)})
    return (place / "c").read_bytes()


def state_dict(place: Path, *, legacy: bool) -> bytes:
    torch.save({"a": torch.zeros(2, 3)}, place / "s", _use_new_zipfile_serialization=not legacy)
    return (place / "s").read_bytes()


def npz(place: Path) -> bytes:
    np.savez_compressed(place / "e.npz", paths=["a/1.jpg", "a/2.jpg"], vectors=np.ones((2, 3), np.float32))
    return (place / "e.npz").read_bytes()


def parquet(place: Path) -> bytes:
    write_table(table({"path": ["a/1.jpg", "a/2.jpg"], "vector": [[1.0, 2.0], [3.0, 4.0]]}), place / "e.parquet")
    return (place / "e.parquet").read_bytes()


def npy(_: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((2, 3), np.float32))
    return file.getvalue()


def graph(_: Path) -> bytes:
    weights = numpy_helper.from_array(np.ones((8, 3, 4, 4), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], strides=[4, 4]), helper.make_node("Flatten", ["c"], ["y"])]
    ends = [helper.make_tensor_value_info(*one) for one in (("x", 1, ["b", 3, 16, 16]), ("y", 1, ["b", 128]))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights]), ir_version=9)
    return bytes(model.SerializeToString())


def features(path: Path) -> None:
    found = read_graph(path)
    how = preprocessing_of(found)
    if max(how.size) < 1000:
        recogniser = Recogniser(found, how, output_of(found, None), torch.device("cpu"))
        recogniser(np.zeros((2, *how.size, 3), np.uint8))


def vectors_beside_table(path: Path) -> None:
    (path.parent / "images.csv").write_text("row,path,identity\n0,a/1.jpg,a\n1,a/2.jpg,a\n", encoding="utf-8")
    np.asarray(read_embeddings(path.parent).vectors).sum()


def take(found: Iterable[SourceImage]) -> None:
    """Read the images of an archive, as align does."""
    for number, one in enumerate(found):
        assert number < 10_000
        with suppress(UnreadableImage):
            read_image(one.open())


def feret(path: Path) -> None:
    lists = path.parent / "feret"
    lists.mkdir(exist_ok=True)
    for name in ("feret_gallery.srt", "fafb.srt", "fafc.srt", "dup1.srt", "dup2.srt"):
        (lists / name).write_bytes(path.read_bytes())
    read_feret(lists, any_lists=True)


LINES = b"00001fa010_930831.tif 00002fa010_930831.tif\n00003fa010_930831.tif\n"
PAIRS = b"10 1\n" + b"anna 1 2\nanna 1 bo 2\n" * 10
INDEX = b"0\t0\n1\t36\n2\t144\n"
READERS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "tar": ("x.tar", lambda _: tar(), lambda path: take(tar_images(path, "x"))),
    "gnu tar": ("x.tar", lambda _: tar(form=tarfile.GNU_FORMAT), lambda path: take(tar_images(path, "x"))),
    "tar.gz": ("x.tar.gz", lambda _: tar("w:gz"), lambda path: take(tar_images(path, "x"))),
    "tar.xz": ("x.tar.xz", lambda _: tar("w:xz"), lambda path: take(tar_images(path, "x"))),
    "rec": ("x.rec", lambda _: rec(), lambda path: take(rec_images(path, "x"))),
    "idx": (
        "y.idx",
        lambda _: b"0\t0\n1\t36\n2\t144\n",
        lambda path: take(rec_images(path.with_suffix(".rec"), "y")),
    ),
    "image": ("x.png", lambda _: image_file(), read_image),
    "manifest": ("aligned.jsonl", lambda _: manifest(), ManifestIndex),
    "sigset": ("x.xml", lambda _: sigset(), read_sigset),
    "matrix": ("x.mtx", matrix, read_matrix),
    "feret": ("x.srt", lambda _: LINES, feret),
    "pairs": ("pairs.txt", lambda _: PAIRS, read_pairs),
    "plain pairs": ("pairs.csv", lambda _: b'a,b,1\n"c,d",e,0\n', read_pairs),
    "scores": ("x.txt", lambda _: b"1 0.5\n0 0.25\n" * 9, read_scores),
    "packed scores": ("x.gz", lambda _: gzip.compress(b"a b p 0.5\na a p 0.25\n" * 9), read_scores),
    "npz": ("x.npz", npz, read_embeddings),
    "parquet": ("x.parquet", parquet, read_embeddings),
    "onnx": ("x.onnx", graph, features),
    "npy": ("vectors.npy", npy, vectors_beside_table),
    "landmarks": (
        "eyes.csv",
        lambda _: b"path,righteyex,righteyey,lefteyex,lefteyey\na.jpg,1,2,3,4\n",
        lambda path: read_landmarks(path, path.parent),
    ),
    "checkpoint": ("x.safetensors", checkpoint, read_card),
    "pcanet": ("x.safetensors", checkpoint, load_pcanet),
    "state dict": ("x.pth", lambda place: state_dict(place, legacy=False), read_state_dict),
    "old state dict": ("x.pth", lambda place: state_dict(place, legacy=True), read_state_dict),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_gives_a_result_or_an_error_of_the_tools_own(tmp_path: Path, name: str) -> None:
    file, make, read = READERS[name]
    whole = make(tmp_path)
    path = tmp_path / file
    (tmp_path / "y.rec").write_bytes(rec())
    rng = random.Random(name)
    for number in range(ROUNDS):
        path.write_bytes(mutated(whole, rng) if number else whole)
        with suppress(FacedanError, UnreadableImage):
            read(path)


@pytest.mark.parametrize("depth", [200, 100_000])
@pytest.mark.parametrize("name", ["manifest", "checkpoint", "sigset"])
def test_deep_nesting_ends_in_no_other_error(tmp_path: Path, name: str, depth: int) -> None:
    file, _, read = READERS[name]
    path = tmp_path / file
    deep = "[" * depth + "]" * depth
    if name == "checkpoint":
        save_file({"a": torch.zeros(1)}, path, metadata={"facedan": deep})
    elif name == "sigset":
        path.write_text("<biometric-signature-set>" + "<a>" * depth + "</a>" * depth + "</biometric-signature-set>")
    else:
        path.write_text(deep + "\n")
    with suppress(FacedanError):
        read(path)


@pytest.mark.parametrize("name", ["tar", "tar.gz", "rec", "idx", "manifest", "matrix", "scores"])
def test_memory_is_bounded_by_the_file(tmp_path: Path, name: str) -> None:
    file, make, read = READERS[name]
    whole = make(tmp_path)
    path = tmp_path / file
    (tmp_path / "y.rec").write_bytes(rec())
    rng = random.Random(f"memory {name}")
    path.write_bytes(whole)
    read(path)  # what is loaded once counts for none
    for _ in range(20):
        path.write_bytes(mutated(whole, rng))
        tracemalloc.start()
        with suppress(FacedanError, UnreadableImage):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000 + 100 * path.stat().st_size


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_is_read_as_the_librarys_reader_reads_it(tmp_path: Path, form: int) -> None:
    rng = random.Random(form)
    for number in range(20):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            for index in range(rng.randint(0, 6)):
                long = rng.choice((1, 30, 80) if form == tarfile.USTAR_FORMAT else (1, 99, 100, 101, 155, 300))
                name = f"{index}ü"[: rng.randint(1, 2)] + "d" * (long // 2) + "/" + "n" * (long // 2 + 1) + ".jpg"
                header = tarfile.TarInfo(name)
                header.mtime = rng.choice((0, 1_600_000_000, 1 << 32))
                header.size = rng.choice((0, 1, 511, 512, 513, 2000))
                archive.addfile(header, io.BytesIO(rng.randbytes(header.size)))
        with tarfile.open(path) as archive:
            contents = {one.name: archive.extractfile(one) for one in archive}
            last = {
                name: (one.size, int(one.mtime), content.read())
                for name, content in contents.items()
                if content and (one := archive.getmember(name))
            }
        found = {one.path[2:]: (one.size, one.modified, one.read()) for one in tar_images(path, "x") if one.name}
        assert found == last
