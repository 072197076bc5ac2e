"""The page of an evaluation: one HTML file that needs no network, script or font."""

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
        title: title of the table.
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
        title: title of the figure.
        svg: the figure in matplotlib's SVG.
        alt: description of the figure for those who cannot see it.
    """

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Face:
    """One image of a pair.

    Attributes:
        name: path of the image.
        jpeg: a small version; None if the image cannot be shown.
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
        note: the decision on the pair.
    """

    first: Face
    second: Face
    score: float
    note: str


@dataclass(frozen=True)
class Gallery:
    """Pairs that belong together.

    Attributes:
        title: kind of the pairs.
        pairs: the worst first.
    """

    title: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Page:
    """The contents of the page, from top to bottom.

    Attributes:
        title: the protocol.
        lead: settings of the measurement, in a few sentences.
        warnings: warnings about the rates.
        tables: the rates.
        figures: the curves.
        galleries: the worst errors.
        provenance: command line, versions and inputs.
    """

    title: str
    lead: Sequence[str]
    warnings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    galleries: Sequence[Gallery]
    provenance: Mapping[str, str]


_SVG_SCALE = 1.6
"""Pixels for a point of a figure, so that its letters of 8.5 points have about the size of the tables'."""


def write_page(path: Path, page: Page) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file to write.
        page: contents; texts are escaped, figures are inserted as they are.
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
    """A figure for use inside a page: without the prologue, with ids of its own.

    Args:
        svg: a whole SVG file.
        prefix: prefix of its ids.
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
