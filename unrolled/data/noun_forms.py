"""Singulars and plurals of English nouns, by rules and a table of exceptions."""

from __future__ import annotations

from collections.abc import Container

from unrolled.data.english import IRREGULAR, NO_PLURALS, SAME_PLURAL

#: Where a singular has two plurals, the first of the table is the usual one.
_PLURAL = {singular: plural for plural, singular in reversed(IRREGULAR.items())}
_COMPOUND = ("men", "women", "children", "people")


def singular(word: str, known: Container[str]) -> str:
    """Return the singular of a noun: by the table, or by a rule if the result is one of the `known` words.

    Other words are returned as they are, such as `pants` if nobody writes of a `pant`.
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in SAME_PLURAL or word in NO_PLURALS:
        return word
    for end in _COMPOUND:  # firemen, grandchildren
        if word.endswith(end) and word[: -len(end)] + IRREGULAR[end] in known:
            return word[: -len(end)] + IRREGULAR[end]
    tries = []
    if word.endswith("ies"):
        tries = [word[:-3] + "y", word[:-1]]
    elif word.endswith("ves"):
        tries = [word[:-3] + "f", word[:-1]]
    elif word.endswith(("ches", "shes", "ses", "xes", "zes", "oes")):
        tries = [word[:-2], word[:-1]]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        tries = [word[:-1]]
    return next((one for one in tries if len(one) > 1 and one in known), word)


def plural(word: str) -> str:
    """Return the plural of a noun in the singular."""
    if word in _PLURAL:
        return _PLURAL[word]
    if word in SAME_PLURAL:
        return word
    for end in ("man", "child"):  # fireman, but not human
        if word.endswith(end) and len(word) > len(end) and not word.endswith("human"):
            return word[: -len(end)] + _PLURAL[end]
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
