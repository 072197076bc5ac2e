"""Completions for bash, zsh and fish: scripts with every word of the command line in them.

They answer at once, since no Python starts: the shell itself reads the names of data sets and runs from the workspace.
"""

from __future__ import annotations

import re
import shlex

from commands import Command, Parameter

_NOTE = "Made by .ci/generate.py from the command line itself; do not edit."

# The keys of [datasets]; sed, so that no Python need start.
_SETTINGS = r"""sed -n '/^\[datasets\]/,/^\[/s/^ *"\{0,1\}\([[:alnum:]_.-]\{1,\}\)"\{0,1\} *=.*/\1/p'"""


def _fill(template: str, **parts: str) -> str:
    """The template with each @NAME@ in its place."""
    for name, part in {"note": _NOTE, "settings": _SETTINGS, **parts}.items():
        template = template.replace(f"@{name.upper()}@", part)
    return template.lstrip("\n")


def _brief(parameter: Parameter) -> str:
    """The first sentence of its help, without the full stop: what fits beside an option in a menu."""
    return re.split(r"\. (?=[A-Z])", parameter.help)[0].rstrip(".")


# bash: an empty answer leaves a path to readline, which knows about quotes, tildes and directories.

_BASH = r"""
# bash completion for facedan. @NOTE@

# Sets `workspace`: that of the command line, else of the environment, else the current directory.
_facedan_workspace() {
    workspace=${FACEDAN_WORKSPACE:-.}
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -w || ${COMP_WORDS[i]} == --workspace ]]; then
            workspace=${COMP_WORDS[i + 1]}
            [[ $workspace == = ]] && workspace=${COMP_WORDS[i + 2]}
        fi
    done
    workspace=${workspace/#\~\//$HOME/}
}

# Answers with those of the names that begin as the current word does.
_facedan_names() {
    local name
    for name; do
        name=${name%/}
        name=${name##*/}
        [[ $name == "$current"* && $name != '*' ]] && COMPREPLY+=("$(printf %q "$name")")
    done
}

_facedan() {
    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' kind='' options='' words='' workspace
    COMPREPLY=()
    # bash splits --option=value into three words.
    if [[ $current == = ]]; then
        current=''
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    ((COMP_CWORD > 1)) && command=${COMP_WORDS[1]}
    case $command in
@GROUPS@
    esac
    case $command in
@COMMANDS@
    esac
    [[ $kind != value && $current == -* ]] && kind=option
    case $kind in
    dataset)
        _facedan_workspace
        local IFS=$'\n'
        # shellcheck disable=SC2046
        _facedan_names "$workspace"/aligned/*/ $(@SETTINGS@ "$workspace/facedan.toml" 2>/dev/null)
        ;;
    run | model)
        _facedan_workspace
        _facedan_names "$workspace"/runs/*/
        # Where nothing answers, readline completes paths.
        [[ $kind == model && (${#COMPREPLY[@]} -gt 0 || -z $(compgen -f -- "$current")) ]] && _facedan_names lbp
        ;;
    path) ;;
    *)
        compopt +o default 2>/dev/null
        [[ $kind == option ]] && words=$options
        # shellcheck disable=SC2207
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        ;;
    esac
    return 0
}

complete -o default -F _facedan facedan
"""


def bash(facedan: Command) -> str:
    """completions/facedan.bash."""
    groups = [command.words[1] for command in facedan.commands if command.commands]
    return _fill(
        _BASH,
        groups="\n".join(f'    {name}) ((COMP_CWORD > 2)) && command+=" ${{COMP_WORDS[2]}}" ;;' for name in groups),
        commands="\n".join(_bash_command(command) for command in facedan.walk()),
    )


def _bash_command(command: Command) -> str:
    called = " ".join(command.words[1:])
    options = " ".join(name for option in command.options for name in option.names)
    cases: dict[str, list[str]] = {}
    for option in command.options:
        if option.kind != "flag":
            cases.setdefault(_bash_kind(option), []).extend(option.names)
    if command.commands:
        rest = f"kind=word words='{' '.join(below.words[-1] for below in command.commands)}'"
    else:
        rest = _bash_kind(command.arguments[0]) if command.arguments else "kind=option"
        rest = rest.replace("kind=value words", "kind=word words")  # in its place an option may stand too
    lines = [f"        {rest}"]
    if cases:
        values = [f"        {' | '.join(names)}) {then} ;;" for then, names in cases.items()]
        lines = ["        case $option in", *values, f"        *) {rest} ;;", "        esac"]
    return "\n".join([f"    {shlex.quote(called)})", f"        options='{options}'", *lines, "        ;;"])


def _bash_kind(parameter: Parameter) -> str:
    if parameter.kind == "word":
        return f"kind=value words='{' '.join(parameter.words)}'"
    return "kind=value" if parameter.kind in ("number", "text") else f"kind={parameter.kind}"


_ZSH = r"""
#compdef facedan
# zsh completion for facedan. @NOTE@

# Sets REPLY to the workspace: that of the command line, else of the environment, else the current directory.
_facedan_workspace() {
  REPLY=${(Q)${opt_args[--workspace]:-${opt_args[-w]:-${FACEDAN_WORKSPACE:-.}}}}
  REPLY=${REPLY/#\~\//$HOME/}
}

_facedan_datasets() {
  local REPLY
  _facedan_workspace
  local -a names=(
    $REPLY/aligned/*(-/N:t)
    ${(f)"$(@SETTINGS@ $REPLY/facedan.toml 2>/dev/null)"}
  )
  _alternative 'datasets:data set:compadd -a names' 'paths:path:_files'
}

_facedan_runs() {
  local REPLY
  _facedan_workspace
  local -a names=($REPLY/runs/*(-/N:t))
  _alternative 'runs:run:compadd -a names' 'paths:path:_files'
}

_facedan_models() {
  _alternative 'models:model without a run:(lbp)' 'runs:run:_facedan_runs'
}

@COMMANDS@

if [[ $funcstack[1] == _facedan ]]; then
  _facedan "$@"
else
  compdef _facedan facedan
fi
"""


