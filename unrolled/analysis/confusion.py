"""A matrix of which classes are taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from unrolled.analysis.figures import canvas, literal
from unrolled.metrics.confusion import label_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The most classes for which the counts are written into the matrix.
_WRITTEN = 20
#: The most characters of a class's name that are shown.
_LONGEST = 40


def confusion_matrix(counts: Mapping[str, Mapping[str, int]], most: int = 40) -> tuple[list[str], np.ndarray, int]:
    """Return the `most` frequent classes, how often each true one (row) was given as each, and the number left out.

    counts: by the true class, how often each class was given.
    """
    totals: dict[str, int] = {}
    for true, row in counts.items():
        for given, count in row.items():
            for name in (true, given):
                totals[name] = totals.get(name, 0) + count
    names = sorted(sorted(totals, key=lambda name: (-totals[name], name))[:most], key=label_order)
    place = {name: k for k, name in enumerate(names)}
    matrix, left = np.zeros((len(names), len(names)), np.int64), 0
    for true, row in counts.items():
        for given, count in row.items():
            if true in place and given in place:
                matrix[place[true], place[given]] += count
            else:
                left += count
    return names, matrix, left


def draw_confusion(counts: Mapping[str, Mapping[str, int]], title: str = "", most: int = 40) -> Figure:
    """Draw the matrix: each row, a true class, as shares of its items; with few classes also the counts."""
    names, matrix, _ = confusion_matrix(counts, most)
    totals = np.array([sum(counts.get(name, {}).values()) for name in names], np.int64)  # also of what is left out
    shares = matrix / np.maximum(totals, 1)[:, None]
    side = min(16.0, 2.5 + 0.4 * len(names))
    figure = canvas(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = [literal(_shown(name)) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90 if max(map(len, shown), default=0) > 2 else 0, fontsize=8)
    axes.set_yticks(range(len(names)), shown, fontsize=8)
    axes.set(xlabel="given", ylabel="true", title=literal(title))
    if len(names) <= _WRITTEN:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def _shown(name: str) -> str:
    """Return a name as it is written at the matrix: a space and nothing as signs, and only the start of a long one."""
    if name in ("", " "):
        return "␣" if name else "∅"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
