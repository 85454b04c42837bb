"""What captions say of objects: their colours, their articles, and the prepositions between two."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from unrolled.data.colours import COLOURS
from unrolled.data.english import PREPOSITIONAL_PHRASES, PREPOSITIONS
from unrolled.data.object_words import Mention, ObjectWords

#: How much the statistics of all pairs count next to those of one.
_SMOOTHING = 4.0


class ObjectStatistics:
    """Counts over the captions of training, given as tokens of the captions of each picture."""

    def __init__(self, words: ObjectWords, pictures: Sequence[Sequence[Sequence[str]]]) -> None:
        self.mentions: Counter[str] = Counter()
        self.plurals: Counter[str] = Counter()
        self._coloured: Counter[str] = Counter()
        self._colours: dict[str, Counter[str]] = defaultdict(Counter)
        self._articles: dict[str, Counter[str]] = defaultdict(Counter)
        self._between: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._before: dict[str, Counter[str]] = defaultdict(Counter)
        self._any: Counter[str] = Counter()
        self._together: Counter[frozenset[str]] = Counter()
        self._across: Counter[frozenset[str]] = Counter()
        for captions in pictures:
            found = [(tokens, words.mentions(tokens)) for tokens in captions]
            for tokens, mentions in found:
                self._add(tokens, mentions)
            self._compare([{one.label for one in mentions} for _, mentions in found])
        total = Counter[str]()
        for counts in self._colours.values():
            total.update(counts)
        self._every_colour = np.array([total[name] for name in COLOURS], float) + 1

    def _add(self, tokens: Sequence[str], mentions: Sequence[Mention]) -> None:
        for place, one in enumerate(mentions):
            self.mentions[one.label] += 1
            self.plurals[one.label] += one.plural
            self._coloured[one.label] += bool(one.colours)
            self._colours[one.label].update(one.colours)
            if not one.plural:
                first = tokens[one.start]
                self._articles[one.label][first if first in ("a", "an", "one", "the") else ""] += 1
            if place:
                word = preposition_before(tokens, one.start)
                if not word and tokens[mentions[place - 1].place + 1 : one.start] == ["and"]:
                    word = "and"
                if word:
                    self._between[mentions[place - 1].label, one.label][word] += 1
                    self._before[one.label][word] += 1
                    self._any[word] += 1

    def _compare(self, captions: Sequence[set[str]]) -> None:
        """Count pairs of objects that one caption mentions, and those that different captions of a picture mention."""
        for number, some in enumerate(captions):
            for other in captions[:number]:
                self._across.update({frozenset((a, b)) for a in some for b in other if a != b})
            self._together.update(frozenset((a, b)) for a in some for b in some if a < b)

    def colour_prior(self, label: str) -> np.ndarray:
        """Return how likely an object has each of the `COLOURS` where captions give it one, `[12]`."""
        counts = np.array([self._colours[label][name] for name in COLOURS], float)
        prior = counts + _SMOOTHING * self._every_colour / self._every_colour.sum()
        shares: np.ndarray = prior / prior.sum()
        return shares

    def coloured(self, label: str) -> float:
        """Return the share of the mentions of an object that have a colour."""
        return self._coloured[label] / max(1, self.mentions[label])

    def article(self, label: str) -> str:
        """Return what captions put before the singular: `a`, `the` or, for what is not counted, nothing."""
        counts = self._articles[label]
        single = counts["a"] + counts["an"] + counts["one"]
        # Without an article there is often something else: its owner, or what there is a piece of.
        return max(("a", single), ("the", counts["the"]), ("", 0.5 * counts[""]), key=lambda one: one[1])[0]

    def plural_share(self, label: str) -> float:
        """Return the share of the mentions of an object that are of several."""
        return self.plurals[label] / max(1, self.mentions[label])

    def countable(self, label: str) -> bool:
        """Return whether captions count an object, as a ball, unlike grass."""
        counts = self._articles[label]
        single = counts["a"] + counts["an"] + counts["one"]
        return single + self.plurals[label] >= 0.2 * self.mentions[label]

    def prepositions(self, first: str, second: str) -> dict[str, float]:
        """Return how likely each preposition is between two objects in this order."""
        total = self._any.total() or 1
        own, second_counts = self._between[first, second], self._before[second]
        every = second_counts.total()
        found = {}
        for word, times in self._any.items():
            of_second = (second_counts[word] + _SMOOTHING * times / total) / (every + _SMOOTHING)
            found[word] = (own[word] + _SMOOTHING * of_second) / (own.total() + _SMOOTHING)
        return found

    def related(self, one: str, other: str) -> int:
        """Return how often a preposition joins two objects, in either order."""
        return self._between[one, other].total() + self._between[other, one].total()

    def is_first(self, one: str, other: str) -> bool:
        """Return whether captions name one object before another; what is seldom named second is first."""
        as_first, as_second = self._between[one, other].total(), self._between[other, one].total()
        if as_first != as_second:
            return as_first > as_second
        return self.second_share(one) <= self.second_share(other)

    def second_share(self, label: str) -> float:
        """Return the share of the mentions of an object that a preposition joins to one before: high for places."""
        return self._before[label].total() / max(1, self.mentions[label])

    def same(self, one: str, other: str) -> bool:
        """Return whether two labels are words for the same thing, as `bike` and `bicycle`.

        Different captions of a picture mention both, but one caption hardly ever does.
        """
        pair = frozenset((one, other))
        rarer = min(self.mentions[one], self.mentions[other])
        return one == other or self._across[pair] >= max(1, 0.4 * rarer, 6 * self._together[pair])


def preposition_before(tokens: Sequence[str], place: int) -> str:
    """Return the preposition, such as `in front of`, that ends before this token, or an empty string."""
    for phrase in PREPOSITIONAL_PHRASES:
        if tuple(tokens[max(0, place - len(phrase)) : place]) == phrase:
            return " ".join(phrase)
    word = tokens[place - 1] if place else ""
    return word if word in PREPOSITIONS and word != "of" else ""
