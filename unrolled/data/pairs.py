"""Sentence pairs from two files with corresponding lines, as token numbers, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from unrolled.data.batch import Pair
from unrolled.data.lines import open_lines
from unrolled.data.vocabulary import Vocabulary
from unrolled.errors import DataError, RunError

#: The value after the end of a sentence, in batches and in targets.
PADDING = -1


def read_line_pairs(source: str, target: str) -> tuple[list[str], list[str]]:
    """Return the lines of both files. Raises DataError if one file has more lines than the other."""
    pair = list(open_lines(source)), list(open_lines(target))
    if len(pair[0]) != len(pair[1]):
        raise DataError(
            f"{source} has {len(pair[0]):,} lines and {target} has {len(pair[1]):,}: line k of one must belong to "
            "line k of the other"
        )
    return pair


@dataclass(frozen=True)
class Sentences:
    """Sentences as token numbers: `tokens [N]` of all sentences, and where each begins and ends, `starts [count+1]`."""

    tokens: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[np.ndarray]) -> Sentences:
        lengths = [len(sentence) for sentence in sentences]
        tokens = np.concatenate(sentences) if sentences else np.empty(0)
        return cls(tokens.astype(np.int32), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def fit(self, size: int) -> bool:
        """Return whether these are valid sentences over a vocabulary of `size` tokens."""
        ends = len(self.starts) > 0 and self.starts[0] == 0 and self.starts[-1] == len(self.tokens)
        known = not len(self.tokens) or (self.tokens.min() >= 0 and self.tokens.max() < size)
        return bool(ends and known and (self.lengths >= 0).all())


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs: sentence k of `source` and sentence k of `target`."""

    source: Sentences
    target: Sentences

    def __len__(self) -> int:
        return len(self.source)


def encode_line(vocabulary: Vocabulary, line: str) -> np.ndarray:
    """Return a sentence's tokens, int64 `[N]`.

    For BPE a space is added in front, so that the first word has the same tokens as in any other place.
    """
    line = " ".join(line.split())
    return vocabulary.encode(" " + line if vocabulary.level == "bpe" and line else line)


def decode_line(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    """Return the text of a sentence, on one line."""
    return " ".join(vocabulary.decode(tokens).split())


def encode_pairs(
    lines: tuple[Sequence[str], Sequence[str]], source: Vocabulary, target: Vocabulary, max_length: int
) -> Pairs:
    """Encode the pairs of lines. A pair is left out if a sentence is empty or longer than `max_length` tokens."""
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for one, other in zip(*lines, strict=True):
        pair = encode_line(source, one), encode_line(target, other)
        if all(0 < len(sentence) <= max_length for sentence in pair):
            kept.append(pair)
    return Pairs(Sentences.of([one for one, _ in kept]), Sentences.of([other for _, other in kept]))


def save_pairs(path: Path, parts: dict[str, Pairs]) -> None:
    """Write named sets of pairs to one file."""
    arrays = {}
    for name, pairs in parts.items():
        for side in ("source", "target"):
            sentences: Sentences = getattr(pairs, side)
            arrays[f"{name}.{side}"], arrays[f"{name}.{side}.starts"] = sentences.tokens, sentences.starts
    save_file(arrays, path)


def load_pairs(path: Path) -> dict[str, Pairs]:
    """Read a file of `save_pairs`. Raises RunError if it is missing or is not such a file."""
    try:
        arrays = load_file(path)
        names = dict.fromkeys(key.split(".")[0] for key in arrays)
        return {
            name: Pairs(
                *(Sentences(arrays[f"{name}.{side}"], arrays[f"{name}.{side}.starts"]) for side in ("source", "target"))
            )
            for name in names
        }
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: no encoded sentence pairs here ({type(error).__name__}: {error})") from error


def pad(sentences: Sequence[np.ndarray], end: int) -> Tensor:
    """Return the sentences as int64 `[T, B]`. Each is followed by `end` and then by PADDING."""
    longest = max((len(sentence) for sentence in sentences), default=0) + 1
    batch = np.full((longest, len(sentences)), PADDING, dtype=np.int64)
    for column, sentence in enumerate(sentences):
        batch[: len(sentence), column] = sentence
        batch[len(sentence), column] = end
    return torch.from_numpy(batch)


class PairBatches:
    """One pass over `pairs` in batches of `batch_size` pairs of similar length, in a random order given by `seed`.

    ends: the end tokens of the source and of the target vocabulary.
    bucket: how many batches form a stretch. Pairs are shuffled, sorted by length within each stretch, and the batches
        are shuffled again. So there is little padding, and each seed gives another order.

    `chunk(number)` is `(source [S, B], target [T, B])`, int64. Each sentence is followed by its end token and PADDING.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch_size: int,
        ends: tuple[int, int],
        seed: Sequence[int],
        *,
        bucket: int = 50,
    ) -> None:
        if not len(pairs):
            raise DataError("there is no sentence pair to learn from: in each pair a line is empty or too long")
        self.pairs, self.ends = pairs, ends
        random = np.random.default_rng(list(seed))
        order = random.permutation(len(pairs))
        longest_first = -(pairs.target.lengths + pairs.source.lengths / 1024)
        stretches = [order[k : k + bucket * batch_size] for k in range(0, len(order), bucket * batch_size)]
        batches = [
            stretch[np.argsort(longest_first[stretch], kind="stable")][k : k + batch_size]
            for stretch in stretches
            for k in range(0, len(stretch), batch_size)
        ]
        self.batches = [batches[k] for k in random.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self.batches)

    def chunk(self, number: int) -> tuple[Tensor, Tensor]:
        chosen = self.batches[number]
        source, target = (
            pad([side[k] for k in chosen], end)
            for side, end in zip((self.pairs.source, self.pairs.target), self.ends, strict=True)
        )
        return source, target

    def batch(self, number: int) -> Pair:
        """Return batch `number` for the training loop."""
        return Pair(*self.chunk(number))
