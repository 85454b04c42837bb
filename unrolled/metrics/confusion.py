"""Which labels are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def by_true(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return how often each label was given, by the true label, for pairs (true, given) or a Counter of them."""
    found: dict[str, dict[str, int]] = {}
    for (true, given), count in sorted(Counter(pairs).items()):
        found.setdefault(true, {})[given] = count
    return found


def label_order(label: str) -> tuple[bool, int, str]:
    """Return a key that sorts labels: numbers by their value, before all others."""
    return (False, int(label), "") if label.isascii() and label.isdecimal() else (True, 0, label)
