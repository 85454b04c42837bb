"""Which labels are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def by_true(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return how often each label was given, by the true label, for pairs (true, given)."""
    found: dict[str, dict[str, int]] = {}
    for (true, given), count in sorted(Counter(pairs).items()):
        found.setdefault(true, {})[given] = count
    return found
