"""What image files hold: a digest of each, remembered by inode and times, so that an unchanged tree is not read again.

A file that is written gets another status change time, which nobody can set back: as long as inode, size and both times
are the same, so are the bytes. This is relied upon where it holds, on local file systems. On network file systems, and
of files that changed in the last moments before they were read, every digest is made from the bytes each time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

from facedan_cli.workspace import make_directory

SETTLED_NS = 2_000_000_000
"""A file that changed less long ago may change again without another time: clocks of file systems tick so coarsely."""

LOCAL_SYSTEMS = frozenset(
    ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "reiserfs", "tmpfs", "xfs", "zfs"]
)
"""File systems that keep inodes and change times of their own, by the names of /proc/self/mountinfo."""

DIGEST_BYTES = 32

MISSING = b"no such file".ljust(DIGEST_BYTES, b"\0")
UNREADABLE = b"may not be read".ljust(DIGEST_BYTES, b"\0")
NO_FILE = b"no regular file".ljust(DIGEST_BYTES, b"\0")
"""Placeholders for missing digests; readers set such images aside."""

_TABLE = "CREATE TABLE IF NOT EXISTS files (file BLOB PRIMARY KEY, seal BLOB, digest BLOB) WITHOUT ROWID"
_OCTAL = re.compile(r"\\([0-7]{3})")
_FILES_AT_ONCE = 4096
_ASKED_AT_ONCE = 512
_CHUNK = 1 << 20
_THREADS = 8  # that read files


class Contents:
    """Digests of files, and the index that remembers them.

    New digests are held in memory until `keep` writes them. The index may be
    lost, damaged or not writable at any time: then files are read again.

    Args:
        index: an SQLite file; None: nothing is remembered.
    """

    def __init__(self, index: Path | None = None) -> None:
        self._index = index
        self._learnt: dict[bytes, bytes] = {}

    def digests(self, root: Path, paths: Iterable[str]) -> Iterator[bytes]:
        """SHA-256 of the bytes of each file, 32 bytes, in order; MISSING, UNREADABLE or NO_FILE where there is none.

        Args:
            root: a directory.
            paths: files, relative to it.
        """
        start = os.fspath(root)
        files = (os.path.join(start, path) for path in paths)
        with ThreadPoolExecutor(_THREADS) as pool:
            known = self._known()
            while chunk := list(islice(files, _FILES_AT_ONCE)):
                yield from self._of_chunk(chunk, known, pool)

    def keep(self) -> None:
        """Write the new digests to the index; no error if it cannot be written."""
        if self._index is None or not self._learnt:
            return
        for attempt in range(2):
            try:
                make_directory(self._index.parent)
                with closing(sqlite3.connect(self._index, timeout=30)) as database, database:
                    database.execute(_TABLE)
                    rows = ((file, *_parted(known)) for file, known in sorted(self._learnt.items()))
                    database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
                self._learnt.clear()
                return
            except (OSError, sqlite3.OperationalError):  # no room, not allowed, or in use for too long
                return
            except sqlite3.Error:  # damaged, or no database at all
                if attempt or not _removed(self._index):
                    return

    def _of_chunk(
        self, files: Sequence[str], known: Callable[[Sequence[bytes]], dict[bytes, bytes]], pool: ThreadPoolExecutor
    ) -> list[bytes]:
        found: list[bytes | None] = [None] * len(files)
        marks: dict[int, bytes] = {}
        seals: dict[int, Callable[[bytes], bytes]] = {}
        for row, file in enumerate(files):
            try:
                status = os.stat(file)
            except OSError as error:
                found[row] = _without(error)
                continue
            if not stat.S_ISREG(status.st_mode):
                found[row] = NO_FILE
            elif self._index is not None and is_local(status.st_dev, file):
                marks[row], seals[row] = mark_of(status), sealer(status)
        remembered = known(sorted(set(marks.values())))
        for row, mark in marks.items():
            seal, digest = _parted(self._learnt.get(mark) or remembered.get(mark) or b"")
            if len(digest) == DIGEST_BYTES and seals[row](digest) == seal:
                found[row] = digest
        missing = [row for row, digest in enumerate(found) if digest is None]
        for row, (digest, settled) in zip(missing, pool.map(digest_of, (files[row] for row in missing)), strict=True):
            found[row] = digest
            if row in marks and settled is not None:
                self._learnt[mark_of(settled)] = sealer(settled)(digest) + digest
        return [digest for digest in found if digest is not None]

    def _known(self) -> Callable[[Sequence[bytes]], dict[bytes, bytes]]:
        """The index's digests of the files with these marks; empty if it cannot be read."""
        if self._index is None or not self._index.is_file():
            return lambda marks: {}
        place = self._index

        def ask(marks: Sequence[bytes]) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = {}
            try:
                with closing(sqlite3.connect(place.absolute().as_uri() + "?mode=ro", uri=True, timeout=30)) as database:
                    for start in range(0, len(marks), _ASKED_AT_ONCE):
                        asked = marks[start : start + _ASKED_AT_ONCE]
                        holes = ",".join("?" * len(asked))
                        rows = database.execute(f"SELECT file, seal, digest FROM files WHERE file IN ({holes})", asked)
                        found |= {file: seal + digest for file, seal, digest in rows if _are_bytes(file, seal, digest)}
            except (OSError, sqlite3.Error):
                return {}
            return found

        return ask


