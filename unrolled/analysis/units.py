"""Interpretable cells: the units of a trained model that predict hypotheses about a text.

A unit is found on one half of the text and confirmed on the other.

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
from unrolled.analysis.scores import Labels, is_scorable, one_thread_each, shifted_spread, strength
from unrolled.analysis.states import trace
from unrolled.cells import State
from unrolled.errors import DataError
from unrolled.models import LanguageModel
from unrolled.models.reading import WarmStreams

#: How many units are scored at a time, which limits the size of intermediate results.
_AT_ONCE = 32
#: How many shifts of the labels the control uses.
CONTROLS = 50


@dataclass(frozen=True, order=True)
class Unit:
    """One number in a model's state: the layer, counted from 1, the state's name, and the unit, counted from 0."""

    layer: int
    state: str
    number: int

    def __str__(self) -> str:
        return f"{self.state}{self.layer}.{self.number}"


@dataclass(frozen=True)
class Activations:
    """The value of every unit after every token, `values [U, N]`, float16. Row k belongs to `units[k]`."""

    units: tuple[Unit, ...]
    values: np.ndarray

    def row(self, unit: Unit) -> np.ndarray:
        return self.values[self.units.index(unit)]


@torch.no_grad()
def read_activations(
    model: LanguageModel, tokens: np.ndarray, streams: int = 16, progress: Callable[[float], None] = lambda share: None
) -> Activations:
    """Return all states of all layers over `tokens [N]`, read as one text: for example both h and c of an LSTM.

    For speed the text is read as several parallel streams. Each stream except the first starts 256 tokens early.
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
        after = torch.cat([part for layer in layers for part in layer.after], -1)
        rows[:, :, window] = after.permute(2, 1, 0).to(torch.float16).numpy()
        progress(window.stop / text.size)
    return Activations(units, values[:, : len(tokens)])


@dataclass(frozen=True)
class Finding:
    """The unit that predicts a hypothesis best on the first half of the text, and its score on the second half.

    Scores are AUC, or Pearson's r for graded hypotheses. found: the score on the first half. held_out: the score on the
    second half. p: the probability that any of the units and hypotheses gets a score like `held_out` by chance
    (Bonferroni), estimated from the spread of the unit's scores over all shifts of the labels.

    control: the result of the same search with nothing to find. The labels of each half are shifted along it by
    different amounts, the best unit is chosen on the first half and scored on the second. This is repeated `CONTROLS`
    times. `control` is the median of these scores by their distance from chance: AUC above 0.5, r above 0.
    control_high: their 95% quantile.
    """

    hypothesis: str
    graded: bool
    unit: Unit
    found: float
    held_out: float
    control: float
    control_high: float
    p: float
    #: The share of the second half's characters with the label yes; for graded labels their mean.
    share: float

    @property
    def confirmed(self) -> bool:
        """Whether the unit predicts the hypothesis on the second half too, in the same direction as on the first.

        The AUC must be at least 0.9, or at most 0.1; or |r| at least 0.9, or 0.8 for a depth, which units seldom count
        in even steps. In addition p must be below 0.01.
        """
        needed = 0.8 if not self.graded or self.hypothesis.startswith("depth") else 0.9
        return self.strength >= needed and self.p < 0.01 and self.same_sign

    @property
    def strength(self) -> float:
        """The distance from chance: |r|, or twice the AUC's distance from 0.5. 0 is chance, and 1 is without error."""
        return abs(self.held_out) if self.graded else abs(2 * self.held_out - 1)

    @property
    def same_sign(self) -> bool:
        chance = 0.0 if self.graded else 0.5
        return (self.found > chance) == (self.held_out > chance)


def find_units(activations: Activations, hypotheses: Sequence[Hypothesis], seed: int = 1) -> list[Finding]:
    """Find the best unit for each hypothesis. A hypothesis that hardly varies in one half of the text is left out.

    Labels are `[N]`, one for each token of `activations`.
    """
    values = activations.values
    half = values.shape[1] // 2
    if half < 100:
        raise DataError(f"{values.shape[1]} characters are too few to tell units apart; give at least 200")
    first, second = values[:, :half], values[:, half : 2 * half]
    columns = [[h.labels[:half] for h in hypotheses], [h.labels[half : 2 * half] for h in hypotheses]]
    labels = Labels(columns[0])
    generator = np.random.default_rng(seed)
    # The first shift is 0: the real labels. The others are the controls.
    shifts = [[0, *generator.integers(half // 20, half - half // 20, CONTROLS).tolist()] for _ in range(2)]

    def best_of(start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best of a few units for each shift and hypothesis, `[S, K]`, and its score."""
        scores = labels.score(first[start : start + _AT_ONCE], shifts[0])
        best = strength(scores, labels.graded).argmax(1)
        return best + start, np.take_along_axis(scores, best[:, None], 1)[:, 0]

    def confirm(k: int) -> np.ndarray:
        """Return the scores, on the second half, of the units chosen for hypothesis k, each with its shift, `[S]`."""
        units, places = np.unique(chosen[:, k], return_inverse=True)
        scores = Labels([columns[1][k]]).score(second[units], shifts[1])
        return scores[np.arange(len(places)), places, 0]

    with one_thread_each(), ThreadPoolExecutor(2) as pool:  # most of the work releases Python's lock
        units, scores = map(np.stack, zip(*pool.map(best_of, range(0, len(first), _AT_ONCE)), strict=True))
        block = strength(scores, labels.graded).argmax(0)[None]
        chosen, found = (np.take_along_axis(part, block, 0)[0] for part in (units, scores))
        confirmed = list(pool.map(confirm, range(len(hypotheses))))
    tried = len(values) * len(hypotheses)
    findings = []
    for k, hypothesis in enumerate(hypotheses):
        label = columns[1][k]
        if not labels.usable[k] or not is_scorable(label):
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
    """A place where a unit is very active: the text around it, the character's index in that text, and the value."""

    text: str
    at: int
    value: float


def top_passages(row: np.ndarray, text: str, sign: float = 1.0, count: int = 5, around: int = 40) -> list[Passage]:
    """Return the `count` places of highest activation, at least `around` apart.

    If `sign` is negative, they are the places of lowest activation.
    """
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
