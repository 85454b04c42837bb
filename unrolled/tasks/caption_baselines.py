"""Captions without a decoder, with which every captioner is compared: a constant one, and those of similar pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from unrolled.metrics.cider import ORDER

#: What Devlin et al. found best: this many neighbours, and the captions that each candidate is compared with.
NEIGHBOURS, COMPARED = 60, 125

Tokens = Sequence[Hashable]


class Typicality:
    """How similar captions are to each other, by the cosine of CIDEr, with document frequencies of the training part.

    documents: the captions of every picture of training, as tokens.
    """

    def __init__(self, documents: Sequence[Sequence[Tokens]]) -> None:
        frequencies: Counter[tuple[Hashable, ...]] = Counter()
        for captions in documents:
            frequencies.update({ngram for tokens in captions for ngram in _ngrams(tokens)})
        self._unseen = math.log(max(2, len(documents)))
        self._weight = {ngram: self._unseen - math.log(count) for ngram, count in frequencies.items()}

    def similarities(self, captions: Sequence[Tokens]) -> np.ndarray:
        """Return the similarity of every two of N captions, `[N, N]`, from 0 to 1."""
        counted = [_ngrams(tokens) for tokens in captions]
        shared = Counter(ngram for counts in counted for ngram in counts)
        # An n-gram of one caption alone adds to its norm, but to no product.
        column = {ngram: k for k, ngram in enumerate(ngram for ngram, times in shared.items() if times > 1)}
        vectors = np.zeros((len(captions), len(column)), np.float32)
        for row, counts in enumerate(counted):
            weights = {ngram: count * self._weight.get(ngram, self._unseen) for ngram, count in counts.items()}
            norms = np.zeros(ORDER)
            for ngram, weight in weights.items():
                norms[len(ngram) - 1] += weight**2
            for ngram, weight in weights.items():
                if ngram in column and norms[len(ngram) - 1]:
                    vectors[row, column[ngram]] = weight / np.sqrt(norms[len(ngram) - 1])
        found: np.ndarray = vectors @ vectors.T / ORDER
        return found


class NearestNeighbours:
    """Captions from the training pictures with the most similar vectors (Devlin et al. 2015).

    Of all captions of the neighbours, a picture gets the consensus: the one whose mean similarity to the `COMPARED`
    most similar others is highest.

    vectors: `[N, D]` of the training pictures. captions: those of each, as tokens.
    """

    def __init__(self, vectors: np.ndarray, captions: Sequence[Sequence[Tokens]]) -> None:
        self._vectors = _normalised(vectors)
        self._captions, self._typicality = captions, Typicality(captions)

    def describe(self, vectors: np.ndarray, progress: Callable[[float], None] = lambda share: None) -> list[Tokens]:
        """Return a caption for each of B pictures, given their vectors `[B, D]`."""
        found = []
        for number, vector in enumerate(_normalised(vectors)):
            scores = self._vectors @ vector
            nearest = np.argsort(-scores, kind="stable")[:NEIGHBOURS]
            candidates = [caption for k in nearest for caption in self._captions[k]]
            found.append(candidates[consensus(self._typicality.similarities(candidates))])
            progress((number + 1) / len(vectors))
        return found


def consensus(similarities: np.ndarray, compared: int = COMPARED) -> int:
    """Return the number of the caption that is most similar to the others, given `similarities [N, N]`."""
    others = similarities.copy()
    np.fill_diagonal(others, -np.inf)
    count = min(compared, len(others) - 1)
    if not count:
        return 0
    best = -np.partition(-others, count - 1, axis=1)[:, :count]
    return int(best.mean(1).argmax())


def constant_caption(captions: Sequence[Sequence[Tokens]], most: int = 2000, seed: int = 0) -> Tokens:
    """Return the most typical caption of training: the consensus of all captions, or of `most` drawn at random."""
    every = [caption for some in captions for caption in some]
    if len(every) > most:
        chosen = np.random.default_rng(seed).permutation(len(every))[:most]
        every = [every[k] for k in np.sort(chosen)]
    return every[consensus(Typicality(captions).similarities(every), len(every))]


def _normalised(vectors: np.ndarray) -> np.ndarray:
    values = vectors.astype(np.float32)
    found: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return found


def _ngrams(tokens: Tokens) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(tokens[k : k + n]) for n in range(1, ORDER + 1) for k in range(len(tokens) - n + 1))
