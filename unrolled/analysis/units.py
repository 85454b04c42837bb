"""Interpretable cells: which unit of a trained model tells which hypothesis, found on one half of a text, confirmed on
the other.

Source: Karpathy, Johnson & Fei-Fei 2016, "Visualizing and Understanding Recurrent Networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from unrolled.analysis.hypotheses import Hypothesis
from unrolled.analysis.scores import Labels, can_be_told, one_thread_each, shifted_spread, strength
from unrolled.analysis.states import trace
from unrolled.cells import State
from unrolled.errors import DataError
from unrolled.models import LanguageModel
from unrolled.models.reading import WarmStreams

#: Units scored at a time: what is made of them in between should stay small.
_AT_ONCE = 32
#: Shifts of the labels that the control is taken from.
CONTROLS = 50


@dataclass(frozen=True, order=True)
class Unit:
    """A place in the state of a model: layer from 1, the state's name, and the unit from 0."""

    layer: int
    state: str
    number: int

    def __str__(self) -> str:
        return f"{self.state}{self.layer}.{self.number}"


@dataclass(frozen=True)
class Activations:
    """The value of every unit after every token: `values [U, N]`, float16, row k that of `units[k]`."""

    units: tuple[Unit, ...]
    values: np.ndarray

    def row(self, unit: Unit) -> np.ndarray:
        return self.values[self.units.index(unit)]


@torch.no_grad()
def read_activations(
    model: LanguageModel, tokens: np.ndarray, streams: int = 16, progress: Callable[[float], None] = lambda share: None
) -> Activations:
    """All states of all layers over `tokens [N]`, read as one text: h and c where the cell has both.

    To be fast the text is read as several streams in step, each but the first from 256 tokens earlier on.
    """
    names, stack = model.recurrent.state_names, model.recurrent
    units = tuple(
        Unit(layer, name, number)
        for layer, widths in enumerate(stack.stack().sizes, 1)
        for name, width in zip(names, widths, strict=True)
        for number in range(width)
    )
    text = WarmStreams(len(tokens), streams)
    values = np.zeros((len(units), text.count * text.size), dtype=np.float16)
    rows = values.reshape(len(units), text.count, text.size)
    early = text.warm(tokens, lambda early: model.read(torch.from_numpy(early))[1])
    states: Sequence[State | None] = stack.by_layer(early)
    for window in text.windows():
        layers = trace(stack, model.embed(torch.from_numpy(text.cut(tokens, window))), states)
        states = [tuple(part[-1] for part in layer.after) for layer in layers]
        made = torch.cat([part for layer in layers for part in layer.after], -1)
        rows[:, :, window] = made.permute(2, 1, 0).to(torch.float16).numpy()
        progress(window.stop / text.size)
    return Activations(units, values[:, : len(tokens)])


@dataclass(frozen=True)
class Finding:
    """The unit that predicted a hypothesis best on the first half of the text, and how it did on the second.

    Scores are AUC, or Pearson's r for graded hypotheses. found: on the first half. held_out: on the second. p: the
    chance of a score like `held_out` for any of all the units and hypotheses that were tried (Bonferroni), by the
    spread of the unit's scores over all shifts of the labels.

    control: the same search where there is nothing to find: the labels of each half are shifted along it, by another
    way, the best of all units is chosen on the first and scored on the second; so `CONTROLS` times. It is their median,
    by distance from chance: AUC above 0.5, r above 0. control_high: 95% of them are at or below it.
    """

    hypothesis: str
    graded: bool
    unit: Unit
    found: float
    held_out: float
    control: float
    control_high: float
    p: float
    #: Share of the second half's characters that are labelled yes; for graded labels their mean.
    share: float

    @property
    def confirmed(self) -> bool:
        """Whether the unit predicts on the second half what it predicted on the first.

        It does if the AUC is at least 0.9 either way, or |r| at least 0.9 (0.8 for a depth, which units seldom count in
        even steps), and p is below 0.01.
        """
        needed = 0.8 if not self.graded or self.hypothesis.startswith("depth") else 0.9
        return self.strength >= needed and self.p < 0.01 and self.same_sign

    @property
    def strength(self) -> float:
        """0 by chance, 1 without error: |r|, or twice the AUC's distance from 0.5."""
        return abs(self.held_out) if self.graded else abs(2 * self.held_out - 1)

    @property
    def same_sign(self) -> bool:
        chance = 0.0 if self.graded else 0.5
        return (self.found > chance) == (self.held_out > chance)


