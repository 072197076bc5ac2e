"""The floors of the package: imports go down, and the way to --help stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from typer.main import get_command

import facedan_cli
from facedan_cli.cli.app import app

PACKAGE = Path(facedan_cli.__file__).parent

FLOORS = (
    {"errors", "report", "workspace", "runs", "run_plan", "outputs", "json_files", "spreadsheet", "text"}
    | {"config", "own_networks"},
    {"distributed", "devices", "onnx_graph", "adaptation", "metrics"},
    {"data", "models", "protocols", "figures"},
    {"alignment", "embedding", "synthetic", "export"},
    {"training"},
    {"evaluation"},
    {"table"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FLOOR["__init__"] = -1  # the version: below everything

HEAVY = {"torch", "torchvision", "cv2", "sklearn", "facenet_pytorch", "matplotlib"}
FOR_THE_TERMINAL = {"typer", "rich", "click"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def label(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported anywhere below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(tree: ast.AST) -> set[str]:
    """Rooms of the package itself; `from facedan_cli import __version__` is the room of its __init__."""
    inner = {name.split(".")[1] for name in imported(tree) if name.startswith("facedan_cli.")}
    return {name if name in FLOOR else "__init__" for name in inner}


class _AtImport(ast.NodeTransformer):
    """Leaves what runs when a module is imported: no function bodies, nothing for the type checker alone."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


LARGEST_SHARE = 0.15
"""Of the package's lines in one room."""


def parse(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} == FLOOR.keys()


def test_no_room_is_a_hall() -> None:
    lines = Counter[str]()
    for module in MODULES:
        lines[room(module)] += len(module.read_text(encoding="utf-8").splitlines())
    largest, count = lines.most_common(1)[0]
    assert count <= LARGEST_SHARE * lines.total(), f"{largest} has {count} of {lines.total()} lines"


@pytest.mark.parametrize("module", MODULES, ids=label)
def test_imports_go_down_and_never_sideways(module: Path) -> None:
    here = room(module)
    others = rooms_imported(parse(module)) - {here}
    ground = FLOORS[0]
    wrong = {other for other in others if FLOOR[other] >= FLOOR[here] and not {here, other} <= ground}
    assert not wrong, f"{label(module)} on floor {FLOOR[here]} imports {sorted(wrong)}"


def test_no_imports_go_in_a_circle() -> None:
    """Neither at import nor in functions nor for the type checker."""
    names = {
        ".".join(("facedan_cli", *module.relative_to(PACKAGE).with_suffix("").parts)): module for module in MODULES
    }
    graph = {
        name: {
            known
            for dotted in imported(parse(module))
            for known in (dotted, dotted.rpartition(".")[0])
            if known in names and known != name
        }
        for name, module in names.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in FLOORS[0] | {"cli"}], ids=label)
def test_the_ground_floor_and_cli_load_nothing_heavy(module: Path) -> None:
    at_import = _AtImport().visit(parse(module))
    assert not HEAVY & {name.split(".")[0] for name in imported(at_import)}


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) != "cli"], ids=label)
def test_only_cli_speaks_to_the_terminal(module: Path) -> None:
    tree = parse(module)
    assert not FOR_THE_TERMINAL & {name.split(".")[0] for name in imported(tree)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {"print", "sys.stdout", "sys.stderr"} & (names | attributes)


def test_help_of_every_command_loads_nothing_heavy() -> None:
    root = get_command(app)
    calls = [[], *([name] for name in root.commands)]
    calls += [["evaluate", protocol] for protocol in root.commands["evaluate"].commands]
    assert len(calls) >= 10
    script = f"""
import sys
from facedan_cli.cli.app import app
for call in {calls!r}:
    try:
        app([*call, "--help"], prog_name="facedan")
    except SystemExit as ended:
        assert not ended.code, call
    loaded = {HEAVY!r} & set(sys.modules)
    assert not loaded, f"facedan {{' '.join(call)}} --help imports {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: facedan") == len(calls)
