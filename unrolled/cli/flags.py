"""Settings as flags: other packages write `learning_rate` in backquotes, and only this module --learning-rate."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

from tyro.conf import arg

from unrolled.errors import UnrolledError

#: A value after the setting's name; one quoted for a shell may hold backquotes.
_VALUE = r"""(?:=((?:'[^']*'|"[^"]*"|[^`])*))?"""


#: The flag of every command that opens a run and its model.
Trust = Annotated[bool, arg(help="Run RUN's own cell source although you did not train with it; it stays trusted.")]


def flag(name: str) -> str:
    """Return a setting's name as the user types it."""
    return "--" + name.replace("_", "-")


def as_flags(error: UnrolledError) -> str:
    """Return the error's message in one line, with the settings that it names written as flags."""
    return " ".join(with_flags(str(error), error.settings).split())


def with_flags(text: str, names: Iterable[str]) -> str:
    """Replace `name` and `name=value` in backquotes by --name and --name value, for these names only.

    Commas between consecutive assignments are removed, as in a typed command.
    """
    known = frozenset(names)
    if not known or "`" not in text:
        return text

    def typed(found: re.Match) -> str:
        value = "" if found[2] is None else f" {found[2]}"
        return flag(found[1]) + value + (" " if value and found[3] else found[3])

    return _pattern(known).sub(typed, text)


@cache
def _pattern(names: frozenset[str]) -> re.Pattern:
    known = "|".join(sorted(map(re.escape, names)))
    return re.compile(rf"`({known}){_VALUE}`((?:, (?=`(?:{known})=))?)")


class FlagWriter:
    """Standard output that writes the settings named in a help text as flags, and the rest unchanged."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names, self._under = frozenset(names), sys.stdout

    def write(self, text: str) -> int:
        return self._under.write(with_flags(text, self._names))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)
