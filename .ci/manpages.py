"""Manual pages in roff, plain ASCII: what the command line says of itself, and what all commands have in common."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from commands import Command, Parameter

from facedan_cli import __version__

# What lies where in a workspace, and the commands that read or write it.
_FILES = (
    (
        "facedan.toml",
        "Defaults: a section a command, such as [adapt], with options as keys; [datasets] gives data sets names.",
        ("align", "pretrain", "adapt", "embed", "evaluate", "demo"),
    ),
    ("raw/DATASET/", "Raw images, where the user keeps them.", ("align", "demo")),
    (
        "aligned/DATASET/",
        "Aligned faces, the tree of raw/ mirrored. aligned/aligned.jsonl has a line for each image.",
        ("align", "pretrain", "adapt", "embed", "evaluate", "demo"),
    ),
    ("protocols/NAME/", "Files of a protocol, as its owners hand them out.", ("evaluate", "demo")),
    (
        "runs/STAGE-DATASETS-HASH/",
        "A training: run.json, config.toml, metrics.jsonl and checkpoints/. HASH stands for its settings and inputs: "
        "the same command again skips what is finished and resumes what was interrupted.",
        ("pretrain", "adapt", "embed", "evaluate", "demo"),
    ),
    (
        "embeddings/DATASET-HASH/",
        "Features of one model: vectors.npy, one row per image, and images.csv.",
        ("embed", "evaluate", "demo"),
    ),
    (
        "results/PROTOCOL-HASH/",
        "An evaluation: summary.json, and the curves as CSV and PNG.",
        ("evaluate", "demo"),
    ),
)

_EXIT_STATUS = (
    ("0", "Done."),
    ("1", "A failure that the message explains."),
    ("2", "Wrong usage."),
    ("3", "Done, but some inputs were set aside; the path of their list is named on standard error."),
    ("130", "Interrupted; the same command resumes."),
)


def page(command: Command, facedan: Command) -> str:
    """The page of a command, or facedan's own."""
    title = "-".join(command.words)
    lines = [
        '.\\" Made by .ci/generate.py from the command line itself; do not edit.',
        f'.TH {_escape(title.upper())} 1 "" "facedan {__version__}" "facedan manual"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_escape(title)} \\- {_escape(command.summary)}",
        ".SH SYNOPSIS",
        *_synopses(command),
        ".SH DESCRIPTION",
        *_paragraphs(command.paragraphs),
    ]
    if command is facedan:
        lines += _section("COMMANDS", ((_page_name(below), _text(below.summary + ".")) for below in command.commands))
        lines += _section("OPTIONS", map(_entry, command.options))
    else:
        lines += _own_parts(command)
    lines += _files(command, facedan)
    lines += _environment(command, facedan)
    lines += _section("EXIT STATUS", ((f"\\fB{code}\\fR", _text(text)) for code, text in _EXIT_STATUS))
    others = [other for other in (facedan, *facedan.commands) if other is not command]
    lines += [".SH SEE ALSO", ",\n".join(map(_page_name, others))]
    return "\n".join(lines) + "\n"


def _own_parts(command: Command) -> list[str]:
    """Arguments, options and example; those of each protocol in a section of its own."""
    lines: list[str] = []
    for below in command.commands:
        lines += [f".SH {_escape(' '.join(below.words[1:])).upper()}", *_synopses(below), ".PP"]
        lines += _paragraphs(below.paragraphs)
        lines += _subsection("Arguments", below.arguments)
        lines += _subsection("Options", (option for option in below.options if _is_own(option)))
        lines += _example(below, ".SS Example")
    if command.commands:
        shared = {option.names: option for below in command.commands for option in below.options if option.common}
        return lines + _section("COMMON OPTIONS", map(_entry, (*shared.values(), *command.options)))
    lines += _section("ARGUMENTS", map(_entry, command.arguments))
    lines += _section("OPTIONS", map(_entry, filter(_is_own, command.options)))
    lines += _subsection("Common options", (option for option in command.options if not _is_own(option)))
    return lines + _example(command, ".SH EXAMPLE")


def _is_own(option: Parameter) -> bool:
    return not option.common and "--help" not in option.names


