"""What a CTC beam remembers of the past: its prefixes as numbers, and the frames of their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FEWEST = 4096


class Prefixes:
    """A tree of prefixes. The empty prefix is 0, and every prefix has one number."""

    def __init__(self) -> None:
        self.parents, self.labels = [-1], [-1]
        self.children: dict[int, int] = {}

    def child(self, parent: int, label: int) -> int:
        """Return the number of a prefix with one more label."""
        key = parent << 32 | label  # an integer, because many tuples keep the garbage collector busy
        found = self.children.setdefault(key, len(self.parents))
        if found == len(self.parents):
            self.parents.append(parent)
            self.labels.append(label)
        return found

    def spelled(self, prefix: int) -> tuple[int, ...]:
        """Return the labels of a prefix."""
        found = []
        while prefix:
            found.append(self.labels[prefix])
            prefix = self.parents[prefix]
        return tuple(reversed(found))

    def kept(self, prefixes: Sequence[int]) -> tuple[Prefixes, dict[int, int]]:
        """Return a tree of these prefixes and all before them, and their new numbers by the old ones."""
        numbers = _needed(prefixes, self.parents)
        tree = Prefixes()
        for old in list(numbers)[1:]:
            numbers[old] = tree.child(numbers[self.parents[old]], self.labels[old])
        return tree, numbers


class Alignments:
    """Frames of labels: an alignment is the one before it, and the frames of one more label. The empty one is 0."""

    def __init__(self) -> None:
        self.before, self.first, self.last = [0], [-1], [-1]

    def add(self, before: int, first: int, last: int) -> int:
        self.before.append(before)
        self.first.append(first)
        self.last.append(last)
        return len(self.before) - 1

    def frames(self, alignment: int) -> list[tuple[int, int]]:
        """Return the first and last frame of every label."""
        found = []
        while alignment:
            found.append((self.first[alignment], self.last[alignment]))
            alignment = self.before[alignment]
        return found[::-1]

    def kept(self, alignments: Sequence[int]) -> tuple[Alignments, dict[int, int]]:
        """Return only these alignments and those before them, and their new numbers by the old ones."""
        numbers = _needed(alignments, self.before)
        found = Alignments()
        for old in list(numbers)[1:]:
            numbers[old] = found.add(numbers[self.before[old]], self.first[old], self.last[old])
        return found, numbers


class History:
    """The prefixes and alignments of one search. Those that no hypothesis needs are dropped now and then."""

    def __init__(self, prefixes: Prefixes | None = None, alignments: Alignments | None = None) -> None:
        self.prefixes, self.alignments = prefixes or Prefixes(), alignments or Alignments()
        self.limit = max(_FEWEST, 4 * self.size)

    @property
    def size(self) -> int:
        return len(self.prefixes.parents) + len(self.alignments.before)

    def kept(self, prefixes: np.ndarray, alignments: np.ndarray) -> tuple[History, dict[int, int], dict[int, int]]:
        """Return the history of these prefixes and alignments, and the new numbers of both by the old ones."""
        tree, prefix_numbers = self.prefixes.kept(prefixes.tolist())
        chains, alignment_numbers = self.alignments.kept(alignments.tolist())
        return History(tree, chains), prefix_numbers, alignment_numbers


def _needed(wanted: Sequence[int], before: Sequence[int]) -> dict[int, int]:
    """Return a dictionary with the wanted numbers and all before them as keys, in increasing order from 0."""
    found = {0}
    for one in wanted:
        while one not in found:
            found.add(one)
            one = before[one]
    return dict.fromkeys(sorted(found), 0)
