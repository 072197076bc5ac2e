"""A workspace of drawn faces on which the whole path runs in seconds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from facedan_cli.config.training import AdaptConfig, PretrainConfig
from facedan_cli.data.manifest import ALIGNED, AlignedRecord
from facedan_cli.protocols.gbu import PARTITIONS, sigset_name
from facedan_cli.protocols.sigset import Record, write_sigset
from facedan_cli.report import Advance, Report
from facedan_cli.runs import Run
from facedan_cli.synthetic.render import STUDIO, WEB, Style, draw_identity, draw_view, render
from facedan_cli.training import bandwidths
from facedan_cli.workspace import MANIFEST_FILE

SIZE = 72  # what vggface-mini reads: nothing is scaled
SETTINGS = """\
[pretrain]
model = "vggface-mini"
iterations = 6
batch = 8
log_every = 1

[adapt]
iterations = 5
batch = 6
log_every = 1
"""
PRETRAIN = PretrainConfig(source="casia", model="vggface-mini", iterations=6, batch=8, log_every=1)
ADAPT = AdaptConfig(source="casia", target="frgc", iterations=5, batch=6, log_every=1)


def draw(path: Path, identity: int, image: int, *, style: Style = WEB, size: int = SIZE) -> None:
    """Write image number `image` of an identity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    view = draw_view(np.random.default_rng((identity, image)), style)
    face = render(draw_identity(np.random.default_rng(identity)), view, size)
    assert cv2.imwrite(str(path), face[:, :, ::-1])


def draw_datasets(root: Path, *, size: int = SIZE, identities: int = 4) -> None:
    """`casia` in folders of identities, `frgc` in one heap, `gbu` named by its sigsets; no identity is in two."""
    for identity in range(identities):
        for image in range(4):
            draw(root / "casia" / f"person{identity}" / f"{image}.png", identity, image, size=size)
            draw(root / "frgc" / f"{100 + identity}_{image}.png", 100 + identity, image, style=STUDIO, size=size)
        for image in range(6):
            draw(root / "gbu" / f"{identity:05d}d{image}.png", 200 + identity, image, style=STUDIO, size=size)


def mark_aligned(root: Path, template: str = "vggface", *, size: int = SIZE, fitted: int | None = None) -> None:
    """Say of the faces below a directory, as `align` does, that they are aligned to a template."""
    how = {"template": template, "size": size, "fitted": fitted}
    record = AlignedRecord(path="x.jpg", output="x.jpg", status=ALIGNED, bytes=1, modified=1, **how)
    (root / MANIFEST_FILE).write_text(record.to_line(), encoding="utf-8")


def not_of_alignment(warnings: Iterable[str]) -> list[str]:
    """Those that do not say that nothing is known of how faces are aligned, as of all drawn ones."""
    return [warning for warning in warnings if not warning.startswith("no aligned.jsonl")]


def write_gbu(directory: Path, *, identities: int = 4) -> None:
    """The six sigsets of `gbu`: one image of each identity in each."""
    sets = [(partition, side) for partition in PARTITIONS for side in ("Target", "Query")]
    for image, (partition, side) in enumerate(sets):
        records = [Record(f"S{identity}", f"2008/{identity:05d}d{image}.jpg") for identity in range(identities)]
        write_sigset(directory / sigset_name(partition, side), records)


def make_workspace(root: Path) -> None:
    """Aligned faces, protocol and settings."""
    draw_datasets(root / "aligned")
    write_gbu(root / "protocols" / "gbu")
    (root / "facedan.toml").write_text(SETTINGS, encoding="utf-8")


BLANK = {"png": b"\x89PNG", "svg": b'<?xml version="1.0"?><svg viewBox="0 0 72 72"></svg>', "pdf": b"%PDF"}


@contextmanager
def savings() -> Iterator[None]:
    """What takes longest is done at its smallest, but for its own tests.

    Figures are neither laid out nor drawn: the file of each holds no more than what its format begins with. The
    bandwidth is measured on as many images as a tiny domain has.
    """

    def save(_: Figure, path: Path, **how: Any) -> None:
        Path(path).write_bytes(BLANK[how["format"]])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        patched.setattr(Figure, "draw_without_rendering", lambda _: None)
        patched.setattr(bandwidths, "BANDWIDTH_SAMPLE", 16)
        yield


class Notes(Report):
    """Keeps what it is told, and may stop the training after a step as SIGTERM does."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, label: str, total: int | None, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        def advance(count: int, status: str) -> None:
            nonlocal done
            done += count
            if label == "training" and done == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        yield advance


def weights(made: Run) -> dict[str, Any]:
    """The tensors of a run's checkpoint."""
    from safetensors.torch import load_file

    return load_file(made.checkpoint)


def same(one: Run, other: Run) -> bool:
    """Whether two runs gave the same network, to the bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(bool((a[key] == b[key]).all()) for key in a)


def metrics(made: Run) -> list[dict[str, Any]]:
    """The lines of a run's log, without what depends on the machine's speed."""
    lines = made.log.read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]
