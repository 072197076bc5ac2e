"""An evaluation's page: one HTML file with everything inside, that needs no network, no script and no font."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
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
    """A picture of curves.

    Attributes:
        title: what it shows.
        svg: the picture, as matplotlib writes it.
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

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing but what is inside."""

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; background: #fff; color: #1a1a1a;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; line-height: 1.2; }
h2 { margin: 2.25rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid #ccc; font-size: 1.15rem; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1rem; }
p { margin: .25rem 0; max-width: 46rem; }
.warning { margin: .5rem 0; padding: .5rem .75rem; border-left: 4px solid #d55e00; background: #fdf3ec; }
.notes { color: #444; font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
thead th { font-weight: 600; vertical-align: bottom; border-bottom-color: #888; }
tbody th { font-weight: 400; }
th:first-child { position: sticky; left: 0; background: #fff; text-align: left; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; margin: 0; padding: 0;
  list-style: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .35rem; margin: 0; break-inside: avoid; }
.pair img, .none { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #f2f2f2; }
.none { display: grid; place-items: center; color: #666; font-size: .8rem; }
.name { overflow-wrap: anywhere; color: #444; font-size: .75rem; line-height: 1.3; }
.pair figcaption { grid-column: 1 / -1; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; font-size: .82rem; }
dt { color: #444; }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .35rem; } body { font-size: 16px; }
  th:first-child { min-width: 7rem; white-space: normal; overflow-wrap: anywhere; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; } .curves { min-width: 0 !important; } }
"""


def write_page(path: Path, page: Page) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file to write.
        page: what it shows; every text is taken literally, none as HTML, but for the figures.
    """
    # A file name that is not UTF-8 is read with surrogates in it, which cannot be written: "?" stands for them.
    write_text(path, ("\n".join(_lines(page)) + "\n").encode(errors="replace").decode())


def _lines(page: Page) -> Iterator[str]:
    title = escape(page.title)
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>"
    yield from (f"<p>{escape(sentence)}</p>" for sentence in page.lead)
    yield from (f'<p class="warning" role="note">{escape(warning)}</p>' for warning in page.warnings)
    yield "<section>\n<h2>Results</h2>"
    for table in page.tables:
        yield from _table(table)
    yield "</section>"
    if page.figures:
        yield "<section>\n<h2>Curves</h2>"
        for number, figure in enumerate(page.figures):
            yield from _figure(figure, f"figure{number}-")
        yield "</section>"
    if page.galleries:
        yield "<section>\n<h2>Worst errors</h2>"
        for gallery in page.galleries:
            yield f'<h3>{escape(gallery.title)}</h3>\n<ul class="pairs">'
            yield from (f"<li>{_pair(pair)}</li>" for pair in gallery.pairs)
            yield "</ul>"
        yield "</section>"
    yield "<section>\n<h2>Provenance</h2>\n<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.provenance.items())
    yield "</dl>\n</section>\n</main>\n</body>\n</html>"


def inline_svg(svg: str, prefix: str) -> str:
    """A picture to stand inside a page: without its prologue, its ids unlike those of the others.

    Args:
        svg: a whole SVG file.
        prefix: what its ids are made to begin with.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", body)


def _figure(figure: Figure, prefix: str) -> Iterator[str]:
    """A figure that shrinks with the page until its letters would be too small, and from there on scrolls."""
    width = _SVG_SCALE * _width(figure.svg)
    size = f"width: min(100%, {width:.0f}px); min-width: {0.6 * width:.0f}px"
    yield f'<h3>{escape(figure.title)}</h3>\n<figure class="scroll" tabindex="0">'
    yield f'<div class="curves" role="img" aria-label="{escape(figure.alt)}" style="{size}">'
    yield f"{inline_svg(figure.svg, prefix)}</div></figure>"


def _width(svg: str) -> float:
    """The width of matplotlib's picture, in points."""
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', svg)
    if box is None:
        raise ValueError("the picture has no viewBox that begins at 0 0")
    return float(box[1])


def _table(table: Table) -> Iterator[str]:
    yield f"<h3>{escape(table.title)}</h3>"
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>\n<thead><tr>'
    yield "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header) + "</tr></thead>\n<tbody>"
    for first, *others in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    yield from (f'<p class="notes">{escape(note)}</p>' for note in table.notes)


def _pair(pair: Pair) -> str:
    both = (pair.first, pair.second)
    faces = "".join(f'<div>{_face(face)}<div class="name">{escape(face.name)}</div></div>' for face in both)
    caption = f"<figcaption>{pair.score:.4g}: {escape(pair.note)}</figcaption>"
    return f'<figure class="pair">{faces}{caption}</figure>'


def _face(face: Face) -> str:
    if face.jpeg is None:
        return '<div class="none">no picture</div>'
    data = base64.b64encode(face.jpeg).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(face.name)}">'
