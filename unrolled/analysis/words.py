"""Word vectors: neighbours, analogies, and a map in two dimensions."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unrolled.data.lines import open_lines, split_blanks
from unrolled.data.vectors import WordVectors
from unrolled.errors import ConfigurationError, DataError


class Neighbours:
    """Word vectors scaled to length 1, so that the cosine is a dot product."""

    def __init__(self, vectors: WordVectors) -> None:
        self.words = vectors.words
        self._number = {word: k for k, word in enumerate(vectors.words)}
        lengths = np.linalg.norm(vectors.values, axis=1, keepdims=True)
        self.values = vectors.values / np.maximum(lengths, 1e-12)

    def __contains__(self, word: str) -> bool:
        return word in self._number

    def vector(self, word: str) -> np.ndarray:
        """Return the word's vector, of length 1. Raises ConfigurationError if the word is not known."""
        if word not in self._number:
            close = difflib.get_close_matches(word, self.words, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigurationError(f"there is no vector for {word!r}{hint}")
        return self.values[self._number[word]]

    def places(self, words: Sequence[str]) -> tuple[int, ...] | None:
        """Return the words' rows in `values`, or None if a word is not known."""
        found = [self._number.get(word) for word in words]
        return None if None in found else tuple(place for place in found if place is not None)

    def nearest(self, direction: np.ndarray, count: int, without: Iterable[str] = ()) -> list[tuple[str, float]]:
        """Return the `count` words whose cosine with `direction` is highest, each with its cosine."""
        cosines = self.values @ (direction / max(float(np.linalg.norm(direction)), 1e-12))
        for word in without:
            cosines[self._number[word]] = -np.inf
        best = np.argsort(-cosines)[:count]
        return [(self.words[k], float(cosines[k])) for k in best if np.isfinite(cosines[k])]

    def analogy(self, a: str, b: str, c: str, count: int = 1) -> list[tuple[str, float]]:
        """Return the words nearest to `a - b + c`, without these three (3CosAdd, Mikolov et al. 2013).

        For example, king - man + woman is near queen.
        """
        direction = self.vector(a) - self.vector(b) + self.vector(c)
        return self.nearest(direction, count, without=(a, b, c))


@dataclass(frozen=True)
class AnalogyScore:
    """How many analogy questions were asked and how many answers were right.

    left_out: the number of questions with an unknown word, which are not asked.
    """

    right: int
    asked: int
    left_out: int

    def __add__(self, other: AnalogyScore) -> AnalogyScore:
        return AnalogyScore(self.right + other.right, self.asked + other.asked, self.left_out + other.left_out)


def score_analogies(neighbours: Neighbours, path: Path) -> dict[str, AnalogyScore]:
    """Score the analogies of a file in word2vec's format: a line `a b c d` asks for b - a + c = d.

    A line that begins with `:` is the title of the questions after it, and the scores are by title. Questions before
    the first title have the title "". The file may be plain or gzip. Raises DataError, with the line number, if a
    question does not have four words.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    asked: dict[str, list[tuple[int, ...]]] = {}
    left_out: Counter[str] = Counter()
    title = ""
    for number, line in enumerate(open_lines(path), 1):
        words = split_blanks(line)
        if words[:1] == [":"]:
            title = " ".join(words[1:])
        elif words:
            if len(words) != 4:
                raise DataError(f"{path}:{number}: four words are expected, got {len(words)}")
            asked.setdefault(title, [])
            places = neighbours.places([word if word in neighbours else word.lower() for word in words])
            if places is None:
                left_out[title] += 1
            else:
                asked[title].append(places)
    return {
        title: AnalogyScore(_count_right(neighbours.values, questions), len(questions), left_out[title])
        for title, questions in asked.items()
    }


def _count_right(values: np.ndarray, questions: list[tuple[int, ...]], at_once: int = 256) -> int:
    """Count the questions `a b c d`, given as rows of `values [N, width]`, for which d is the answer found."""
    right = 0
    for first in range(0, len(questions), at_once):
        a, b, c, d = np.array(questions[first : first + at_once]).T
        cosines = (values[b] - values[a] + values[c]) @ values.T
        for given in (a, b, c):
            cosines[np.arange(len(d)), given] = -np.inf
        right += int((cosines.argmax(1) == d).sum())
    return right


def flatten(values: np.ndarray) -> np.ndarray:
    """Project `values [N, width]` onto their two principal components: `[N, 2]`."""
    centred = values - values.mean(0)
    if min(centred.shape) < 2:
        raise ConfigurationError("a map needs at least two words, and vectors of two numbers")
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * spread[:2]


def draw_map(neighbours: Neighbours, words: Sequence[str]):
    """Draw the words at their vectors' first two principal components."""
    from unrolled.analysis.figures import canvas, literal

    places = flatten(np.stack([neighbours.vector(word) for word in words]))
    figure = canvas(7.5, 6)
    axes = figure.add_subplot()
    axes.plot(places[:, 0], places[:, 1], ".", color="#3182bd")
    for word, (x, y) in zip(words, places, strict=True):
        axes.annotate(literal(word), (x, y), textcoords="offset points", xytext=(4, 3), fontsize=9)
    axes.set(xlabel="first principal component", ylabel="second")
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    return figure
