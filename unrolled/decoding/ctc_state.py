"""The state of a CTC beam between two frames: arrays with a column for each prefix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from unrolled.decoding.prefixes import History

NEVER = -np.inf
#: The rows of `CTCState.prefix`.
NUMBER, PARENT, LAST, LENGTH, WORD, ROW, PARENT_ROW = range(7)
#: The kinds of paths, which are the first index of `mass`, `best` and `frames`: those that end in the blank, and those
#: that end in the prefix's last label.
BLANK, LABEL = 0, 1


@dataclass(frozen=True)
class Scored:
    """The language model's states and scores `[N, K]` of N prefixes, and the row of each prefix by its number."""

    rows: dict[int, int]
    states: Any
    scores: np.ndarray


@dataclass(frozen=True)
class CTCState:
    """A search after `time` frames, with w prefixes. `CTCBeam` makes and reads it. It can be fed more than once.

    mass: the log-probability of each prefix by all paths of each kind, `[2, w]`.
    best: the log-probability of the best path of each kind, `[2, w]`.
    frames: where the labels are on these best paths, `[2, 3, w]`: the alignment of the labels before the last one, and
        the first and last frame of the last label.
    prefix: numbers that belong to each prefix, `[7, w]`: its number in the history; that of the prefix without the last
        label; the last label, or the blank for the empty prefix; the number of labels; the lexicon's state; and the
        rows in `scored` of this prefix and of the one without the last label, or -1.
    lm: the log-probability of each prefix by the language model, `[w]`.
    labels: the number of labels K, or None before the first frames.
    """

    mass: np.ndarray
    best: np.ndarray
    frames: np.ndarray
    prefix: np.ndarray
    lm: np.ndarray
    time: int
    labels: int | None
    history: History
    scored: Scored | None

    @classmethod
    def first(cls, blank: int, scored: Scored | None) -> CTCState:
        """Return the state before the first frame: the empty prefix with probability 1."""
        certain = np.array([[0.0], [NEVER]])
        frames = np.array([[[0], [-1], [-1]]] * 2)
        prefix = np.array([[0], [-1], [blank], [0], [0], [-1], [-1]])
        return cls(certain, certain, frames, prefix, np.zeros(1), 0, None, History(), scored)

    @cached_property
    def parent_place(self) -> np.ndarray:
        """The place in the beam of the prefix without the last label, `[w]`, or -1 if it is not in the beam."""
        number, parent = self.prefix[NUMBER], self.prefix[PARENT]
        order = number.argsort()
        place = order[np.searchsorted(number, parent, sorter=order).clip(max=len(order) - 1)]
        return np.where(number[place] == parent, place, -1)

    def select(self, places: np.ndarray) -> CTCState:
        """Return the state with only the prefixes at these places, which must be in increasing order."""
        if len(places) == len(self.lm):
            return self
        return replace(
            self,
            mass=self.mass[:, places],
            best=self.best[:, places],
            frames=self.frames[..., places],
            prefix=self.prefix[:, places],
            lm=self.lm[places],
        )

    def best_source(self, source: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best path that a label `[n]` may follow at each place: its log-probability `[n]` and its kind."""
        after_blank = self.best[BLANK, source]
        after_label = np.where(self.prefix[LAST, source] == label, NEVER, self.best[LABEL, source])
        return np.maximum(after_blank, after_label), (after_label > after_blank).astype(int)

    def next_frames(self, source: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Return the columns of `frames`, `[3, n]`, of labels that begin now, after these prefixes."""
        add = self.history.alignments.add
        ends = zip(*self.frames[kind, :, source].T.tolist(), self.prefix[LENGTH, source].tolist(), strict=True)
        before = [add(*end) if length else 0 for *end, length in ends]
        return np.array([before, [self.time] * len(before), [self.time] * len(before)])

    def labels_of(self, place: int) -> tuple[int, ...]:
        """Return the labels of a prefix."""
        return self.history.prefixes.spelled(int(self.prefix[NUMBER, place]))

    def frames_of(self, place: int) -> tuple[tuple[int, int], ...]:
        """Return the first and last frame of every label of a prefix on its best path."""
        if not self.prefix[LENGTH, place]:
            return ()
        kind = int(self.best[LABEL, place] > self.best[BLANK, place])
        before, first, last = self.frames[kind, :, place].tolist()
        return (*self.history.alignments.frames(before), (first, last))

    def compact(self) -> CTCState:
        """Return the state with a history of the beam's own prefixes only, if the history has become long."""
        if self.history.size <= self.history.limit:
            return self
        history, numbers, alignments = self.history.kept(self.prefix[NUMBER], self.frames[:, 0].ravel())
        prefix, frames, scored = self.prefix.copy(), self.frames.copy(), self.scored
        for row in (NUMBER, PARENT):
            prefix[row] = [numbers.get(old, -1) for old in prefix[row].tolist()]
        frames[:, 0] = [[alignments[old] for old in some] for some in frames[:, 0].tolist()]
        if scored is not None:
            scored = replace(scored, rows={numbers[old]: row for old, row in scored.rows.items() if old in numbers})
        return replace(self, prefix=prefix, frames=frames, history=history, scored=scored)
