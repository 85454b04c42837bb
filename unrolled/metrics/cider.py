"""CIDEr and CIDEr-D of captions, for evaluation and as a reward (Vedantam, Zitnick and Parikh 2015)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unrolled.errors import ConfigurationError, DataError

#: The longest n-gram.
ORDER = 4
#: The standard deviation of the penalty on differences in length, in tokens.
SIGMA = 6.0

Tokens = Sequence[Hashable]


@dataclass(frozen=True)
class _Vector:
    """The TF-IDF weights of one caption's n-grams.

    weights: each n-gram with its weight, and the same weight divided by the norm of the n-grams of its length.
    length: the number of bigrams. The scorer of COCO measures lengths like this.
    """

    weights: dict[tuple[Hashable, ...], tuple[float, float]]
    length: int


class CiderD:
    """CIDEr-D with fixed document frequencies. Scores are between 0 and 10.

    A document is all references of one picture, so an n-gram's document frequency is the number of pictures with a
    reference that contains it. For evaluation these are the references of the evaluated pictures; for a reward, those
    of the training pictures (Rennie et al. 2017).

    documents: the references of each picture, as tokens. A token is a string, a number, or anything else that can be a
        key of a dictionary.
    end: the end token, or None. If it is given, it is appended to every reference, and a hypothesis ends with its first
        `end`, which counts as a token. What follows it is ignored. So a caption is rewarded for ending in the right
        place. A hypothesis without `end` is scored without one.

    Raises ConfigurationError if there are fewer than two documents, because every weight would be 0.
    """

    def __init__(self, documents: Iterable[Sequence[Tokens]], end: Hashable | None = None) -> None:
        self.end = end
        frequencies: Counter[tuple[Hashable, ...]] = Counter()
        count = 0
        for references in documents:
            count += 1
            frequencies.update({ngram for tokens in references for ngram in _ngrams(self._closed(tokens))})
        if count < 2:
            raise ConfigurationError(f"CIDEr needs the references of at least 2 pictures, not {count}")
        self._unseen = math.log(count)  # an n-gram in no document counts as if it were in one
        self._weights = {ngram: self._unseen - math.log(found) for ngram, found in frequencies.items()}

    def score(self, hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
        """Return the score of each of B hypotheses against its own references, as an array of shape (B,).

        Hypotheses of one picture may stand in any order. References that occur more than once in a call are prepared
        only once.
        Raises DataError if the numbers of both differ or if a hypothesis has no reference.
        """
        if len(hypotheses) != len(references):
            raise DataError(f"{len(hypotheses):,} hypotheses for {len(references):,} lists of references")
        prepared: dict[tuple[Hashable, ...], _Vector] = {}
        scores = np.zeros(len(hypotheses))
        for index, (hypothesis, wanted) in enumerate(zip(hypotheses, references, strict=True)):
            if not wanted:
                raise DataError(f"hypothesis {index + 1:,} has no reference")
            found = self._vector(self._cut(hypothesis))
            total = 0.0
            for tokens in wanted:
                key = tuple(tokens)
                if key not in prepared:
                    prepared[key] = self._vector(self._closed(key))
                total += self._similarity(found, prepared[key])
            scores[index] = 10 * total / (ORDER * len(wanted))
        return scores

    def _similarity(self, found: _Vector, wanted: _Vector) -> float:
        """Return the sum of the clipped cosines over the lengths of n-grams, times the penalty on length."""
        total = 0.0
        get = wanted.weights.get
        for ngram, (weight, scaled) in found.weights.items():
            other = get(ngram)
            if other is not None:
                total += scaled * other[1] if weight <= other[0] else scaled / weight * other[0] * other[1]
        return total * math.exp(-((found.length - wanted.length) ** 2) / (2 * SIGMA**2))

    def _vector(self, tokens: Tokens) -> _Vector:
        unseen, known = self._unseen, self._weights
        weights = {ngram: count * known.get(ngram, unseen) for ngram, count in _ngrams(tokens).items()}
        squares = [0.0] * ORDER
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        scale = [1 / math.sqrt(square) if square else 0.0 for square in squares]
        scaled = {ngram: (weight, weight * scale[len(ngram) - 1]) for ngram, weight in weights.items()}
        return _Vector(scaled, max(0, len(tokens) - 1))

    def _closed(self, tokens: Tokens) -> Tokens:
        return tokens if self.end is None else (*tokens, self.end)

    def _cut(self, tokens: Tokens) -> Tokens:
        if self.end is None or self.end not in tokens:
            return tokens
        return tokens[: tokens.index(self.end) + 1]


class Cider(CiderD):
    """CIDEr as first defined: cosines without clipping and without the penalty on length, times 10.

    It is easier to raise by repeating rare words than CIDEr-D. What COCO's server and `pycocoevalcap` call CIDEr is
    CIDEr-D.
    """

    def _similarity(self, found: _Vector, wanted: _Vector) -> float:
        get = wanted.weights.get
        return sum(scaled * get(ngram, (0.0, 0.0))[1] for ngram, (_, scaled) in found.weights.items())


def _ngrams(tokens: Tokens) -> Counter[tuple[Hashable, ...]]:
    """Count the n-grams of 1 to 4 tokens."""
    shifted = [tokens[start:] for start in range(ORDER)]
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for order in range(1, ORDER + 1):
        counts.update(zip(*shifted[:order], strict=False))
    return counts
