"""A list of words as a tree of labels, which restricts a CTC beam to these words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from unrolled.errors import ConfigurationError


class Lexicon:
    """The words that an output may consist of, as an automaton over labels.

    words: the labels of each word.
    separator: the label between two words. Without one, an output is a single word.

    An output is empty or a sequence of words with one separator between two, and perhaps one at the end. State 0 is the
    beginning of a word, and `complete [S]` says which states an output may end in. Memory is 4 bytes per state and
    label; a hundred thousand English words have about 250,000 states.
    Raises ConfigurationError if there are no words, or a word is empty or contains the separator.
    """

    def __init__(self, words: Iterable[Sequence[int]], separator: int | None = None) -> None:
        edges: dict[tuple[int, int], int] = {}
        ends: set[int] = set()
        for word in words:
            state = 0
            for label in word:
                if label < 0 or label == separator:
                    raise ConfigurationError(f"the word {list(word)} contains {label}, which no word may contain")
                state = edges.setdefault((state, int(label)), len(edges) + 1)
            if not state:
                raise ConfigurationError("a word of the lexicon is empty: leave it out")
            ends.add(state)
        if not ends:
            raise ConfigurationError("the lexicon has no words")
        if separator is not None:
            edges |= dict.fromkeys(((state, separator) for state in sorted(ends)), 0)
        self.separator = separator
        self.labels = 1 + max(label for _, label in edges)
        states = 1 + max(edges.values())
        self.complete = np.zeros(states, bool)
        self.complete[[0, *ends]] = True
        #: The next state for every state and label, `[S, labels]` int32, or -1 if the label may not follow.
        self.table = np.full((states, self.labels), -1, np.int32)
        state, label = np.array(list(edges)).T
        self.table[state, label] = list(edges.values())

    def check(self, labels: int, blank: int) -> None:
        """Raise ConfigurationError if a word or the separator is the blank, or is not below `labels`."""
        if self.labels > labels:
            raise ConfigurationError(
                f"the lexicon has label {self.labels - 1}, but the frame scores have {labels} labels"
            )
        if blank < self.labels and bool((self.table[:, blank] >= 0).any()):
            raise ConfigurationError(f"a word or the separator of the lexicon contains the blank, label {blank}")
