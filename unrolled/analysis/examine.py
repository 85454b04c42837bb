"""An examination of a trained model's units over one text. `inspect cells` and the report show its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unrolled.analysis.ablation import ablate
from unrolled.analysis.gates import Saturation, saturation
from unrolled.analysis.hypotheses import Hypothesis
from unrolled.analysis.states import trace
from unrolled.analysis.units import Activations, Finding, Passage, find_units, read_activations, top_passages
from unrolled.models import LanguageModel

#: How many tokens gate saturation is measured on, and how many tokens ablation uses.
_GATE_TOKENS, _ABLATION_TOKENS = 5_000, 5_000


@dataclass(frozen=True)
class Examination:
    """The results of `examine`.

    findings: the best first. passages, ablations: for each finding, in the same order, its unit's top passages and how
    much the loss grows without the unit.
    """

    activations: Activations
    findings: list[Finding]
    passages: list[list[Passage]]
    loss: float
    ablations: list[float]
    saturation: list[Saturation]


def examine(
    model: LanguageModel,
    tokens: np.ndarray,
    text: str,
    hypotheses: Sequence[Hypothesis],
    progress: Callable[[str], None] = lambda line: None,
) -> Examination:
    """Examine a model over `tokens [N]`.

    `text` and each hypothesis's labels have length N too: one character and one label for each token.
    """
    read = f"reading {len(tokens):,} characters"
    activations = read_activations(model, tokens, progress=lambda share: progress(f"{read}: {share:.0%}"))
    progress(f"scoring {len(activations.units):,} units on {len(hypotheses)} hypotheses")
    findings = find_units(activations, hypotheses)
    passages = [
        top_passages(activations.row(finding.unit), text, 1.0 if direct(finding) else -1.0) for finding in findings
    ]
    progress("holding units at zero")
    units = sorted({finding.unit for finding in findings})
    loss, changes = ablate(model, tokens[-_ABLATION_TOKENS:], units)
    by_unit = dict(zip(units, changes, strict=True))
    progress("measuring gates")
    with torch.no_grad():
        layers = trace(model.recurrent, model.embed(torch.from_numpy(tokens[:_GATE_TOKENS])[:, None]))
    ablations = [by_unit[finding.unit] for finding in findings]
    return Examination(activations, findings, passages, loss, ablations, saturation(layers))


def direct(finding: Finding) -> bool:
    """Return whether the unit is high where the hypothesis holds, and not low."""
    return finding.held_out > (0.0 if finding.graded else 0.5)


def to_colour(row: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the values `[N]` that a unit's activations are coloured by, float32, and the centre subtracted from them.

    A cell state that leaves ±1 is shown through tanh, as the lectures show it. If it is so far from zero that its tanh
    is nearly constant, it is shown by its distance from its median.
    """
    values = row.astype(np.float32)
    if np.abs(values).max() <= 1:
        return values, 0.0
    bounded = np.tanh(values)
    low, high = np.quantile(bounded[:: max(1, len(bounded) // 10_000)], (0.05, 0.95))
    if high - low > 0.2:
        return bounded, 0.0
    centre = float(np.median(values))
    return values - centre, centre


def varied_stretch(labels: np.ndarray, text: str, length: int) -> int:
    """Return where the stretch of `length` characters begins in which the label varies most, at the start of a line."""
    starts = [0, *(k + 1 for k, character in enumerate(text) if character == "\n" and k + length < len(text))]
    starts = starts[:: max(1, len(starts) // 2000)]
    return max(starts, key=lambda start: float(np.asarray(labels[start : start + length], dtype=np.float64).std()))


def draw_units(examination: Examination, hypotheses: Sequence[Hypothesis], text: str, count: int = 6):
    """Draw text coloured by the unit's activation, red above zero and blue below, for the first `count` findings."""
    from matplotlib.patches import Rectangle

    from unrolled.analysis.figures import canvas, literal

    wide, high = 100, 5
    labels = {hypothesis.name: hypothesis.labels for hypothesis in hypotheses}
    chosen = examination.findings[:count]
    figure = canvas(11, 0.3 + 1.05 * max(1, len(chosen)))
    every = figure.subplots(max(1, len(chosen)), 1, squeeze=False)[:, 0]
    for axes, finding in zip(every, chosen, strict=False):
        values, _ = to_colour(examination.activations.row(finding.unit))
        scale = max(float(np.quantile(np.abs(values), 0.99)), 1e-6)
        start = varied_stretch(labels[finding.hypothesis], text, wide * high)
        row = column = 0
        for place in range(start, len(text)):
            if column == wide:
                row, column = row + 1, 0
            if row == high:
                break
            share = float(np.clip(values[place] / scale, -1, 1))
            color = (1, 1 - share, 1 - share) if share > 0 else (1 + share, 1 + share, 1)
            axes.add_patch(Rectangle((column, row), 1, 1, color=color, linewidth=0))
            if text[place] == "\n":
                axes.text(column + 0.5, row + 0.7, "↵", fontsize=6, ha="center", color="#999999")
                row, column = row + 1, 0
            else:
                axes.text(column + 0.5, row + 0.75, literal(text[place]), fontsize=7, ha="center", family="monospace")
                column += 1
        axes.set(xlim=(0, wide), ylim=(high, 0), xticks=[], yticks=[])
        score = f"{'r' if finding.graded else 'AUC'} {finding.held_out:.3f}"
        axes.set_title(literal(f"{finding.hypothesis}: unit {finding.unit}, {score}"), fontsize=8, loc="left", pad=2)
    return figure
