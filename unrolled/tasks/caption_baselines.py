"""Captions without a decoder, with which every captioner is compared: a constant one, and those of similar pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from unrolled.metrics.cider import ORDER

#: What Devlin et al. found best: this many neighbours, and the captions that each candidate is compared with.
NEIGHBOURS, COMPARED = 60, 125

Tokens = Sequence[Hashable]


class Typicality:
    """How similar captions of training are to each other: the mean cosine of CIDEr over n-grams of 1 to 4 words.

    pictures: the captions of every picture, as tokens. A picture is a document.
    """

    def __init__(self, pictures: Sequence[Sequence[Tokens]]) -> None:
        number: dict[tuple[Hashable, ...], int] = {}
        found: list[int] = []
        counts: list[int] = []
        sizes: list[int] = []
        seen: list[int] = []
        #: The number of the first caption of each picture.
        self.first = np.cumsum([0, *map(len, pictures)])
        for captions in pictures:
            begun = len(found)
            for tokens in captions:
                ngrams = _ngrams(tokens)
                found += [number.setdefault(ngram, len(number)) for ngram in ngrams]
                counts += ngrams.values()
                sizes.append(len(ngrams))
            seen += set(found[begun:])
        order = np.array([len(ngram) - 1 for ngram in number])
        documents = np.bincount(np.array(seen, np.int64), minlength=len(number))
        self._ids, self._starts = np.array(found, np.int64), np.cumsum([0, *sizes])
        idf = np.log(max(2, len(pictures)) / np.maximum(documents, 1))
        values = np.array(counts) * idf[self._ids]
        group = np.repeat(np.arange(len(sizes)), sizes) * ORDER + order[self._ids]
        norms = np.sqrt(np.bincount(group, values**2, minlength=len(sizes) * ORDER))
        self._values = (values / np.maximum(norms[group], 1e-12)).astype(np.float32)

    def similarities(self, captions: np.ndarray) -> np.ndarray:
        """Return the similarity of every two of the captions with these numbers `[N]`, `[N, N]`, from 0 to 1."""
        entries = [np.arange(self._starts[k], self._starts[k + 1]) for k in captions]
        chosen = np.concatenate(entries)
        _, column, times = np.unique(self._ids[chosen], return_inverse=True, return_counts=True)
        shared = times > 1  # an n-gram of one caption alone adds to its norm, but to no product
        kept = shared[column]
        place = (np.cumsum(shared) - 1)[column[kept]]
        row = np.repeat(np.arange(len(captions)), [len(one) for one in entries])[kept]
        vectors = np.zeros((len(captions), int(shared.sum())), np.float32)
        vectors[row, place] = self._values[chosen[kept]]
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

    def describe(self, vectors: np.ndarray) -> list[Tokens]:
        """Return a caption for each of B pictures, given their vectors `[B, D]`."""
        found, first = [], self._typicality.first
        for vector in _normalised(vectors):
            nearest = np.argsort(-(self._vectors @ vector), kind="stable")[:NEIGHBOURS]
            numbers = np.concatenate([np.arange(first[k], first[k + 1]) for k in nearest])
            best = int(numbers[consensus(self._typicality.similarities(numbers))])
            picture = int(np.searchsorted(first, best, side="right")) - 1
            found.append(self._captions[picture][best - first[picture]])
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


def constant_caption(pictures: Sequence[Sequence[Tokens]], most: int = 2000, seed: int = 0) -> Tokens:
    """Return the most typical caption of training: the consensus of all captions, or of `most` drawn at random."""
    every = [caption for some in pictures for caption in some]
    numbers = np.arange(len(every))
    if len(every) > most:
        numbers = np.sort(np.random.default_rng(seed).permutation(len(every))[:most])
    best: Tokens = every[numbers[consensus(Typicality(pictures).similarities(numbers), len(numbers))]]
    return best


def _normalised(vectors: np.ndarray) -> np.ndarray:
    values = vectors.astype(np.float32)
    found: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return found


def _ngrams(tokens: Tokens) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(tokens[k : k + n]) for n in range(1, ORDER + 1) for k in range(len(tokens) - n + 1))