def _synopses(command: Command) -> list[str]:
    if not command.commands:
        return [_synopsis(command)]
    if len(command.words) == 1:
        return [f"\\fB{command.words[0]}\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]"]
    return "\n.br\n".join(map(_synopsis, command.commands)).split("\n")


def _synopsis(command: Command) -> str:
    required = [f"{_bold(option.names[0])} {_italic(option.metavar)}" for option in command.options if option.required]
    arguments = [_italic(argument.metavar) for argument in command.arguments]
    return " ".join([_bold(" ".join(command.words)), *arguments, *required, "[\\fIOPTIONS\\fR]"])


def _entry(parameter: Parameter) -> tuple[str, str]:
    names = ", ".join(map(_bold, parameter.names))
    value = _italic(parameter.metavar) if parameter.metavar else ""
    facts = f" [{'; '.join(parameter.facts)}]" if parameter.facts else ""
    return " ".join(part for part in (names, value) if part), _text(parameter.help + facts)


def _files(command: Command, facedan: Command) -> list[str]:
    entries = [
        (_italic(path), _text(text))
        for path, text, commands in _FILES
        if command is facedan or command.words[-1] in commands
    ]
    return [".SH FILES", "In the workspace, by default the current directory:", *_entries(entries)]


def _environment(command: Command, facedan: Command) -> list[str]:
    name = "COMMAND" if command is facedan else command.words[-1].upper()
    if command.commands and command is not facedan:
        name += "_PROTOCOL"
    rule = (
        "Stands for the option --OPTION, with _ for each -. The command line goes before the environment, the "
        "environment before --config and facedan.toml. --help, --version and --json have no variable."
    )
    return _section(
        "ENVIRONMENT",
        (
            (_bold("FACEDAN_WORKSPACE"), _text("The workspace, where --workspace does not name it.")),
            (f"{_bold(f'FACEDAN_{name}_')}{_italic('OPTION')}", _text(rule)),
            (_bold("FACEDAN_DEBUG"), _text("Where it is 1, an error shows its traceback.")),
            (_bold("NO_COLOR"), _text("Where it is set, nothing is printed in colour.")),
        ),
    )


def _example(command: Command, heading: str) -> list[str]:
    if not command.example:
        return []
    return [heading, ".EX", _line(_escape(command.example, verbatim=True)), ".EE"]


def _section(heading: str, entries: Iterable[tuple[str, str]]) -> list[str]:
    """A heading and its list; nothing where the list is empty."""
    lines = _entries(entries)
    return [f".SH {heading}", *lines] if lines else []


def _subsection(heading: str, parameters: Iterable[Parameter]) -> list[str]:
    lines = _entries(map(_entry, parameters))
    return [f".SS {heading}", *lines] if lines else []


def _entries(entries: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, text in entries for line in (".TP", term, text)]


def _paragraphs(paragraphs: Iterable[str]) -> list[str]:
    return "\n.PP\n".join(map(_text, paragraphs)).split("\n")


def _page_name(command: Command) -> str:
    return f"{_bold('-'.join(command.words))}(1)"


def _bold(text: str) -> str:
    return f"\\fB{_escape(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_escape(text)}\\fR"


def _text(text: str) -> str:
    """Prose: `code` and options become bold."""
    parts = re.split(r"`([^`]+)`|((?<![\w-])--[a-z][a-z-]*)", text)
    prose, code, options = parts[::3], parts[1::3], parts[2::3]
    marked = [_escape(prose[0])]
    for quoted, option, after in zip(code, options, prose[1:], strict=True):
        marked += [_bold(quoted or option), _escape(after)]
    wrapped = textwrap.wrap("".join(marked), 80, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_line, wrapped))


def _line(text: str) -> str:
    """A text line, also where it begins like a request."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _escape(text: str, *, verbatim: bool = False) -> str:
    """Text that roff prints as it stands; in code (`verbatim`) an apostrophe stays upright."""
    special = {"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga"}
    if verbatim:
        special["'"] = "\\(aq"
    return "".join(special.get(sign, sign if sign.isascii() else f"\\[u{ord(sign):04X}]") for sign in text)
