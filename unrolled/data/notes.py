"""Parts of the sentences in which data are described to the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

#: How many names a note lists.
_NAMED = 5


def many(count: int, what: str) -> str:
    """Return a count with its noun, of which `what` is the singular."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def named(names: Sequence[str]) -> str:
    """Return the first names of a list."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def lacking_note(unknown: Counter[str], what: str, where: str) -> list[str]:
    """Return a note on labels that training lacks, in a list that is empty if there are none.

    unknown: how often each occurs. what: what they are called, in the singular.
    """
    if not unknown:
        return []
    lacking, errors = many(len(unknown), what), many(unknown.total(), "error")
    return [f"{where} has {lacking} that training lacks ({named(sorted(unknown))}): {errors}"]
