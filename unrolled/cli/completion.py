"""`unrolled --print-completion SHELL`: a script with which a shell completes commands, flags, choices and file names.

tyro also prints such scripts, each for a single parser. They offer files for every string and none where a RUN is
expected, and they do not know commands that are also groups, such as `inspect`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional, Suppress

from unrolled.bench.cases import PEERS, SIZES
from unrolled.cells import CELLS, TREE_CELLS
from unrolled.cli import commands
from unrolled.cli.flags import flag
from unrolled.data.levels import LEVELS
from unrolled.errors import ConfigurationError
from unrolled.training.config import OPTIMIZERS, PRECISIONS, SCHEDULES

#: Values of settings that are plain strings, by the setting's name.
_CHOICES: dict[str, Iterable[str]] = {
    **dict.fromkeys(("cell", "cells", "decoder_cell"), CELLS),
    "level": LEVELS,
    "sizes": SIZES,
    "against": PEERS,
    "optimizer": OPTIMIZERS,
    "lr_schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": ("cpu", "cuda", "mps"),
}
#: Values of such settings in single commands.
_CHOICES_OF: dict[tuple[str, str], Iterable[str]] = {
    ("train tree", "cell"): TREE_CELLS,
    ("eval", "checkpoint"): ("best", "last", "average"),
}
#: A value is a path if its name in the help begins with one of these words.
_PATHS = ("RUN", "FILE", "DIR", "PATH", "FOLDER", "FIGURE", "OUT")


@dataclass(frozen=True)
class Flag:
    """One flag: how it is typed, and what may follow.

    choices: the values to offer. many: whether it takes several values. files: whether a value is a path. bare: whether
    it takes no value.
    """

    names: tuple[str, ...]
    choices: tuple[str, ...] = ()
    many: bool = False
    files: bool = False
    bare: bool = False


@dataclass(frozen=True)
class Command:
    """What can be typed after a command's name."""

    name: str
    flags: tuple[Flag, ...]
    files: bool
    """Whether it takes paths without a flag."""
    summary: str = ""

    @property
    def words(self) -> list[str]:
        """All flags, as the user types them."""
        return [name for each in self.flags for name in each.names]


def script(shell: str) -> str:
    """Return the script for bash, zsh or fish. Raise ConfigurationError for another shell."""
    if shell not in _SCRIPTS:
        known = ", ".join(_SCRIPTS)
        raise ConfigurationError(f"--print-completion: unknown shell {shell!r}, choose from {known}")
    return _SCRIPTS[shell]([_command(name, summary) for name, summary in commands.summaries().items()])


def _command(name: str, summary: str) -> Command:
    """Build a command from its dataclass. If its task cannot be imported, its only flag is --help."""
    shown = Flag(("--help",), bare=True)
    try:
        kind = commands.arguments_of(name, [])
    except ConfigurationError:
        return Command(name, (shown,), False, summary)
    flags: list[Flag] = []
    files = False
    for setting, hint in _settings(kind):
        made, positional = _flag(name, setting, hint)
        if positional:
            files = files or made.files
        else:
            flags.append(made)
    return Command(name, (*flags, shown), files, summary)


def _settings(kind: Any) -> Iterable[tuple[str, Any]]:
    """Yield the names and types of the settings in a dataclass and in those within it, except for hidden ones."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for each in dataclasses.fields(kind):
        hint = hints[each.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint)
        elif Suppress not in getattr(hint, "__metadata__", ()):
            yield each.name, hint


def _flag(command: str, name: str, hint: Any) -> tuple[Flag, bool]:
    """Return a setting as a flag, and whether it is a positional argument instead."""
    notes = getattr(hint, "__metadata__", ())
    kinds = _alternatives(hint.__origin__ if notes else hint)
    many = any(typing.get_origin(kind) is tuple for kind in kinds)
    inner: set[Any] = set()
    for kind in kinds:
        inner |= set(typing.get_args(kind)) if typing.get_origin(kind) is tuple else {kind}
    if bool in inner:
        return Flag((flag(name), flag(f"no_{name}")), bare=True), False
    shown = next((note.metavar for note in notes if getattr(note, "metavar", None)), "")
    literal = tuple(v for kind in inner if typing.get_origin(kind) is typing.Literal for v in typing.get_args(kind))
    choices = literal or tuple(_CHOICES_OF.get((command, name), _CHOICES.get(name, ())))
    files = Path in inner or (str in inner and shown.startswith(_PATHS))
    return Flag((flag(name),), choices, many, files and not choices), Positional in notes


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


# -- bash and zsh: one function in the language that both understand ---------------------------------------------------

_SHARED = """\
# Offers what may follow the words "$@", which leave out the program's name.
_unrolled_next() {{
    local command="" flag="" last="" word
    case "$1 $2" in
        {pairs}) command="$1 $2"; shift 2 ;;
        *) case "$1" in
            {single}) command="$1"; shift ;;
            {groups}) command="$1" ;;
        esac ;;
    esac
    for word in "$@"; do
        case "$word" in
            =) flag="$last" ;;
            -*) last="$word"; flag="$word" ;;
            *) flag="$last+" ;;
        esac
    done
    case "$command $flag" in
{values}
    esac
    case "$command" in
{after}
        "") [ "$#" -gt 0 ] || _unrolled_words "{first}" ;;
    esac
}}
"""

_BASH = """\
# Completion of `unrolled` in bash: source <(unrolled --print-completion bash)
_unrolled_words() { COMPREPLY+=($(compgen -W "$1" -- "$_unrolled_word")); }
_unrolled_files() {
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen -f -- "$_unrolled_word"))
}
_unrolled_flags() {
    case "$_unrolled_word" in -*) _unrolled_words "$1" ;; *) [ "$2" = files ] || _unrolled_words "$1" ;; esac
}
@
_unrolled() {
    local _unrolled_word="${COMP_WORDS[COMP_CWORD]}"
    local -a before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    COMPREPLY=()
    if [ "$_unrolled_word" = = ]; then  # bash splits off the = of --flag=value as a word
        before+=(=)
        _unrolled_word=""
    fi
    _unrolled_next "${before[@]}"
}
complete -F _unrolled unrolled
"""

_ZSH = """\
#compdef unrolled
# Completion of `unrolled` in zsh: source <(unrolled --print-completion zsh), or a file _unrolled in your fpath.
_unrolled_words() { compadd -- ${=1}; }
_unrolled_files() { _files; }
_unrolled_flags() {
    case "$PREFIX" in -*) _unrolled_words "$1" ;; *) [ "$2" = files ] || _unrolled_words "$1" ;; esac
}
@
_unrolled() { _unrolled_next "${(@)words[2,CURRENT-1]}"; }
if [ "$funcstack[1]" = _unrolled ]; then
    _unrolled "$@"
