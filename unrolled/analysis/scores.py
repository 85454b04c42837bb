"""How well each of many units tells each of many labels: AUC for yes or no, correlation for numbers, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks of float16 `values [N]`, from 0 to 1 and centred on 0; float32.

    Half precision has 63,488 values that are numbers: a table of how often each occurs takes the place of sorting, and
    ties share their mean rank.
    """
    bits = values.view(np.uint16)
    # In this order unsigned numbers sort as the floats do; -0 and 0 are one value.
    keys = np.where(bits & 0x8000, 0x8000 - (bits & 0x7FFF), bits + 0x8000).astype(np.uint16)
    counts = np.bincount(keys, minlength=1 << 16)
    below = np.cumsum(counts) - counts
    mean = (below + (counts + 1) / 2 - 0.5) / len(values) - 0.5
    return mean.astype(np.float32)[keys]


#: Separate stretches of yes, and of no, that a label must have.
STRETCHES = 5


def can_be_told(label: np.ndarray) -> bool:
    """False where a label says the same of every character, or nearly: a yes, or a no, that comes in fewer than
    `STRETCHES` stretches is found by any unit that happens to differ there."""
    if label.dtype != np.bool_:
        return bool(label.size and label.min() < label.max())
    return int(np.count_nonzero(np.diff(label))) >= 2 * STRETCHES - 1


class Labels:
    """Label columns `[N, K]`, each yes-or-no (bool) or graded (float), prepared for scoring."""

    def __init__(self, columns: Sequence[np.ndarray]) -> None:
        self.graded = np.array([column.dtype != np.bool_ for column in columns])
        self.count = len(columns[0]) if columns else 0
        # Rows, as matrix products want them: the text is by far the longest side.
        rows = np.zeros((len(columns), self.count), dtype=np.float32)
        #: Those of which something can be said.
        self.usable = np.array([can_be_told(column) for column in columns], dtype=bool)
        self._shares = np.zeros(len(columns))
        for k, column in enumerate(columns):
            numbers = column.astype(np.float64)
            spread = numbers.std()
            self._shares[k] = numbers.mean()
            if spread > 0:
                rows[k] = (numbers - numbers.mean()) / (spread if self.graded[k] else 1.0)
        # Twice over, so that any circular shift is a slice.
        self._yes, self._numbers = (np.tile(rows[kind], 2) for kind in (~self.graded, self.graded))

    def score(self, activations: np.ndarray, shifts: Sequence[int] = (0,)) -> np.ndarray:
        """Of `activations [U, N]`, float16, the score `[S, U, K]` of the labels as they are after each circular shift
        of `shifts`, to later places: AUC from 0 to 1, or Pearson's r from -1 to 1.

        A column or a unit that never changes scores 0.5, or 0.
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
                scores[place][:, yes] = np.clip(0.5 + centred, 0, 1)  # in float32 it may come out a little beyond
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
    """`units [U, N]` times `labels [K, N]`: `[U, K]`. By PyTorch, which can be told how many threads to use."""
    return (torch.from_numpy(labels) @ torch.from_numpy(units).T).T.numpy()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let products run in the thread that asks for them: where several ask, more would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def strength(scores: np.ndarray, graded: np.ndarray) -> np.ndarray:
    """How far each score `[..., K]` is from chance, 0 to 1; a unit that is off where the label is on tells as much.

    `max(AUC, 1 - AUC)` is `(1 + strength) / 2`, and `|r|` is the strength.
    """
    return np.where(graded, np.abs(scores), np.abs(2 * scores - 1))


def shifted_spread(values: np.ndarray, label: np.ndarray) -> float:
    """The standard deviation of the score of `values [N]` (float16) over all circular shifts of `label [N]`.

    Shifted, a label keeps how long it stays on and off, and loses what it has to do with the text. That is the score's
    spread by chance, much larger for labels that come in long stretches than for single characters. Shifts of less than
    a hundredth of the text are left out.
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
