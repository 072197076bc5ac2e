from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from facedan_cli.figures.page import Face, Figure, Gallery, Page, Pair, Table, inline_svg, write_page
from facedan_cli.figures.rates import plot_cmc

pytestmark = pytest.mark.usefixtures("drawn_figures")

JPEG = b"\xff\xd8\xff\xe0 not a real picture"
VOID = {"meta", "img", "use", "path"}
HOSTILE = "</title></script><script>alert('1')</script>\" onload=\"x"


class Outline(HTMLParser):
    """What a browser would see: elements with their attributes, and the text; elements must nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def svg(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("figure") / "cmc.svg"
    plot_cmc({"all": {'-->"<b>': [0.5, 0.8, 1.0], "b": [0.2, 0.4, 0.6]}}, path)
    return path.read_text(encoding="utf-8")


def make_page(svg: str, text: str = "words") -> Page:
    pair = Pair(Face(text, JPEG), Face(text, None), 0.87654, text)
    return Page(
        title=text,
        lead=[text],
        warnings=[text],
        tables=[Table(text, ["model", text], [[text, "97.5 [96.1, 98.4]"]], [text])],
        figures=[Figure(text, svg, text), Figure(text, svg, text)],
        galleries=[Gallery(text, [pair])],
        provenance={text: text},
    )


def outline(page: Page, directory: Path) -> Outline:
    write_page(directory / "report.html", page)
    return Outline((directory / "report.html").read_text(encoding="utf-8"))


def test_the_page_shows_everything_that_it_was_given(svg: str, tmp_path: Path) -> None:
    seen = outline(make_page(svg), tmp_path)
    assert [text for text in seen.text if text == "97.5 [96.1, 98.4]"]
    assert "0.8765: words" in seen.text
    assert "no image" in seen.text
    (image,) = seen.all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,")) == JPEG
    assert image["alt"] == "words"
    assert len(seen.all("svg")) == 2
    # Title and heading, lead and warning, a table's title, column, row and note, figures, gallery, faces, provenance.
    assert seen.text.count("words") == 2 + 2 + 4 + 2 + 1 + 2 + 2


def test_rows_and_columns_are_named_for_those_who_hear_them(svg: str, tmp_path: Path) -> None:
    seen = outline(make_page(svg), tmp_path)
    assert [cell["scope"] for cell in seen.all("th")] == ["col", "col", "row"]
    assert [part["aria-label"] for part in seen.all("div") if part.get("role") in ("img", "region")] == ["words"] * 3
    assert seen.all("html") == [{"lang": "en"}]


def test_every_text_is_escaped(svg: str, tmp_path: Path) -> None:
    harmless, hostile = (outline(make_page(svg, text), tmp_path) for text in ("words", HOSTILE))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [sorted(given) for _, given in hostile.elements] == [sorted(given) for _, given in harmless.elements]
    assert hostile.text.count(HOSTILE) == harmless.text.count("words")


def test_nothing_is_loaded_from_elsewhere(svg: str, tmp_path: Path) -> None:
    seen = outline(make_page(svg), tmp_path)
    assert {"script", "link", "iframe", "base", "a"}.isdisjoint(tag for tag, _ in seen.elements)
    addresses = [
        value
        for _, attributes in seen.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "data") or "url(" in (value or "")
    ]
    assert addresses
    assert all(re.match(r"data:image/jpeg;base64,|#|url\(#", address) for address in addresses)
    assert "@import" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    (policy,) = [meta["content"] for meta in seen.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")


def test_figures_of_one_page_do_not_share_ids(svg: str, tmp_path: Path) -> None:
    seen = outline(make_page(svg), tmp_path)
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    used = [attributes["xlink:href"] for attributes in seen.all("use")]
    clips = [attributes["clip-path"] for _, attributes in seen.elements if "clip-path" in attributes]
    assert len(set(ids)) == len(ids)
    assert used
    assert clips
    assert {address.removeprefix("#") for address in used} <= set(ids)
    assert {address.removeprefix("url(#").removesuffix(")") for address in clips} <= set(ids)


def test_an_image_is_put_inside_without_its_prologue(svg: str) -> None:
    inside = inline_svg(svg, "a-")
    assert inside.startswith("<svg")
    assert inside.rstrip().endswith("</svg>")
    assert "<metadata>" in svg
    assert "<metadata>" not in inside


def test_an_image_without_a_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="viewBox"):
        write_page(tmp_path / "report.html", make_page("<svg></svg>"))
    assert not list(tmp_path.iterdir())


def test_sections_without_content_are_left_out(svg: str, tmp_path: Path) -> None:
    full = make_page(svg)
    assert outline(full, tmp_path).text.count("Curves") == 1
    seen = outline(dataclasses.replace(full, figures=[], galleries=[], warnings=[]), tmp_path)
    assert {"Curves", "Worst errors"}.isdisjoint(seen.text)
    assert len(seen.all("section")) == 2


def test_a_name_that_is_not_utf_8_does_not_stop_the_page(svg: str, tmp_path: Path) -> None:
    seen = outline(make_page(svg, b"caf\xe9.jpg".decode(errors="surrogateescape")), tmp_path)
    assert "caf?.jpg" in seen.text


def test_the_same_page_has_the_same_bytes(svg: str, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, make_page(svg))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