def find_units(activations: Activations, hypotheses: Sequence[Hypothesis], seed: int = 1) -> list[Finding]:
    """For each hypothesis the best unit of all; those that label nothing in a half of the text are left out.

    Labels are `[N]`, one for each token that `activations` holds.
    """
    values = activations.values
    half = values.shape[1] // 2
    if half < 100:
        raise DataError(f"{values.shape[1]} characters are too few to tell units apart; give at least 200")
    first, second = values[:, :half], values[:, half : 2 * half]
    columns = [[h.labels[:half] for h in hypotheses], [h.labels[half : 2 * half] for h in hypotheses]]
    labels = Labels(columns[0])
    generator = np.random.default_rng(seed)
    # The first is no shift: what is really there.
    shifts = [[0, *generator.integers(half // 20, half - half // 20, CONTROLS).tolist()] for _ in range(2)]

    def best_of(start: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a few units the best for each shift and hypothesis, `[S, K]`, and its score."""
        scores = labels.score(first[start : start + _AT_ONCE], shifts[0])
        best = strength(scores, labels.graded).argmax(1)
        return best + start, np.take_along_axis(scores, best[:, None], 1)[:, 0]

    def confirm(k: int) -> np.ndarray:
        """The scores on the second half of the units that were chosen for hypothesis k, each under its shift, `[S]`."""
        units, places = np.unique(chosen[:, k], return_inverse=True)
        scores = Labels([columns[1][k]]).score(second[units], shifts[1])
        return scores[np.arange(len(places)), places, 0]

    with one_thread_each(), ThreadPoolExecutor(2) as pool:  # most of the work is outside of Python's lock
        units, scores = map(np.stack, zip(*pool.map(best_of, range(0, len(first), _AT_ONCE)), strict=True))
        block = strength(scores, labels.graded).argmax(0)[None]
        chosen, found = (np.take_along_axis(part, block, 0)[0] for part in (units, scores))
        confirmed = list(pool.map(confirm, range(len(hypotheses))))
    tried = len(values) * len(hypotheses)
    findings = []
    for k, hypothesis in enumerate(hypotheses):
        label = columns[1][k]
        if not labels.usable[k] or not can_be_told(label):
            continue
        unit, held_out = int(chosen[0, k]), float(confirmed[k][0])
        controls = strength(confirmed[k][1:], np.array(hypothesis.graded))
        controls = controls if hypothesis.graded else (1 + controls) / 2
        spread = shifted_spread(second[unit], label)
        away = abs(held_out - (0.0 if hypothesis.graded else 0.5))
        findings.append(
            Finding(
                hypothesis.name,
                hypothesis.graded,
                activations.units[unit],
                float(found[0, k]),
                held_out,
                float(np.median(controls)),
                float(np.quantile(controls, 0.95)),
                min(1.0, tried * math.erfc(away / spread / math.sqrt(2))) if spread > 0 else 1.0,
                float(label.mean()),
            )
        )
    return sorted(findings, key=lambda finding: -finding.strength)


@dataclass(frozen=True)
class Passage:
    """Where a unit is most active: the text around it, and which of its characters that is."""

    text: str
    at: int
    value: float


def top_passages(row: np.ndarray, text: str, sign: float = 1.0, count: int = 5, around: int = 40) -> list[Passage]:
    """The `count` places of the highest activation (the lowest, where `sign` is negative), at least `around` apart."""
    signal = row.astype(np.float32) * sign
    passages: list[Passage] = []
    while len(passages) < count and np.isfinite(signal).any():
        at = int(signal.argmax())
        if not np.isfinite(signal[at]):
            break
        start = max(0, at - around)
        passages.append(Passage(text[start : at + around // 2], at - start, float(row[at])))
        signal[max(0, at - around) : at + around] = -np.inf
    return passages
