"""Writing of aligned faces, and their records for the manifest."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facedan_cli.alignment.plan import Job
from facedan_cli.alignment.target import Target
from facedan_cli.config.common import AlignConfig
from facedan_cli.data.manifest import ALIGNED, FAILED, AlignedRecord, leads_outside
from facedan_cli.workspace import make_directory

JPEG_QUALITY = 95

_UNUSABLE_NAMES = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EXDEV}


@dataclass(frozen=True)
class Output:
    """Writes faces into the aligned tree and returns their records; several workers may share it.

    Args:
        config: configuration with the aligned tree.
        target: template and size that the records name.
    """

    config: AlignConfig
    target: Target

    def aligned(self, job: Job, face: np.ndarray | bytes, **facts: Any) -> AlignedRecord:
        """Write a face (RGB pixels or a JPEG file) and return its record, a failure if its name cannot be used."""
        try:
            _replace(self.config.out, job.output, face if isinstance(face, bytes) else _encode(face))
        except OSError as error:
            if error.errno not in _UNUSABLE_NAMES:
                raise
            reason = f"its face cannot be {job.output}: {error.strerror}"
            return self._record(job, status=FAILED, reason=reason, meant=job.output)
        if job.replaced:
            _remove(self.config.out, job.replaced)
        return self._record(job, status=ALIGNED, output=job.output, **facts)

    def failed(self, job: Job, reason: str, **facts: Any) -> AlignedRecord:
        """The record of an image without a face."""
        for name in filter(None, (job.output, job.replaced)):
            # An earlier run may have written a face.
            _remove(self.config.out, name)
        return self._record(job, status=FAILED, reason=reason, meant=job.output or None, **facts)

    def _record(self, job: Job, **facts: Any) -> AlignedRecord:
        return AlignedRecord(
            path=job.image.path,
            template=self.target.template,
            size=self.target.size,
            bytes=job.image.size,
            modified=job.image.modified,
            changed=job.image.state[0] if job.image.state else None,
            inode=job.image.state[1] if job.image.state else None,
            digest=job.digest,
            **facts,
        )


def _encode(face: np.ndarray) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), quality)
    return encoded.tobytes()


def _inside(root: Path, name: str) -> Path:
    """The path of a face in the tree, which may hold foreign links.

    Raises:
        OSError: a link leads out of the tree.
    """
    if leads_outside(root, name):
        raise OSError(errno.EXDEV, "a link leads out of the aligned tree")
    return root / name


def _replace(root: Path, name: str, content: bytes) -> None:
    """Write a file in one step, whole or not at all.

    Unlike `workspace.replacing`, the temporary file has the same name in each run that writes this face, so that killed
    runs leave no files behind.
    """
    path = _inside(root, name)
    temporary = path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
        except FileNotFoundError:
            make_directory(path.parent)
            temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove(root: Path, name: str) -> None:
    try:
        _inside(root, name).unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _UNUSABLE_NAMES:
            raise