def zsh(facedan: Command) -> str:
    """completions/_facedan."""
    return _fill(_ZSH, commands="\n\n".join(_zsh_command(command) for command in facedan.walk()))


def _zsh_command(command: Command) -> str:
    function = "_" + "_".join(command.words)
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    specs += [shlex.quote(f":{argument.metavar}:{_zsh_action(argument)}") for argument in command.arguments]
    if not command.commands:
        body = ["  local -A opt_args", *_continued(["  _arguments -s -S", *specs])]
    else:
        names = [shlex.quote(f"{below.words[-1]}:{below.summary}") for below in command.commands]
        body = [
            "  local curcontext=$curcontext state line",
            "  local -A opt_args",
            "  local -a commands=(",
            *(f"    {name}" for name in names),
            "  )",
            *_continued(["  _arguments -C -S", *specs, "'1: :->command'", "'*:: :->rest'"]),
            "  case $state in",
            "  command) _describe -t commands command commands ;;",
            f"  rest) (( $+functions[{function}_$words[1]] )) && {function}_$words[1] ;;",
            "  esac",
        ]
    return "\n".join([f"{function}() {{", *body, "}"])


def _continued(words: list[str]) -> list[str]:
    return [words[0] + " \\", *(f"    {word} \\" for word in words[1:-1]), f"    {words[-1]}"]


def _zsh_option(option: Parameter) -> list[str]:
    text = re.sub(r"([\[\]])", r"\\\1", _brief(option))
    others = "*" if option.repeatable else f"({' '.join(option.names)})"
    specs = []
    for name in option.names:
        if option.kind == "flag":
            specs.append(f"{others}{name}[{text}]")
        else:
            joined = "=" if name.startswith("--") else "+"
            specs.append(f"{others}{name}{joined}[{text}]:{option.metavar}:{_zsh_action(option)}")
    return [shlex.quote(spec) for spec in specs]


def _zsh_action(parameter: Parameter) -> str:
    if parameter.kind == "word":
        return f"({' '.join(parameter.words)})"
    named = {"dataset": "_facedan_datasets", "run": "_facedan_runs", "model": "_facedan_models", "path": "_files"}
    return named.get(parameter.kind, " ")


_FISH = r"""
# fish completion for facedan. @NOTE@

# Whether the words so far are just these, so that a command is due.
function __facedan_at
    set -l words (commandline -opc)
    set -e words[1]
    test "$words" = "$argv"
end

# Whether the words so far call this command.
function __facedan_calls
    set -l words (commandline -opc)
    set -e words[1]
    string match -q -- "$argv *" "$words "
end

# That of the command line, else of the environment, else the current directory.
function __facedan_workspace
    set -l workspace .
    set -q FACEDAN_WORKSPACE; and set workspace $FACEDAN_WORKSPACE
    set -l before
    for word in (commandline -opc)
        if contains -- "$before" -w --workspace
            set workspace $word
        else if string match -q -- '--workspace=*' $word
            set workspace (string replace -- --workspace= '' $word)
        end
        set before $word
    end
    string replace -r '^~/' "$HOME/" -- $workspace
end

function __facedan_directories
    string replace -r '.*/([^/]+)/$' '$1' -- $argv
end

function __facedan_datasets
    set -l workspace (__facedan_workspace)
    set -l directories $workspace/aligned/*/
    __facedan_directories $directories
    @SETTINGS@ $workspace/facedan.toml 2>/dev/null
end

function __facedan_runs
    set -l directories (__facedan_workspace)/runs/*/
    __facedan_directories $directories
end

complete -c facedan -f
@COMMANDS@
"""


def fish(facedan: Command) -> str:
    """completions/facedan.fish."""
    return _fill(_FISH, commands="\n".join(line for command in facedan.walk() for line in _fish_command(command)))


def _fish_command(command: Command) -> list[str]:
    when = " ".join(["__facedan_at" if command.commands else "__facedan_calls", *command.words[1:]])
    start = f"complete -c facedan -n {_fish_quote(when)}"
    lines = [f"{start} -a {below.words[-1]} -d {_fish_quote(below.summary)}" for below in command.commands]
    lines += [f"{start} {_fish_values(argument)}" for argument in command.arguments]
    for option in command.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        takes = "" if option.kind == "flag" else f" -r {_fish_values(option)}"
        lines.append(f"{start} {names}{takes} -d {_fish_quote(_brief(option))}")
    return list(dict.fromkeys(lines))


def _fish_values(parameter: Parameter) -> str:
    if parameter.kind == "word":
        return f"-f -a {_fish_quote(' '.join(parameter.words))}"
    named = {
        "dataset": "-F -a '(__facedan_datasets)'",
        "run": "-F -a '(__facedan_runs)'",
        "model": "-F -a '(__facedan_runs) lbp'",
        "path": "-F",
    }
    return named.get(parameter.kind, "-f")


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
