"""docs/architecture.md: the rooms of the package, drawn from its own imports and told by their own docstrings."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

_PIPELINE = (
    *("config", "data", "alignment", "models", "embedding", "adaptation", "training"),
    *("metrics", "protocols", "evaluation", "table", "figures", "export", "synthetic", "cli"),
)
"""The rooms in the order in which a face passes through them, and then what serves them all."""

_WIDTH = 120

_HEAD = """\
<!-- Made by `python .ci/generate.py` from the imports and docstrings of facedan_cli: edit those. -->

# Architecture

`facedan_cli` is divided into rooms, one directory each. An arrow leads from a room to a room that imports it; an arrow
that others imply is left out. No import runs against the arrows, and `tests/test_house.py` holds that.

"""

_FOUNDATION = """\
**Foundation.** {modules}: modules beside the rooms, which serve them all and import no room but `config`.
"""


def page(package: Path) -> str:
    """The page, in Markdown.

    Raises:
        SystemExit: a room has no docstring, or no place in the order.
    """
    graph = imports(package)
    foundation = sorted(name for name in graph if _is_foundation(name, package, graph))
    rooms = {name: used - set(foundation) - {"config"} for name, used in graph.items() if name not in foundation}
    if missing := rooms.keys() ^ set(_PIPELINE):
        sys.exit(f"rooms of facedan_cli and the order in .ci/architecture.py differ: {', '.join(sorted(missing))}")
    paragraphs = [_paragraph(name, package) for name in _PIPELINE]
    listed = ", ".join(f"`{name}`" for name in foundation)
    paragraphs.append(_filled(_FOUNDATION.format(modules=listed)))
    return _HEAD + _drawing(rooms) + "\n" + "\n".join(paragraphs)


def imports(package: Path) -> dict[str, set[str]]:
    """The rooms and modules on the top level, each with those that it imports."""
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").parts[0]
        if not name.startswith("__"):
            graph.setdefault(name, set()).update(_imported(path))
    return {name: used & graph.keys() - {name} for name, used in graph.items()}


def reduced(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """The edges (room, room that it imports) that no longer way implies."""
    reached: dict[str, set[str]] = {}

    def below(name: str) -> set[str]:
        if name not in reached:
            reached[name] = set(graph[name]).union(*(below(used) for used in graph[name]))
        return reached[name]

    return [
        (name, used)
        for name in graph
        for used in sorted(graph[name])
        if not any(used in below(other) for other in graph[name] if other != used)
    ]


def _imported(path: Path) -> set[str]:
    """Second parts of the dotted names that a module imports from this package."""
    dotted = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in dotted if name.startswith("facedan_cli.")}


def _is_foundation(name: str, package: Path, graph: Mapping[str, set[str]]) -> bool:
    """Whether it is a single module that imports no room but `config`."""
    rooms = {used for used in graph[name] if (package / used).is_dir()}
    return not (package / name).is_dir() and rooms <= {"config"}


def _drawing(rooms: Mapping[str, Iterable[str]]) -> str:
    """A Mermaid flowchart."""
    lines = [f"    {used} --> {name}" for name, used in reduced({name: rooms[name] for name in _PIPELINE})]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```", ""])


def _paragraph(name: str, package: Path) -> str:
    """What a room says of itself."""
    path = package / name / "__init__.py" if (package / name).is_dir() else package / f"{name}.py"
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not said:
        sys.exit(f"{path.relative_to(package.parent)} has no docstring: docs/architecture.md has nothing to say of it")
    return _filled(f"**{name}.** {said if path.parent != package else said.partition(chr(10))[0]}")


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"
