"""The words that METEOR's program makes of a line with its option `-norm`."""

from __future__ import annotations

import re

#: Letters as METEOR's program counts them: Latin, with most accents, and Cyrillic.
_ALPHA = "A-Za-zÀ-ÖØ-öø-žЀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ"
#: Applied one after the other.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"([^0-9{_ALPHA}\s.'`,\-‘’])", r" \1 "),
        (r"(\.{2,})", r" \1 "),
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (r"[`‘’]", "'"),
        (r"[“”]|''", ' " '),
        (r"–|--", "-"),
        (rf"([0-9{_ALPHA}.])-([0-9{_ALPHA}])", r"\1 \2"),
        (rf"([^{_ALPHA}])'([^{_ALPHA}])", r"\1 ' \2"),
        (rf"([^0-9{_ALPHA}])'([{_ALPHA}])", r"\1 ' \2"),
        (rf"([{_ALPHA}])'([^{_ALPHA}])", r"\1 ' \2"),
        (rf"([{_ALPHA}])'([{_ALPHA}])", r"\1 '\2"),
        (r"([0-9])'(s)", r"\1 '\2"),
    )
)
_LETTER = re.compile(f"[{_ALPHA}]")


def words(line: str, prefixes: dict[str, bool]) -> list[str]:
    """Return the words of a line, in lower case. Words with a hyphen become several.

    prefixes: the abbreviations that keep their period, with whether they do so only before a number.
    """
    line = f" {line} "
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    parts = line.split()
    found = []
    for index, part in enumerate(parts):
        found += _period(part, parts[index + 1] if index + 1 < len(parts) else "", prefixes)
    return " ".join(found).lower().split()


def _period(part: str, following: str, prefixes: dict[str, bool]) -> list[str]:
    """Separate a word from a period at its end, unless it is an abbreviation."""
    stem = part[:-1]
    if len(part) < 2 or part[-1] != "." or not stem.strip("."):
        return [part]
    if "." in stem and _LETTER.search(stem):
        return [part.replace(".", "")]
    if prefixes.get(stem) is False or "a" <= following[:1] <= "z":
        return [part]
    if stem in prefixes and following[:1].isdigit():
        return [part]
    return [stem, "."]
