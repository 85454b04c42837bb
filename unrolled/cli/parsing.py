"""Command-line arguments as dataclasses, parsed by tyro; its error boxes are folded into one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Container, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import tyro
from tyro.conf import Positional

from unrolled.cli.flags import FlagWriter, flag, with_flags
from unrolled.errors import ConfigurationError

Arguments = TypeVar("Arguments")

#: What the help calls a path.
_PATH = re.compile(r"\b(FILE|FOLDER|PATH|RUN|DIR|PICTURE|FIGURE|OUT)\b")
#: Patterns of tyro's messages, and what the user needs of each.
_PLAINER = (
    (r"^Error parsing (\S+):", r"\1:"),
    (r"no type matching \S+ could be instantiated from \[(.*?)\]\. .*", r"cannot read \1"),
    (r"Could not find valid parse for arguments: \[(.*?)\]", r"cannot read \1"),
    (r"^Missing from unrolled [\w -]+: (\S+) (.*) \(required\)$", r"\1 is missing: \2"),
    (
        r"^invalid choice (\S+) for argument '(--[\w-]+)'\. Expected one of \((.*?),?\)",
        r"\2 cannot be \1, only one of \3",
    ),
)


def parse(kind: type[Arguments], words: Sequence[str], prog: str, default: Arguments | None = None) -> Arguments:
    """Parse `words` into a `kind`. `default` replaces the class's own defaults.

    Raise ConfigurationError if the words cannot be parsed.
    """
    words = _spelt_out(words, _three_valued(kind))
    _check_words(words)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    start = tyro.MISSING_NONPROP if default is None else default
    said, names = io.StringIO(), _settings(kind)
    shown = FlagWriter(names)
    try:
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(shown),
            _wide_terminal("-h" not in words and "--help" not in words),
        ):
            parsed = tyro.cli(kind, prog=prog, args=words, config=config, default=start)
    except SystemExit as ending:
        if not ending.code:
            shown.finish()
            raise
        line = _in_one_line(said.getvalue(), prog)
        for section in (kind.__name__, *_sections(kind)):
            line = line.removeprefix(f"{section}: ")
        raise ConfigurationError(with_flags(line, names)) from None
    if "" in words or any(word.endswith("=") for word in words):
        _check_paths(kind, parsed, words)
    return parsed


def _settings(kind: type) -> set[str]:
    """Return the names of all settings in a dataclass and in those within it, with the `no_` form of each."""
    sections, names = _sections(kind), set()
    for name in typing.get_type_hints(kind):
        names |= _settings(sections[name]) if name in sections else {name, f"no_{name}"}
    return names


def _sections(kind: type) -> dict[str, type]:
    """Return the fields of a dataclass that are dataclasses, each with its type."""
    hints = typing.get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if isinstance(hint, type) and dataclasses.is_dataclass(hint)}


def _three_valued(kind: type) -> set[str]:
    """Return the flags of a dataclass, and of those in it, that are true, false or None."""
    found, sections = set(), _sections(kind)
    for name, hint in typing.get_type_hints(kind).items():
        if name in sections:
            found |= _three_valued(sections[name])
        elif hint == bool | None:
            found.add("--" + name.replace("_", "-"))
    return found


def _spelt_out(words: Sequence[str], flags: Container[str]) -> list[str]:
    """Add a value to each of the flags with three values; tyro offers `--x` and `--no-x` only for those with two."""
    full: list[str] = []
    for word, following in pairwise([*words, ""]):
        name = "--" + word.removeprefix("--no-") if word.startswith("--no-") else word
        if name in flags and (name != word or following not in ("True", "False", "None")):
            full += [name, str(name == word)]
        else:
            full.append(word)
    return full


def _check_words(words: Sequence[str]) -> None:
    """Raise ConfigurationError if --data is given twice, because the first would be lost, or if a path is empty."""
    if sum(word.split("=")[0] == "--data" for word in words) > 1:
        raise ConfigurationError("--data is given twice; write all paths after one")
    given = [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]
    for name in ("--data", "--out", "--resume", "--init-from"):
        if any(option == name and not value for option, value in given):
            raise ConfigurationError(f"{name}: the path is empty")


def _check_paths(kind: type, parsed: object, words: Sequence[str]) -> None:
    """Raise ConfigurationError if an empty word was given for a path: an empty variable of a shell.

    As a path it would be the folder that the user is in.
    """
    given = [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]
    empty = {option.replace("_", "-") for option, value in given if option.startswith("--") and not value}
    sections = _sections(kind)
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        value, notes = getattr(parsed, name, None), getattr(hint, "__metadata__", ())
        shown = next((note.metavar for note in notes if getattr(note, "metavar", None)), "")
        if name in sections:
            _check_paths(sections[name], value, words)
        elif not _PATH.search(shown):
            continue
        elif Positional in notes:
            if any(one in ("", Path()) for one in (value if isinstance(value, tuple) else (value,))):
                raise ConfigurationError(f"a {shown.removesuffix('...')} is empty: name a file or a folder")
        elif flag(name) in empty or (isinstance(value, tuple) and "" in value):
            raise ConfigurationError(f"{flag(name)}: the path is empty")


@contextlib.contextmanager
def _wide_terminal(wide: bool):
    """Keep tyro from wrapping its messages to the terminal's width, because this module parses them."""
    before = os.environ.get("COLUMNS")
    if wide:
        os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        if wide:
            os.environ.pop("COLUMNS")
            if before is not None:
                os.environ["COLUMNS"] = before


def _in_one_line(box: str, prog: str) -> str:
    """Return the text of tyro's box up to the first rule, and the option that it suggests, in one line."""
    rows = [row.strip("│| ") for row in box.splitlines()[1:]]  # without the title
    parts = " ".join("\n" if row and set(row) <= set("─-╰╯") else row for row in rows).strip().split("\n")
    text = parts[0].strip()
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    meant = re.search(r"Perhaps you meant:\s*[│|]?\s*\n[│|\s]*(--[\w-]+)", box)
    hint = f" (did you mean {meant[1]}?)" if meant else ""
    return f"{text.strip().rstrip('.')}{hint}; see {prog} --help"
