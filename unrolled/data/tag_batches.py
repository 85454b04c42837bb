"""Tagged sentences as numbers: what their words, characters and tags are numbered by, and batches of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from unrolled.data.batch import Batch
from unrolled.data.lines import read_json
from unrolled.data.tagged import TaggedSentence
from unrolled.data.words import UNKNOWN
from unrolled.errors import DataError, RunError

#: Characters of a word that are read, from its start and from its end.
_HEAD, _TAIL = 24, 16


class Index:
    """Strings by number; all others have the number 0."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = list(strings)
        self.number = {string: k for k, string in enumerate(self.strings)}

    @classmethod
    def learn(cls, counts: Counter[str], min_count: int = 1) -> Self:
        """Return the index of the strings that occur at least that often, after the unknown one, number 0."""
        known = sorted((string for string in counts if counts[string] >= min_count), key=lambda s: (-counts[s], s))
        return cls([UNKNOWN, *(string for string in known if string != UNKNOWN)])

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index; RunError if it is missing or damaged."""
        try:
            strings = read_json(path)
        except DataError as error:
            raise RunError(f"{error}") from error
        if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
            raise RunError(f"{path}: damaged, it must be a list of strings")
        if not strings:
            raise RunError(f"{path}: damaged, it is empty")
        if len(set(strings)) != len(strings):
            raise RunError(f"{path}: damaged, a string is in it twice")
        return cls(strings)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.strings, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.strings)

    def __getitem__(self, string: str) -> int:
        return self.number.get(string, 0)


@dataclass(frozen=True)
class TagBatch(Batch):
    """Sentences as numbers; see `unrolled.models.tagger.TaggerInput`. targets: `[T, B]`, -1 after a sentence's end."""

    words: Tensor
    lengths: Tensor
    forms: Tensor
    spellings: Tensor
    spelling_lengths: Tensor
    targets: Tensor

    axes: ClassVar[dict[str, int]] = {"lengths": 0}

    def rows(self, first: int, end: int) -> Self:
        by_row = {
            name: getattr(self, name).narrow(self.axes.get(name, 1), first, end - first)
            for name in ("words", "lengths", "forms", "targets")
        }
        used, by_row["forms"] = by_row["forms"].unique(return_inverse=True)
        by_row["spelling_lengths"] = self.spelling_lengths[used]
        by_row["spellings"] = self.spellings[: int(by_row["spelling_lengths"].max()), used]
        return replace(self, **by_row)


class TagEncoder:
    """Turns sentences into batches, by the numbers of words, characters and tags."""

    def __init__(self, words: Index, characters: Index, tags: Index) -> None:
        self.words, self.characters, self.tags = words, characters, tags
        self._spelt: dict[str, np.ndarray] = {}

    def _spelling(self, word: str) -> np.ndarray:
        known = self._spelt.get(word)
        if known is None:
            cut = word if len(word) <= _HEAD + _TAIL else word[:_HEAD] + word[-_TAIL:]
            known = np.array([self.characters[letter] for letter in cut] or [0], dtype=np.int64)
            if len(self._spelt) < 1 << 20:
                self._spelt[word] = known
        return known

    def batch(self, sentences: Sequence[TaggedSentence]) -> TagBatch:
        """Return a batch of sentences; its targets are -1 where a sentence has no tags, or one that is not known."""
        steps, rows = max(len(one.words) for one in sentences), len(sentences)
        words, forms = np.zeros((steps, rows), np.int64), np.zeros((steps, rows), np.int64)
        targets = np.full((steps, rows), -1, np.int64)
        number: dict[str, int] = {}
        for row, sentence in enumerate(sentences):
            length = len(sentence.words)
            words[:length, row] = [self.words[normalise(word)] for word in sentence.words]
            forms[:length, row] = [number.setdefault(word, len(number)) for word in sentence.words]
            targets[: len(sentence.tags), row] = [self.tags.number.get(tag, -1) for tag in sentence.tags]
        spelt = [self._spelling(word) for word in number]
        lengths = np.array([len(one) for one in spelt], np.int64)
        spellings = np.zeros((int(lengths.max()), len(spelt)), np.int64)
        for column, letters in enumerate(spelt):
            spellings[: len(letters), column] = letters
        counts = [len(one.words) for one in sentences]
        arrays = (words, np.array(counts, np.int64), forms, spellings, lengths, targets)
        return TagBatch(*(torch.from_numpy(array) for array in arrays))


def normalise(word: str) -> str:
    """Return the form of a word under which it has a number: in lower case, digits as 0; its letters keep the rest."""
    return "".join("0" if letter.isdigit() else letter for letter in word.lower())


class TagBatches:
    """One pass over sentences: batches of similar lengths, in an order that depends only on `seed`.

    A batch has at most `batch_size` sentences, and fewer if they are longer than 100 words.
    word_dropout: the probability that a word is unknown to the model, which then has only its letters.
    """

    def __init__(
        self,
        encoder: TagEncoder,
        sentences: Sequence[TaggedSentence],
        batch_size: int,
        seed: Sequence[int],
        word_dropout: float = 0.0,
    ) -> None:
        self.encoder, self.sentences = encoder, sentences
        self.seed, self.word_dropout = list(seed), word_dropout
        draw = np.random.default_rng(list(seed))
        order = draw.permutation(len(sentences))
        pool = 50 * batch_size
        lengths = np.array([len(one.words) for one in sentences])
        cut: list[np.ndarray] = []
        for first in range(0, len(order), pool):
            some = order[first : first + pool]
            some = some[np.argsort(lengths[some], kind="stable")]
            first_of = 0
            for end in range(1, len(some) + 1):
                full = end - first_of == batch_size
                if end == len(some) or full or lengths[some[end]] * (end + 1 - first_of) > 100 * batch_size:
                    cut.append(some[first_of:end])
                    first_of = end
        self.batches = [cut[k] for k in draw.permutation(len(cut))]

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> TagBatch:
        batch = self.encoder.batch([self.sentences[k] for k in self.batches[number]])
        if not self.word_dropout:
            return batch
        draws = np.random.default_rng([*self.seed, number]).random(batch.words.shape)
        return replace(batch, words=batch.words.where(torch.from_numpy(draws >= self.word_dropout), 0))


def count_tags(sentences: Iterable[TaggedSentence]) -> Counter[str]:
    """Return how often each tag occurs."""
    return Counter(tag for sentence in sentences for tag in sentence.tags)


def as_json(sentences: Iterable[TaggedSentence]) -> list[Any]:
    """Return sentences as JSON has them."""
    return [[list(one.words), list(one.tags)] for one in sentences]


def sentences_of(stored: Any) -> list[TaggedSentence]:
    """Return sentences from JSON; ValueError or TypeError if it holds something else."""
    found = [TaggedSentence(tuple(words), tuple(tags)) for words, tags in stored]
    for one in found:
        if not one.words or len(one.words) != len(one.tags):
            raise ValueError("a sentence must have as many tags as words, and one word at least")
        if not all(isinstance(each, str) for each in (*one.words, *one.tags)):
            raise TypeError("words and tags must be strings")
    return found
