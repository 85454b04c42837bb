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

_COLOUR = r"\x1b\[[0-9;]*m"
#: A default of None, "" or (), which may be coloured and may be wrapped to the next row of its box.
_EMPTY_DEFAULT = re.compile(rf"\(default:(?:[\s│]|{_COLOUR})*(?:None|'')?\)")
#: What is blanked out in it: everything except colours, spaces and the box.
_VISIBLE = re.compile(rf"({_COLOUR})|[^\s│]")
_EMPTY_ROW = re.compile(rf"^(?:{_COLOUR})*│(?: |{_COLOUR})*│(?:{_COLOUR})*\n", re.MULTILINE)

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


def without_empty_defaults(text: str) -> str:
    """Blank out "(default: None)" and other empty defaults in tyro's help, where the text itself says what they mean.

    The boxes keep their width. Rows that become empty are removed.
    """
    blanked = _EMPTY_DEFAULT.sub(lambda found: _VISIBLE.sub(lambda part: part[1] or " ", found[0]), text)
    return blanked if blanked == text else _EMPTY_ROW.sub("", blanked)


class FlagWriter:
    """Standard output for a help text. `finish` prints it with settings as flags and without empty defaults."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names, self._under, self._parts = frozenset(names), sys.stdout, list[str]()

    def write(self, text: str) -> int:
        self._parts.append(text)
        return len(text)

    def finish(self) -> None:
        """Print the text so far. It is changed as a whole, because tyro prints it row by row."""
        self._under.write(without_empty_defaults(with_flags("".join(self._parts), self._names)))
        self._under.flush()
        self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)