else
    compdef _unrolled unrolled
fi
"""


def _shared(known: Sequence[Command]) -> str:
    values, after = [], []
    for command in known:
        for each in command.flags:
            if each.bare:
                continue
            known_values = bool(each.choices or each.files)
            ends = ("", "+") if each.many and known_values else ("",)
            typed = [f'"{command.name} {name}{end}"' for name in each.names for end in ends]
            offer = "_unrolled_files" if each.files else f'_unrolled_words "{" ".join(each.choices)}"'
            # After the first of several values, a flag may also come.
            also = f"; _unrolled_flags '{' '.join(command.words)}' files" if each.many else ""
            stop = f"{offer}{also}; return" if known_values else "return"
            values.append(f"        {'|'.join(typed)}) {stop} ;;")
    nested = _nested(known)
    for command in known:
        parts = [f"_unrolled_flags '{' '.join(command.words)}'{' files' if command.files else ''}"]
        parts += ["_unrolled_files"] * command.files
        if command.name in nested:
            parts.append(f'[ "$#" -gt 0 ] || _unrolled_words "{" ".join(nested[command.name])}"')
        after.append(f'        "{command.name}") {"; ".join(parts)} ;;')
    names = {command.name for command in known}
    groups = [group for group in nested if group not in names]
    after += [f'        {group}) [ "$#" -gt 1 ] || _unrolled_words "{" ".join(nested[group])}" ;;' for group in groups]
    return _SHARED.format(
        pairs="|".join(f'"{name}"' for name in names if " " in name),
        single="|".join(sorted(name for name in names if " " not in name)),
        groups="|".join(groups),
        values="\n".join(values),
        after="\n".join(after),
        first=" ".join(_first(known)),
    )


def _first(known: Sequence[Command]) -> list[str]:
    """Return the words that a command line can begin with."""
    return [*dict.fromkeys(command.name.split()[0] for command in known), "--help", "--version", "--print-completion"]


def _nested(known: Sequence[Command]) -> dict[str, list[str]]:
    """Return the second words of two-word commands, by the first word."""
    found: dict[str, list[str]] = {}
    for command in known:
        first, _, second = command.name.partition(" ")
        if second:
            found.setdefault(first, []).append(second)
    return found


# -- fish --------------------------------------------------------------------------------------------------------------

_FISH = """\
# Completion of `unrolled` in fish: unrolled --print-completion fish | source
set -g __unrolled_pairs {pairs}
function __unrolled_is --description 'Whether the words before the cursor name this command'
    set -l words (commandline -opc)
    set -e words[1]
    if contains -- "$words[1] $words[2]" $__unrolled_pairs
        test "$words[1] $words[2]" = "$argv"
    else
        test "$words[1]" = "$argv"
    end
end
function __unrolled_words --description 'Whether this many words are typed, and the first is the given one'
    set -l words (commandline -opc)
    test (count $words) -eq $argv[1]; and begin
        test (count $argv) -eq 1; or test "$words[2]" = $argv[2]
    end
end
complete -c unrolled -f
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish(known: Sequence[Command]) -> str:
    pairs = " ".join(_quoted(command.name) for command in known if " " in command.name)
    lines = [f"complete -c unrolled -n '__unrolled_words 1' -a {_quoted(' '.join(_first(known)))}"]
    summary_of = {command.name: command.summary for command in known}
    for group, seconds in _nested(known).items():
        for second in seconds:
            about = _quoted(summary_of[f"{group} {second}"])
            lines.append(f"complete -c unrolled -n '__unrolled_words 2 {group}' -a {second} -d {about}")
    for command in known:
        where = f"complete -c unrolled -n {_quoted(f'__unrolled_is {command.name}')}"
        if command.files:
            lines.append(f"{where} -F")
        for each in command.flags:
            value = "" if each.bare else " -r -F" if each.files else " -x"
            offered = f" -a {_quoted(' '.join(each.choices))}" if each.choices else ""
            lines += [f"{where} -l {name.removeprefix('--')}{value}{offered}" for name in each.names]
    return _FISH.format(pairs=pairs) + "\n".join(lines) + "\n"


_SCRIPTS = {
    "bash": lambda known: _BASH.replace("@\n", _shared(known), 1),
    "zsh": lambda known: _ZSH.replace("@\n", _shared(known), 1),
    "fish": _fish,
}
