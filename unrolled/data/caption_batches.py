"""Captions of pictures as numbers, and batches of pictures with several captions each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from unrolled.data.batch import Batch, by_similar_length
from unrolled.data.pairs import Sentences, pad
from unrolled.errors import RunError

#: Batches among which pictures are sorted by the length of their longest caption.
_POOL = 30
#: A function that gives the vectors `[N, D]` and, if they are wanted, the grids `[N, P, C]` of pictures by number.
ReadFeatures = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class CaptionBatch(Batch):
    """B pictures with n captions each.

    vectors: `[B, D]`. grids: `[B, P, C]`, or None. targets: tokens `[T, B, n]`, each caption followed by the end mark
    and then by -1; a caption that does not exist is -1 throughout. pictures: the numbers of the pictures, `[B]`.
    """

    vectors: Tensor
    grids: Tensor | None
    targets: Tensor
    pictures: Tensor

    axes: ClassVar[dict[str, int]] = {"vectors": 0, "grids": 0, "pictures": 0}


@dataclass(frozen=True)
class EncodedCaptions:
    """All captions of some pictures: those of picture k are the sentences from `first[k]` to before `first[k + 1]`."""

    sentences: Sentences
    first: np.ndarray

    @classmethod
    def of(cls, captions: Iterable[Sequence[np.ndarray]]) -> EncodedCaptions:
        every = list(captions)
        return cls(Sentences.of([one for some in every for one in some]), np.cumsum([0, *map(len, every)]))

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, picture: int) -> list[np.ndarray]:
        return [self.sentences[k] for k in range(self.first[picture], self.first[picture + 1])]

    def fit(self, size: int) -> bool:
        """Return whether these are valid captions over a vocabulary of `size` tokens."""
        first = self.first
        sound = len(first) > 0 and first[0] == 0 and first[-1] == len(self.sentences) and (np.diff(first) >= 0).all()
        return bool(sound) and self.sentences.fit(size)

    def save(self, path: Path) -> None:
        """Write the captions to a file."""
        arrays = {"tokens": self.sentences.tokens, "starts": self.sentences.starts, "first": self.first}
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path) -> EncodedCaptions:
        """Read a file of `save`; RunError if it is missing or damaged."""
        try:
            arrays = load_file(path)
            return cls(Sentences(arrays["tokens"], arrays["starts"]), arrays["first"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunError(f"{path}: no encoded captions here ({type(error).__name__}: {error})") from error


class CaptionBatches:
    """One pass over all captions of some pictures, in an order that depends only on `seed`.

    captions, read: the captions and the features of all pictures of a run, by number.
    pictures: the numbers of the pictures of the pass.
    each: n, the captions of a picture in a batch. A picture with more occurs several times in a pass.
    end: the token that ends a caption.
    """

    def __init__(
        self,
        captions: EncodedCaptions,
        read: ReadFeatures,
        pictures: Sequence[int],
        batch_size: int,
        each: int,
        end: int,
        seed: Sequence[int],
    ) -> None:
        self.captions, self.read, self.each, self.end = captions, read, each, end
        draw = np.random.default_rng(list(seed))
        rows = []
        for picture in pictures:
            order = draw.permutation(np.arange(captions.first[picture], captions.first[picture + 1]))
            rows += [(picture, order[k : k + each]) for k in range(0, len(order), each)]
        longest = np.array([captions.sentences.lengths[some].max() for _, some in rows])
        numbers = by_similar_length(longest, batch_size, draw, _POOL)
        self.batches = [[rows[k] for k in some] for some in numbers]

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> CaptionBatch:
        rows = self.batches[number]
        pictures = np.array([picture for picture, _ in rows])
        sentences = [self.captions.sentences[k] for _, some in rows for k in some]
        padded = pad(sentences, self.end)
        targets = padded.new_full((len(padded), len(rows), self.each), -1)
        columns = [(row, k) for row, (_, some) in enumerate(rows) for k in range(len(some))]
        for column, (row, k) in enumerate(columns):
            targets[:, row, k] = padded[:, column]
        vectors, grids = self.read(pictures)
        return CaptionBatch(
            as_floats(vectors), None if grids is None else as_floats(grids), targets, torch.from_numpy(pictures)
        )


def as_floats(values: np.ndarray) -> Tensor:
    """Return stored features as a float32 tensor."""
    return torch.from_numpy(np.asarray(values, np.float32))
