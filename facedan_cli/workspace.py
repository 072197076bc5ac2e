"""The workspace: paths of data sets, runs, embeddings and results, and safe writing of files.

Torch-free. Every file is written to a temporary name beside it, synced and renamed: a reader never meets half a file,
not even after a power cut.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedan_cli.errors import FacedanError, UsageError, did_you_mean
from facedan_cli.spreadsheet import csv_lines
from facedan_cli.text import open_given, read_text

SETTINGS_FILE = "facedan.toml"
MANIFEST_FILE = "aligned.jsonl"

_TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp(\.[^.]*)?", re.DOTALL)
"""Pattern of the names of unfinished files, with the process that writes them."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` at the end, or removed after an error."""
    make_directory(path.parent)
    # The last suffix is kept in last place, for writers that choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    sweep(path.parent, f".{path.stem}.", f".tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # a writer may have put a file in its place that only the owner can read
        _sync(temporary)  # a power cut must not leave the name without the bytes
        os.replace(temporary, path)
        with suppress(OSError):  # not every file system syncs directories
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(directory: Path, before: str = ".", after: str = "") -> None:
    """Remove temporary files of `replacing` that killed processes left in a directory.

    Args:
        directory: directory of the files.
        before: beginning of their names,
        after: and what they end in.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found and entry.name.startswith(before) and entry.name.endswith(after) and _is_gone(int(found[1])):
                os.unlink(entry.path)


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _sync(path: Path) -> None:
    """Flush a file's content, or a directory's list of files, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(directory: Path) -> None:
    """Make a directory and its parents at any depth; `Path.mkdir` nests a call for each."""
    missing = []
    while not directory.exists() and directory != directory.parent:
        missing.append(directory)
        directory = directory.parent
    for each in (directory, *reversed(missing)):
        each.mkdir(exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; names that are not UTF-8 keep their bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(as_bytes(text))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; bytes that are not UTF-8 become escaped surrogates."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())


def as_bytes(text: str) -> bytes:
    """A text in UTF-8, in which file names keep bytes that are not UTF-8."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no file name gives
        return text.encode(errors="surrogatepass")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV, whole or not at all; `spreadsheet.read_csv` reads it back."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        file.writelines(csv_lines(header, rows))


def write_set_aside(path: Path, rows: Iterable[tuple[str, str]]) -> Path | None:
    """Write the list of inputs set aside, a line `path<TAB>reason` each; without rows the file is removed.

    Returns:
        The path, or None where nothing was set aside.
    """
    lines = ["\t".join(map(on_one_line, row)) + "\n" for row in rows]
    if not lines:
        path.unlink(missing_ok=True)
        return None
    write_text(path, "".join(lines))
    return path


def on_one_line(name: str) -> str:
    """A name without tabs and line ends, as in set-aside.tsv."""
    return " ".join(name.splitlines()).replace("\t", " ")


def read_set_aside(path: Path | None) -> dict[str, str]:
    """The reason of each path in a list of `write_set_aside`; paths are as by `on_one_line`."""
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return {name: reason for name, _, reason in (line.partition("\t") for line in lines)}


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Lock a directory for this process; the system releases the lock when the process ends.

    Args:
        directory: made where it does not exist.
        what: name of the directory for the message to a second process ("the run pretrain-casia-1a2b3c4d").

    Raises:
        FacedanError: another process holds it.
    """
    make_directory(directory)
    with (directory / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise FacedanError(f"{what} is in use by {holder}", "wait for it, or stop it") from error
        sweep(directory)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open_given(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex; equal values have equal digests on every machine."""
    return hashlib.sha256(as_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A named tree (or list file) of images."""

    name: str
    root: Path


@dataclass(frozen=True)
class Workspace:
    """A directory with the layout of the README; its parts need not exist yet."""

    root: Path
    datasets: Mapping[str, str]

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """The workspace at `root`, with the data sets that its facedan.toml names.

        Raises:
            UsageError: it is no directory, or facedan.toml is not as it should be.
        """
        if root.exists() and not root.is_dir():
            raise UsageError(f"the workspace {root} is not a directory", "give --workspace a directory")
        return cls(root, read_settings(root / SETTINGS_FILE).get("datasets", {}))

    def dataset(self, name: str) -> Dataset:
        """Find a data set by path, by its name in [datasets], or as aligned/NAME.

        Raises:
            UsageError: there is none; the message names the near ones.
        """
        if name in self.datasets:
            root = self.root / Path(self.datasets[name]).expanduser()
            if root.exists():
                return Dataset(name, root)
            raise UsageError(
                f"the data set '{name}' should be at {root}, but nothing is there",
                f"correct [datasets] in {self.root / SETTINGS_FILE}",
            )
        is_path = os.sep in name or name in (".", "..")
        aligned = self.root / "aligned" / name
        if not is_path and aligned.is_dir():
            return Dataset(name, aligned)
        path = Path(name).expanduser()
        if path.is_fifo():
            return Dataset("pipe", path)
        if path.exists() and (is_path or path.is_dir() or path.suffix):
            return Dataset(path.resolve().stem if path.is_file() else path.resolve().name, path)
        if is_path:
            raise UsageError(f"the data set {name} does not exist", "check the path")
        hint = did_you_mean(name, self.dataset_names(), of="known data sets")
        raise UsageError(
            f"there is no data set '{name}': it is neither in [datasets] of {SETTINGS_FILE} nor at {aligned}",
            f"{hint}; images become a data set by `facedan align RAW {self.root / 'aligned'}`",
        )

    def dataset_names(self) -> list[str]:
        """The names of data sets in this workspace."""
        aligned = self.root / "aligned"
        found = {entry.name for entry in aligned.iterdir() if entry.is_dir()} if aligned.is_dir() else set()
        return sorted({name for name in found if not name.startswith(".")} | set(self.datasets))

    def protocol(self, name: str) -> Path:
        """The directory with the files of a protocol."""
        return self.root / "protocols" / name

    def run_directory(self, stage: str, datasets: Iterable[str], identity: str, digits: int = 8) -> Path:
        """The directory of a run with this identity, a digest of configuration and inputs."""
        return self.root / "runs" / "-".join([stage, *datasets, identity[:digits]])

    def embedding_directory(self, dataset: str, identity: str) -> Path:
        """The directory of a data set's embeddings by one model."""
        return self.root / "embeddings" / f"{dataset}-{identity[:8]}"

    def result_directory(self, protocol: str, identity: str) -> Path:
        """The directory of a protocol's results."""
        return self.root / "results" / f"{protocol}-{identity[:8]}"


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the workspace's facedan.toml; empty without the file.

    Raises:
        UsageError: it is not valid TOML, a key stands in no section, or [datasets] does not map names to paths.
    """
    try:
        settings = tomllib.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply", "correct the file") from error
    except (tomllib.TOMLDecodeError, FacedanError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "correct the file") from error
    for name, section in settings.items():
        if not isinstance(section, dict):
            raise UsageError(f"'{name}' in {path} stands in no section", "write it below [pretrain] or another command")
    datasets = settings.get("datasets", {})
    if not all(isinstance(value, str) for value in datasets.values()):
        raise UsageError(f"[datasets] in {path} must map names to paths", 'write lines such as casia = "/data/casia"')
    for name in datasets:
        if not name.strip() or not name.isprintable() or os.sep in name or name.startswith("."):
            raise UsageError(
                f"[datasets] in {path} has a data set called {name!r}, which can be no part of a file's name",
                "call it something without slashes, line breaks and a dot at its beginning",
            )
    return settings


def find_manifest(root: Path) -> Path | None:
    """The aligned.jsonl of the images below `root`: the one in it or in the nearest directory above."""
    root = root.resolve()
    for directory in (root, *root.parents):
        if (directory / MANIFEST_FILE).is_file():
            return directory / MANIFEST_FILE
    return None
