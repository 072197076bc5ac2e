from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.main import get_command

from facedan_cli.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
BASH = ROOT / "completions" / "facedan.bash"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """The script, which makes the texts once."""
    sys.path.insert(0, str(ROOT / ".ci"))
    module = importlib.import_module("generate")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "generated", cache(module.generated))
        yield module
    sys.path.remove(str(ROOT / ".ci"))


def contexts(command: Any = None, name: str = "facedan", parent: typer.Context | None = None) -> Iterator[Any]:
    """A context for each command of the app, facedan itself first."""
    command = command or get_command(app)
    context = typer.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    for below, inner in getattr(command, "commands", {}).items():
        yield from contexts(inner, below, context)


def test_committed_files_are_what_is_generated(generate: ModuleType) -> None:
    assert generate.out_of_step() == []


def test_nothing_generated_depends_on_terminal_or_environment() -> None:
    surroundings = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "COLUMNS": "30",
        "TERM": "xterm-256color",
        "FORCE_COLOR": "1",
        "FACEDAN_WORKSPACE": "elsewhere",
        "FACEDAN_ADAPT_KERNELS": "1",
    }
    command = [sys.executable, ROOT / ".ci" / "generate.py", "--check"]
    done = subprocess.run(command, cwd="/", env=surroundings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_stale_files_and_generating_repairs_them(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("completions", "man"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "by-hand.md").write_text("no generated file")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    (tmp_path / "man" / "facedan.1").write_text("edited by hand")
    (tmp_path / "man" / "facedan-gone.1").write_text("a command that was removed")
    (tmp_path / "completions" / "_facedan").unlink()

    with pytest.raises(
        SystemExit, match=r"completions/_facedan, docs/architecture\.md, man/facedan-gone\.1, man/facedan\.1"
    ):
        generate.main(["--check"])
    generate.main([])
    generate.main(["--check"])
    assert (tmp_path / "docs" / "by-hand.md").exists()


def test_the_drawing_has_the_imports_that_no_other_way_implies(generate: ModuleType, tmp_path: Path) -> None:
    modules = {
        "low/__init__.py": "",
        "low/a.py": "from facedan_cli.errors import UsageError",
        "middle/b.py": "from facedan_cli.low.a import x",
        "high/c.py": "def later():\n    import facedan_cli.middle.b\n    from facedan_cli.low import a",
        "errors.py": "import math",
    }
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = generate.architecture.imports(tmp_path)
    assert graph == {"low": {"errors"}, "middle": {"low"}, "high": {"middle", "low"}, "errors": set()}
    assert set(generate.architecture.reduced(graph)) == {("low", "errors"), ("middle", "low"), ("high", "middle")}


def test_every_room_is_in_the_architecture_page(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in generate.architecture.imports(ROOT / "facedan_cli"):
        assert f"**{room}.**" in page or f"`{room}`" in page


def test_every_command_and_parameter_has_help() -> None:
    for context in contexts():
        assert context.command.help, context.command_path
        for parameter in context.command.params:
            assert parameter.help, (context.command_path, parameter.name)


def test_examples_are_commands_that_exist() -> None:
    examples = 0
    for context in contexts():
        for example in re.findall(r"^Example: (.*)", context.command.help, re.MULTILINE):
            words = shlex.split(example.rpartition("|")[2])
            path, parent = context.command_path.split(" {")[0].split(), context.parent
            assert words[: len(path)] == path
            context.command.make_context(path[-1], words[len(path) :], parent=parent)
            examples += 1
    assert examples >= 8


def test_environment_variables_follow_the_rule_of_the_man_pages() -> None:
    """FACEDAN_COMMAND_OPTION, also where a parameter of Python cannot be called as the option (lambda)."""
    for context in contexts():
        for parameter in context.command.params:
            if parameter.param_type_name == "option" and parameter.allow_from_autoenv:
                given = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
                names = {f"{context.auto_envvar_prefix}_{parameter.name.upper()}", *given}
                written = max(parameter.opts, key=len).removeprefix("--").upper().replace("-", "_")
                assert f"{context.auto_envvar_prefix}_{written}" in names


@pytest.mark.parametrize("name", ["align", "pretrain", "adapt", "embed", "evaluate", "table", "export", "demo"])
def test_man_page_names_every_option(name: str) -> None:
    page = (ROOT / "man" / f"facedan-{name}.1").read_text(encoding="ascii")
    printed = re.sub(r"\\f[BIR]", "", page).replace("\\-", "-")
    terms = set(re.findall(r"^\.TP\n(.*)$", printed, re.MULTILINE))
    named = {word.rstrip(",") for term in terms for word in term.split()}
    for context in contexts():
        if name in context.command_path.split()[1:2]:
            for parameter in context.command.params:
                is_option = parameter.param_type_name == "option"
                assert set(parameter.opts if is_option else [parameter.name.upper()]) <= named


@needs("groff")
@pytest.mark.parametrize("page", sorted((ROOT / "man").glob("*.1")), ids=lambda page: page.name)
def test_man_page_is_clean_roff(page: Path) -> None:
    done = subprocess.run(["groff", "-man", "-ww", "-z", page], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for folder in (
        "aligned/casia",
        "aligned/my faces",
        "runs/pretrain-casia-0a1b2c3d",
        "runs/adapt-casia-frgc-4e5f6a7b",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "facedan.toml").write_text('[adapt]\nkernels = 1\n\n[datasets]\nfrgc = "/data"\n\n[embed]\nbatch = 8\n')
    return tmp_path


def completed(words: list[str], where: Path, **environment: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = f"""
        source {shlex.quote(str(BASH))}
        COMP_WORDS=({shlex.join(words)})
        COMP_CWORD={len(words) - 1}
        _facedan
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=where,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@needs("bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ad", ["adapt"]),
        ("--v", ["--version"]),
        ("adapt --ker", ["--kernels", "--kernel-weights"]),
        ("adapt --estimator ''", ["unbiased", "biased", "linear"]),
        ("adapt --estimator = b", ["biased"]),
        ("adapt --kernels ''", []),
        ("adapt --source ''", ["casia", "my\\ faces", "frgc"]),
        ("adapt --source casia --target f", ["frgc"]),
        ("pretrain --batch 8 --mod", ["--model"]),
        ("embed c", ["casia"]),
        ("embed demo --lay", ["--layer"]),
        ("evaluate ''", ["gbu", "feret", "lfw", "pairs", "identify", "verify", "scores"]),
        ("evaluate identify --gall", ["--gallery"]),
        ("evaluate gbu --model a", ["adapt-casia-frgc-4e5f6a7b"]),
        ("evaluate gbu --model none-such", []),
        ("evaluate gbu --model l", ["lbp"]),
        ("adapt --init l", []),
        ("align ra", []),  # left to readline, which completes paths
    ],
)
def test_bash_completes(line: str, offered: list[str], workspace: Path) -> None:
    assert completed(["facedan", *shlex.split(line)], workspace) == offered


@needs("bash")
def test_bash_completes_from_the_workspace_that_is_named(workspace: Path) -> None:
    elsewhere = workspace / "aligned"
    assert completed(["facedan", "embed", "c"], elsewhere) == []
    assert completed(["facedan", "embed", "c"], elsewhere, FACEDAN_WORKSPACE="..") == ["casia"]
    assert completed(["facedan", "embed", "-w", "..", "c"], elsewhere, FACEDAN_WORKSPACE="/none") == ["casia"]
    home = {"HOME": str(workspace.parent)}
    named = ["--workspace", "=", f"~/{workspace.name}"]
    assert completed(["facedan", "embed", *named, "c"], elsewhere, **home) == ["casia"]


@needs("bash")
def test_bash_leaves_a_model_that_is_a_file_to_readline(tmp_path: Path) -> None:
    model = ["facedan", "embed", "x", "--model"]
    assert completed([*model, ""], tmp_path) == ["lbp"]
    (tmp_path / "lfw-model.safetensors").touch()
    assert completed([*model, ""], tmp_path) == completed([*model, "l"], tmp_path) == []
    assert completed([*model, "lb"], tmp_path) == ["lbp"]


@needs("bash")
def test_bash_offers_every_option_of_every_command(tmp_path: Path) -> None:
    for context in contexts():
        path = context.command_path.split(" {")[0].split()
        expected = {name for parameter in context.command.get_params(context) for name in parameter.opts}
        arguments = {p.name for p in context.command.params if p.param_type_name == "argument"}
        assert set(completed([*path, "-"], tmp_path)) == expected - arguments


@needs("zsh")
def test_zsh_completion_parses() -> None:
    subprocess.run(["zsh", "-n", ROOT / "completions" / "_facedan"], check=True)


@needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("facedan ad", ["adapt"]),
        ("facedan adapt --ker", ["--kernels"]),
        ("facedan adapt --estimator ", ["biased", "linear", "unbiased"]),
        ("facedan adapt --source=c", ["--source=casia"]),
        ("facedan evaluate ", ["feret", "gbu", "identify", "lfw", "pairs", "scores", "verify"]),
        ("facedan evaluate gbu --model p", ["pretrain-casia-0a1b2c3d"]),
        ("facedan evaluate gbu --model l", ["lbp"]),
        ("facedan embed f", ["facedan.toml", "frgc"]),
    ],
)
def test_fish_completes(line: str, offered: list[str], workspace: Path) -> None:
    script = f"source {shlex.quote(str(ROOT / 'completions' / 'facedan.fish'))}; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=workspace, capture_output=True, text=True, check=True
    )
    assert [row.partition("\t")[0] for row in done.stdout.splitlines()] == offered
