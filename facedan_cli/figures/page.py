"""An evaluation's page: one HTML file with everything inside, that needs no network, no script and no font."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facedan_cli.workspace import write_text


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        title: what it shows.
        header: the columns.
        rows: the cells.
        notes: sentences below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A figure with curves.

    Attributes:
        title: what it shows.
        svg: the figure, as matplotlib writes it.
        alt: the same in words, for those who cannot see it.
    """

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Face:
    """One image of a pair.

    Attributes:
        name: where it lies.
        jpeg: a small version; None where it cannot be shown.
    """

    name: str
    jpeg: bytes | None


@dataclass(frozen=True)
class Pair:
    """Two images that were compared.

    Attributes:
        first: the query or probe.
        second: the target or gallery image.
        score: their score.
        note: what was made of it.
    """

    first: Face
    second: Face
    score: float
    note: str


@dataclass(frozen=True)
class Gallery:
    """Pairs that belong together.

    Attributes:
        title: what they have in common.
        pairs: the worst first.
    """

    title: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Page:
    """What the page shows, from top to bottom.

    Attributes:
        title: the protocol.
        lead: how it was measured, in a few sentences.
        warnings: what may make the figures wrong.
        tables: the figures.
        figures: the curves.
        galleries: the worst errors.
        provenance: with what it was made.
    """

    title: str
    lead: Sequence[str]
    warnings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    galleries: Sequence[Gallery]
    provenance: Mapping[str, str]


_SVG_SCALE = 1.6
"""Pixels a point of a figure: its letters of 8.5 points then have about the size of the tables'."""


def write_page(path: Path, page: Page) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file to write.
        page: what it shows; every text is taken literally, none as HTML, but for the figures.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("facedan_cli.figures", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "width": _width,
        "inline": inline_svg,
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    text = environment.get_template("page.html").render(page=page, scale=_SVG_SCALE)
    # A file name that is not UTF-8 is read with surrogates in it, which cannot be written: "?" stands for them.
    write_text(path, text.encode(errors="replace").decode())


def inline_svg(svg: str, prefix: str) -> str:
    """A figure that can stand inside a page: without the prologue, with ids that no other figure has.

    Args:
        svg: a whole SVG file.
        prefix: what its ids are made to begin with.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", body)


def _width(svg: str) -> float:
    """The width of matplotlib's figure, in points."""
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', svg)
    if box is None:
        raise ValueError("the figure has no viewBox that begins at 0 0")
    return float(box[1])
