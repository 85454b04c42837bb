"""Where a transcriber writes each character, and which of its inputs the character depends on.

Source: Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks", figures 7.1 and 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unrolled.analysis.figures import canvas, literal
from unrolled.data.frame_batches import FrameBatch
from unrolled.models.transcriber import BLANK, Transcriber

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The most characters whose curves have a colour of their own.
_COLOURS = 20


@dataclass(frozen=True)
class Placed:
    """A character at the step at which its probability is highest, and its label."""

    text: str
    label: int
    step: int


def label_sensitivity(model: Transcriber, frames: Tensor, step: int, label: int) -> tuple[Tensor, Tensor]:
    """Return how much the log-probability of a label at a step depends on the inputs, `frames [T, D]`.

    The first result is the norm of its gradient by each frame, `[T]`; the second is the gradient, `[T, D]`.
    """
    inputs = frames.unsqueeze(1).clone().requires_grad_()
    lengths = torch.tensor([len(frames)])
    with torch.enable_grad():
        scores, _ = model(FrameBatch(inputs, lengths, torch.zeros(0, 1, dtype=torch.long)))
        (gradient,) = torch.autograd.grad(scores[step, 0, label], inputs)
    return gradient[:, 0].norm(dim=1), gradient[:, 0]


def draw_transcript(
    frames: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    placed: Sequence[Placed],
    sensitivity: np.ndarray | None,
    chosen: Placed | None,
    *,
    seconds: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the inputs `[T, D]`, the probability of every label at every step `[S, K]`, and a sensitivity `[T]`.

    seconds: the seconds per step; without them the axis counts steps. chosen: the character whose sensitivity it is.
    """
    steps = len(probabilities)
    unit = seconds or 1.0
    end = steps * unit
    rows = 3 if sensitivity is not None else 2
    figure = canvas(min(24.0, max(8.0, steps / 12)), 2.1 * rows + 0.8)
    top, middle, *rest = figure.subplots(rows, 1, sharex=True)
    origin = "lower" if seconds else "upper"
    top.imshow(frames.T, aspect="auto", origin=origin, cmap="Greys", extent=_extent(frames, end, seconds))
    top.set(ylabel="feature" if seconds else "input", title=literal(title))
    times = (np.arange(steps) + 0.5) * unit
    used = list(dict.fromkeys(one.label for one in placed))
    colours = _palette(used)
    middle.plot(times, probabilities[:, BLANK], color="0.7", linestyle="--", linewidth=1, label="blank")
    for label in used:
        middle.plot(times, probabilities[:, label], color=colours[label], linewidth=1.4)
    for one in placed:
        shown = "␣" if one.text == " " else literal(one.text)
        place = (times[one.step], float(probabilities[one.step, one.label]))
        middle.annotate(shown, place, textcoords="offset points", xytext=(0, 3), ha="center", color=colours[one.label])
    middle.set(ylabel="probability", ylim=(0, 1.3))
    middle.legend(loc="upper right", frameon=False, fontsize=8, borderpad=0)
    if sensitivity is not None and chosen is not None:
        (axes,) = rest
        places = (np.arange(len(sensitivity)) + 0.5) * end / max(1, len(sensitivity))
        axes.fill_between(places, sensitivity, color="#9ecae1")
        axes.axvline(times[chosen.step], color=colours.get(chosen.label, "k"), linewidth=1)
        axes.set(ylabel=literal(f"∂ log P({chosen.text!r})\nby each frame"), ylim=(0, None))
    every = [top, middle, *rest]
    every[-1].set(xlabel="seconds" if seconds else "step", xlim=(0, end))
    return figure


def _extent(frames: np.ndarray, end: float, seconds: float | None) -> tuple[float, float, float, float]:
    width = frames.shape[1]
    return (0.0, end, 0.0, float(width)) if seconds else (0.0, end, float(width), 0.0)


def _palette(used: Sequence[int]) -> dict[int, tuple[float, ...]]:
    from matplotlib import colormaps

    palette = colormaps["tab20"]
    return {label: palette(k % _COLOURS) for k, label in enumerate(used)}
