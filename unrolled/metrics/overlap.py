"""BLEU and ROUGE-L of tokens against several references each, as the scorers of COCO's captions define them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: The longest n-gram of BLEU.
ORDER = 4
#: The weight of recall in ROUGE-L.
BETA = 1.2
#: These keep quotients of zeros defined, with the values that COCO's scorer has for them.
SMALL, TINY = 1e-9, 1e-15


def bleu_statistics(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Return what BLEU needs to know of one caption: ten counts that can be added over captions.

    These are the n-grams of each length 1 to 4 that also occur in a reference, as often as they do there; all n-grams
    of each length; the length of the caption; and the length of the reference that is closest to it in length, the
    shorter one if there are two.
    """
    matches = []
    for order in range(1, ORDER + 1):
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            allowed |= _ngrams(reference, order)
        matches.append((_ngrams(hypothesis, order) & allowed).total())
    length = len(hypothesis)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return [*matches, *(max(0, length - order) for order in range(ORDER)), length, closest]


def bleu(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU-1 to BLEU-4 as fractions (Papineni et al. 2002).

    statistics: `bleu_statistics`, or their sums over captions, with shape (..., 10). The result has shape (..., 4).
    """
    matches, ngrams = statistics[..., :ORDER], statistics[..., ORDER : 2 * ORDER]
    precisions = (matches + TINY) / (ngrams + SMALL)
    found = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, ORDER + 1))
    ratio = (statistics[..., -2:-1] + TINY) / (statistics[..., -1:] + SMALL)
    with np.errstate(over="ignore"):
        return np.asarray(found * np.exp(np.minimum(0, 1 - 1 / ratio)))


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L as a fraction, from the best precision and the best recall over the references (Lin 2004)."""
    found = hypothesis or [""]  # a caption without words is one empty word, as in COCO's scorer
    lengths = [(_common(found, each or [""]), max(1, len(each))) for each in references]
    precision = max(common for common, _ in lengths) / len(found)
    recall = max(common / length for common, length in lengths)
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, with a bit per token of `first` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()