@cache
def contents_at(index: Path) -> Contents:
    """The digests that are remembered in a file: one for the whole process."""
    return Contents(index)


def contents_of(workspace: Path) -> Contents:
    """The digests that a workspace remembers, in its cache."""
    return contents_at(Path(os.path.abspath(workspace / "cache" / "contents.sqlite")))


def digest_of(file: str | Path) -> tuple[bytes, os.stat_result | None]:
    """SHA-256 of a file's bytes, or what stands for it; and the file's status where that can be relied upon.

    The status is of before the reading and the same afterwards, and its times lie back so far that a change would show.
    """
    try:
        began = time.time_ns()
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _without(error), None
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            return NO_FILE, None
        hasher = hashlib.sha256()
        while chunk := os.read(handle, _CHUNK):
            hasher.update(chunk)
        settled = is_settled(before, began) and _facts(before) == _facts(os.fstat(handle))
        return hasher.digest(), before if settled else None
    except OSError:
        return UNREADABLE, None
    finally:
        os.close(handle)


def is_settled(status: os.stat_result, now: int) -> bool:
    """Whether a later change of a file would show in its times.

    Args:
        status: of the file.
        now: when that was asked for, nanoseconds since 1970.
    """
    return max(status.st_ctime_ns, status.st_mtime_ns) < now - SETTLED_NS


def is_local(device: int, file: str) -> bool:
    """Whether the file system of a device keeps inodes and change times that tell of every change.

    Args:
        device: `st_dev` of the file.
        file: of the device; not every file system has its device's number in the list of mounts.
    """
    return _system(device) in LOCAL_SYSTEMS if _system(device) else _system_at(device, os.path.dirname(file))


def mark_of(status: os.stat_result) -> bytes:
    """Which file this is, 16 bytes: a tree that is moved on its disk keeps them."""
    return hashlib.blake2b(b"%d %d" % (status.st_dev, status.st_ino), digest_size=16).digest()


def sealer(status: os.stat_result) -> Callable[[bytes], bytes]:
    """Binds a digest to the file's status, 16 bytes: of another status, or a damaged digest, the seal is another."""
    facts = _facts(status)
    return lambda digest: hashlib.blake2b(b"%d %d %d %d " % facts + digest, digest_size=16).digest()


def _facts(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _parted(known: bytes) -> tuple[bytes, bytes]:
    return known[:16], known[16:]


def _are_bytes(*values: object) -> bool:
    return all(isinstance(value, bytes) for value in values)


def _without(error: OSError) -> bytes:
    return MISSING if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) else UNREADABLE


def _removed(index: Path) -> bool:
    try:
        for path in (index, index.with_name(index.name + "-journal")):
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _mounts() -> list[tuple[str, str, str]]:
    """Device, place and type of each mounted file system; none where the system does not tell."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [(line[2], _OCTAL.sub(_character, line[4]), line[line.index("-") + 1]) for line in lines]


def _character(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))


@lru_cache(4096)
def _system(device: int) -> str:
    name = f"{os.major(device)}:{os.minor(device)}"
    return next((kind for number, _, kind in _mounts() if number == name), "")


@lru_cache(1 << 16)
def _system_at(device: int, folder: str) -> bool:
    """By the nearest mount above a folder, where the device is not in the list: subvolumes of btrfs, layers."""
    here = os.path.realpath(folder)
    above = [(place, kind) for _, place, kind in _mounts() if os.path.commonpath([place, here]) == place]
    return bool(above) and max(above, key=lambda mount: len(mount[0]))[1] in LOCAL_SYSTEMS
