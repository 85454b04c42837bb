"""Fast reading of one long text as several parallel streams, each with a warmed-up first state."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from unrolled.layers.nest import Nest, map_state


class WarmStreams:
    """A text of `length` tokens as `count` streams of `size` tokens, one per column, in windows of `steps` tokens.

    count: the most streams. There are fewer if a stream would be shorter than two windows.
    """

    def __init__(self, length: int, count: int = 16, steps: int = 256) -> None:
        self.length, self.steps = length, steps
        self.count = max(1, min(count, length // (2 * steps)))
        self.size = -(-length // self.count)
        self._starts = np.arange(self.count) * self.size

    def warm(self, tokens: np.ndarray, read: Callable[[np.ndarray], Nest]) -> Nest:
        """Return the first state of the streams of `tokens [length]`, or None, the empty state, for a single stream.

        read: a function that returns the state after tokens `[steps, count]`.

        Each stream except the first is warmed up with the `steps` tokens before it. The first starts from zeros.
        """
        if self.count == 1:
            return None
        early = [tokens[max(0, start - self.steps) : max(self.steps, start)] for start in self._starts]
        state = read(np.stack(early, axis=1))
        return map_state(lambda part: part.index_fill(-2, part.new_zeros(1, dtype=torch.long), 0.0), state)

    def windows(self) -> Iterator[slice]:
        """Yield the windows as slices of a stream."""
        for first in range(0, self.size, self.steps):
            yield slice(first, min(first + self.steps, self.size))

    def cut(self, values: np.ndarray, window: slice) -> np.ndarray:
        """Return the part of `values [length]` in a window, `[T, count]`, with zeros after the end of the text."""
        found = np.zeros((window.stop - window.start, self.count), dtype=values.dtype)
        for column, start in enumerate(self._starts):
            stretch = values[start + window.start : start + window.stop]
            found[: len(stretch), column] = stretch
        return found

    def inside(self, window: slice) -> np.ndarray:
        """Return a mask of the positions in a window that are inside the text, `[T, count]`."""
        return np.arange(window.start, window.stop)[:, None] + self._starts < self.length
