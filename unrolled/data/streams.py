"""Token streams for truncated backpropagation: B contiguous stretches of the text, read in parallel, by chunks."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.data.batch import Stretch
from unrolled.data.split import split_lengths
from unrolled.errors import ConfigurationError, DataError

RELEASE_BYTES = 32 << 20


@dataclass(frozen=True)
class Split:
    """The three contiguous parts of the text, in this order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_tokens(tokens: np.ndarray, validation: float, test: float) -> Split:
    """Split the text: the fractions for validation and test are at its end.

    Raises ConfigurationError if nothing is left to train on.
    """
    first, second, _ = split_lengths(len(tokens), validation, test)
    return Split(tokens[:first], tokens[first : first + second], tokens[first + second :])


def check_tokens(tokens: np.ndarray, limit: int) -> None:
    """Raise DataError if a token is not below `limit`, the vocabulary's size."""
    highest = int(tokens.max(initial=0))
    if highest >= limit:
        raise DataError(f"the encoded text is damaged: token {highest} of a vocabulary of {limit}; start a new run")


class Streams:
    """`tokens [N]` as `batch_size` contiguous streams, cut into chunks of `seq_length` steps.

    In each stream, row t of a chunk is followed by row t+1, and the last row of a chunk by the first row of the next.
    So a state carried from chunk to chunk sees the whole stream. `offset` skips that many tokens at the start. `limit`
    is the vocabulary's size: reading a token that is not below it raises DataError. `backward_length` and `carry_state`
    are passed to `Stretch`.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: int,
        seq_length: int,
        offset: int = 0,
        limit: int | None = None,
        *,
        backward_length: int = 0,
        carry_state: bool = True,
    ) -> None:
        self.limit, self._backward_length, self._carry_state = limit, backward_length, carry_state
        for name, value in (("batch size", batch_size), ("sequence length", seq_length)):
            if value < 1:
                raise ConfigurationError(f"the {name} must be at least 1, got {value}")
        needed = batch_size * seq_length + 1
        if len(tokens) < needed:
            raise DataError(
                f"the text is shorter than one batch: {len(tokens):,} tokens to train on, but {batch_size} streams × "
                f"{seq_length} steps need {needed:,}; use more text, fewer streams or shorter sequences"
            )
        if len(tokens) - offset < needed:
            offset = 0
        self.tokens, self.batch_size, self.seq_length, self.offset = tokens, batch_size, seq_length, offset
        self.stream_length = (len(tokens) - offset - 1) // batch_size
        self._mapped: Any = getattr(tokens, "_mmap", None)
        self._read = 0

    def __len__(self) -> int:
        """Return the number of chunks in a pass. The last may be shorter."""
        return -(-self.stream_length // self.seq_length)

    def chunk(self, number: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, each int64 `[T, B]`. The targets are the inputs one step later."""
        if not 0 <= number < len(self):
            raise IndexError(f"chunk {number} of {len(self)}")
        first = number * self.seq_length
        last = min(first + self.seq_length, self.stream_length)
        starts = self.offset + np.arange(self.batch_size) * self.stream_length
        window = np.stack([self.tokens[s + first : s + last + 1] for s in starts], axis=1)
        if self.limit is not None:
            check_tokens(window, self.limit)
        both = torch.from_numpy(window.astype(np.int64))
        self._release(window.nbytes)
        return both[:-1], both[1:]

    def batch(self, number: int) -> Stretch:
        """Return chunk `number` for the training loop."""
        inputs, targets = self.chunk(number)
        return Stretch(inputs, targets, self._backward_length, self._carry_state)

    def _release(self, read: int) -> None:
        """Release the pages of a mapped file that were read, from time to time. They would all stay in memory."""
        self._read += read
        if self._read > RELEASE_BYTES and hasattr(self._mapped, "madvise"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._read = 0
