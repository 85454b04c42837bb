"""Scores of many units against many labels at once: AUC for yes-or-no labels, correlation for numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the mean ranks of float16 `values [N]` as float32, on a scale of length 1 centred on 0.

    Ties share their mean rank. Half precision has 63,488 values that are numbers, so a table of how often each occurs
    replaces sorting.
    """
    bits = values.view(np.uint16)
    # These unsigned keys sort like the floats; -0 and 0 have the same key.
    keys = np.where(bits & 0x8000, 0x8000 - (bits & 0x7FFF), bits + 0x8000).astype(np.uint16)
    counts = np.bincount(keys, minlength=1 << 16)
    below = np.cumsum(counts) - counts
    mean = (below + (counts + 1) / 2 - 0.5) / len(values) - 0.5
    return mean.astype(np.float32)[keys]


#: How many separate stretches of yes, and of no, a label must have.
STRETCHES = 5


def is_scorable(label: np.ndarray) -> bool:
    """Return whether a label varies enough over the text to be scored.

    A yes, or a no, must come in at least `STRETCHES` stretches. With fewer, any unit that happens to differ there would
    score well. Labels that are numbers need two different values.
    """
    if label.dtype != np.bool_:
        return bool(label.size and label.min() < label.max())
    return int(np.count_nonzero(np.diff(label))) >= 2 * STRETCHES - 1


class Labels:
    """Label columns `[N, K]`, each yes-or-no (bool) or graded (float), prepared for scoring."""

    def __init__(self, columns: Sequence[np.ndarray]) -> None:
        self.graded = np.array([column.dtype != np.bool_ for column in columns])
        self.count = len(columns[0]) if columns else 0
        # One row for each label keeps the text, by far the longest side, contiguous for matrix products.
        rows = np.zeros((len(columns), self.count), dtype=np.float32)
        #: Which columns vary enough to be scored.
        self.usable = np.array([is_scorable(column) for column in columns], dtype=bool)
        self._shares = np.zeros(len(columns))
        for k, column in enumerate(columns):
            numbers = column.astype(np.float64)
            spread = numbers.std()
            self._shares[k] = numbers.mean()
            if spread > 0:
                rows[k] = (numbers - numbers.mean()) / (spread if self.graded[k] else 1.0)
        # Each row is repeated once, so that any circular shift is a slice.
        self._yes, self._numbers = (np.tile(rows[kind], 2) for kind in (~self.graded, self.graded))

    def score(self, activations: np.ndarray, shifts: Sequence[int] = (0,)) -> np.ndarray:
        """Return the scores `[S, U, K]` of `activations [U, N]`, float16, for the labels after each of S shifts.

        A shift moves the labels circularly to later places. A score is an AUC from 0 to 1, or Pearson's r from -1 to 1.
        If a column or a unit never changes, its AUC is 0.5 and its r is 0.
        """
        scores = np.zeros((len(shifts), len(activations), len(self.graded)))
        starts = [-shift % max(self.count, 1) for shift in shifts]
        yes = ~self.graded
        if yes.any():
            by_rank = np.stack([ranks(row) for row in activations])
            # AUC = (mean rank of yes - mean rank of no) + 1/2, both from 0 to 1.
            pairs = self.count * self._shares[yes] * (1 - self._shares[yes])
            for place, start in enumerate(starts):
                sums = _products(by_rank, self._yes[:, start : start + self.count])
                centred = np.divide(sums, pairs, out=np.zeros(sums.shape), where=pairs > 0)
                scores[place][:, yes] = np.clip(0.5 + centred, 0, 1)  # rounding in float32 may exceed the range
        if self.graded.any():
            values = activations.astype(np.float32)
            values -= values.mean(1, keepdims=True)
            spread = values.std(1, keepdims=True)
            values /= np.where(spread > 0, spread, 1.0)
            for place, start in enumerate(starts):
                sums = _products(values, self._numbers[:, start : start + self.count])
                scores[place][:, self.graded] = np.clip(sums / self.count, -1, 1)
        return scores


def _products(units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return `units [U, N]` times `labels [K, N]`: `[U, K]`. PyTorch computes it, since its thread count can be set."""
    return (torch.from_numpy(labels) @ torch.from_numpy(units).T).T.numpy()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let each product use only the thread that calls it, so that calls from several threads do not compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def strength(scores: np.ndarray, graded: np.ndarray) -> np.ndarray:
    """Return how far each score `[..., K]` is from chance, from 0 to 1, whether above or below it.

    The strength is `|r|` for graded labels. For the others `max(AUC, 1 - AUC)` is `(1 + strength) / 2`.
    """
    return np.where(graded, np.abs(scores), np.abs(2 * scores - 1))


def shifted_spread(values: np.ndarray, label: np.ndarray) -> float:
    """Return the standard deviation of the score of `values [N]` (float16) over all circular shifts of `label [N]`.

    A shifted label stays on and off for the same lengths, but no longer depends on the text. So this is the score's
    spread by chance. It is much larger for labels that come in long stretches than for single characters. Shifts of
    less than a hundredth of the text are left out.
    """
    graded = label.dtype != np.bool_
    signal = values.astype(np.float64) if graded else ranks(values).astype(np.float64)
    wanted = label.astype(np.float64)
    if signal.std() == 0 or wanted.std() == 0:
        return 0.0
    signal = (signal - signal.mean()) / (signal.std() if graded else 1.0)
    scale = len(label) * (wanted.std() if graded else wanted.mean() * (1 - wanted.mean()))
    every = np.fft.irfft(np.fft.rfft(signal) * np.conj(np.fft.rfft(wanted - wanted.mean())), len(label)) / scale
    margin = max(1, len(label) // 100)
    return float(every[margin : len(label) - margin].std()) if len(label) > 2 * margin else 0.0
