"""CONTRIBUTING.md and docs/architecture.md name files and words that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_house import FLOORS, PACKAGE

ROOT = PACKAGE.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+\.py|\w+/)`", TEXT))))
def test_files_that_are_named_exist(path: str) -> None:
    assert (ROOT / path).exists() or (PACKAGE / path).exists() or list(PACKAGE.rglob(path))


@pytest.mark.parametrize(
    "name",
    [
        *("NETWORKS", "DISCREPANCIES", "PROTOCOLS", "HEADS", "TEMPLATES"),
        *("_AS_BEFORE", "_NOT_DETERMINING", "CSV_HEADER"),
    ],
)
def test_tables_that_are_named_exist(name: str) -> None:
    assert name in TEXT
    assert any(re.search(rf"^{name}\b", path.read_text(encoding="utf-8"), re.M) for path in PACKAGE.rglob("*.py"))


def test_the_floors_are_those_that_are_held() -> None:
    table = TEXT.partition("| floor | rooms |")[2].partition("\n\n")[0]
    floors = [set(re.findall(r"`(\w+)`", row)) for row in table.splitlines()[2:]]
    ground, *above = FLOORS[:-1]  # __main__ is above all of them
    assert floors[::-1][1:] == above
    assert floors[-1] <= ground


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / Path(link)).exists(), f"{page.name} links to {link}"


def test_sections_that_links_name_exist() -> None:
    def anchors(page: Path) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            assert anchor in anchors(target), f"{page.name} links to {path}#{anchor}"


def test_code_that_docs_mmd_names_exists() -> None:
    text = (ROOT / "docs" / "mmd.md").read_text(encoding="utf-8")
    modules = {path.stem: path.read_text(encoding="utf-8") for path in (PACKAGE / "adaptation").glob("*.py")}
    named = [(module, name) for module, name in re.findall(r"`(\w+)\.(\w+)`", text) if module in modules]
    assert len(named) >= 8
    for module, name in named:
        assert re.search(rf"^(def|class) {name}\b|^{name}\b", modules[module], re.MULTILINE), f"{module}.{name}"
