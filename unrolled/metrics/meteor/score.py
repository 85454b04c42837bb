"""METEOR from counts that can be added over captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unrolled.metrics.meteor.alignment import align
from unrolled.metrics.meteor.resources import Resources

#: The parameters for English: the weight of recall, the shape and the weight of the penalty on fragments, and the
#: weight of content words.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
#: The weights of matches: equal, with the same stem, synonyms, paraphrases.
WEIGHTS = np.array([1, 0.6, 0.8, 0.6])


def meteor_statistics(
    hypothesis: Sequence[str], references: Sequence[Sequence[str]], resources: Resources
) -> list[int]:
    """Return what METEOR needs to know of one caption and the reference that suits it best: 21 counts.

    They are, for the hypothesis and then the reference, the words and the function words; for each kind of match, the
    matched content words of both and the matched function words of both; and the chunks, or 0 if all words of both are
    matched in one chunk. Texts are given as words; `resources` must be prepared for them.
    """
    best: list[int] = []
    highest = -1.0
    for reference in references:
        found = _statistics(hypothesis, reference, resources)
        score = float(meteor(np.array(found, dtype=float)))
        if score > highest:
            best, highest = found, score
    return best


def meteor(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return METEOR as fractions.

    statistics: `meteor_statistics`, or their sums over captions, with shape (..., 21). The result has shape (...).
    """
    lengths, functions = statistics[..., :2], statistics[..., 2:4]
    matched = statistics[..., 4:20].reshape(*statistics.shape[:-1], 4, 2, 2)  # kind, content or function, text
    weighted = np.einsum("...kct,k,c->...t", matched, WEIGHTS, np.array([DELTA, 1 - DELTA]))
    total = matched.sum((-3, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(weighted / (DELTA * (lengths - functions) + (1 - DELTA) * functions), -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        penalty = GAMMA * (statistics[..., 20] / total.mean(-1)) ** BETA
        return np.asarray(np.nan_to_num(np.maximum(mean * (1 - penalty), 0)))


def _statistics(hypothesis: Sequence[str], reference: Sequence[str], resources: Resources) -> list[int]:
    matches, chunks = align(hypothesis, reference, resources)
    functions = resources.functions
    counts = [0] * 16
    for match in matches:
        for word in hypothesis[match.at : match.at + match.width]:
            counts[4 * match.kind + 2 * (word in functions)] += 1
        for word in reference[match.start : match.start + match.length]:
            counts[4 * match.kind + 2 * (word in functions) + 1] += 1
    lengths = [len(hypothesis), len(reference)]
    perfect = chunks == 1 and [sum(counts[::2]), sum(counts[1::2])] == lengths
    words = [sum(word in functions for word in text) for text in (hypothesis, reference)]
    return [*lengths, *words, *counts, 0 if perfect else chunks]
