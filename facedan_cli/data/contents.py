"""Digests of image files, indexed by inode and times, so that an unchanged tree is not read again.

Writing to a file changes its ctime, which nobody can set back: while inode, size, mtime and ctime are the same, so are
the bytes. This holds on local file systems. On network file systems, and for files that changed moments before they
were read, the digest is computed from the bytes each time.
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
"""Age from which a further change of a file shows in its times; the clocks of file systems are coarse."""

LOCAL_SYSTEMS = frozenset(
    ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "reiserfs", "tmpfs", "xfs", "zfs"]
)
"""File systems with reliable inodes and ctimes, by the names in /proc/self/mountinfo."""

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
_THREADS = 8  # for reading files


class Contents:
    """Digests of files, with an index of known ones.

    New digests stay in memory until `keep` writes them. If the index is lost, damaged or not writable, the files are
    read again.

    Args:
        index: an SQLite file; None: no index.
    """

    def __init__(self, index: Path | None = None) -> None:
        self._index = index
        self._learnt: dict[bytes, bytes] = {}

    def digests(self, root: Path, paths: Iterable[str]) -> Iterator[bytes]:
        """Yield the SHA-256 of each file, 32 bytes, in order; MISSING, UNREADABLE or NO_FILE if it has none.

        Args:
            root: the directory.
            paths: paths of the files, relative to `root`.
        """
        start = os.fspath(root)
        files = (os.path.join(start, path) for path in paths)
        with ThreadPoolExecutor(_THREADS) as pool:
            known = self._known()
            while chunk := list(islice(files, _FILES_AT_ONCE)):
                yield from self._of_chunk(chunk, known, pool)

    def keep(self) -> None:
        """Write the new digests to the index; errors are ignored."""
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
        """The function that looks up digests in the index by the marks of files; it finds none without an index."""
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
    """The digests with this index, one object for the whole process."""
    return Contents(index)


def contents_of(workspace: Path) -> Contents:
    """The digests with the index in a workspace's cache."""
    return contents_at(Path(os.path.abspath(workspace / "cache" / "contents.sqlite")))


def digest_of(file: str | Path) -> tuple[bytes, os.stat_result | None]:
    """SHA-256 of a file or its placeholder, and the file's status; None instead of a status that is not reliable.

    A reliable status is the same before and after the reading, with times so old that a change would show.
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
        status: status of the file.
        now: time before the status was read, nanoseconds since 1970.
    """
    return max(status.st_ctime_ns, status.st_mtime_ns) < now - SETTLED_NS


def is_local(device: int, file: str) -> bool:
    """Whether a file's file system keeps inodes and ctimes that show every change.

    Args:
        device: `st_dev` of the file.
        file: the file, whose path is used where the device is not in the list of mounts.
    """
    return _system(device) in LOCAL_SYSTEMS if _system(device) else _system_at(device, os.path.dirname(file))


def mark_of(status: os.stat_result) -> bytes:
    """The key of a file in the index, 16 bytes, from device and inode; files that are moved on one disk keep it."""
    return hashlib.blake2b(b"%d %d" % (status.st_dev, status.st_ino), digest_size=16).digest()


def sealer(status: os.stat_result) -> Callable[[bytes], bytes]:
    """The function that makes the seal of a digest, 16 bytes; another status or digest gives another seal."""
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
    """Device, mount point and type of each mounted file system; empty if unknown."""
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
    """Whether the nearest mount above a folder is local, for devices that no mount lists (btrfs subvolumes, layers)."""
    here = os.path.realpath(folder)
    above = [(place, kind) for _, place, kind in _mounts() if os.path.commonpath([place, here]) == place]
    return bool(above) and max(above, key=lambda mount: len(mount[0]))[1] in LOCAL_SYSTEMS
