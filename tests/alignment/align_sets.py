"""Images for tests of whole alignments, with known eyes, so that little work is left for the networks."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

HEADER = "path,righteyex,righteyey,lefteyex,lefteyey\n"


def draw_set(root: Path, images: int, *, side: int = 120) -> None:
    """Write root/raw with so many images in folders of ten, and their eyes to root/eyes.csv."""
    lines = []
    for number in range(images):
        name = f"p{number // 10:03d}/{number % 10}.png"
        (root / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "raw" / name), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
        lines.append(f"{name},{side / 3},{side / 2 + number % 7},{side / 1.5},{side / 2}\n")
    (root / "eyes.csv").write_text(HEADER + "".join(lines))


def made(out: Path) -> dict[str, bytes]:
    """What an alignment made: the files, and the lines of the manifest whatever their order.

    Without what the quick check goes by: it is kept of images alone that were not written a moment before.
    """
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
    lines = re.sub(rb'"(changed|inode)": \w+, ', b"", files["aligned.jsonl"]).splitlines(keepends=True)
    return files | {"aligned.jsonl": b"".join(sorted(lines))}
