"""Plots the loss curves of a run."""

from __future__ import annotations

import io
import warnings

from unrolled.training.journal import best_validation
from unrolled.training.run import Run, write_atomically


def draw_loss(run: Run, validated: str = "loss") -> None:
    """Plot training and validation loss over steps, from metrics.jsonl, into `RUN/loss.png`.

    validated: what was validated; if it is not the loss, it has an axis of its own on the right.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display and no global state of pyplot
    from matplotlib.figure import Figure

    records = run.metrics()
    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    scored = [record for record in records if "validation_loss" in record]
    valid = [(record["step"], record["validation_loss"]) for record in scored]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=0.8, label="training")
        axes.plot(steps, _smoothed(losses), color="#3182bd", linewidth=1.6, label="training, smoothed")
    if valid:
        found = best_validation(scored, validated)
        best = found["step"], found["validation_loss"]
        side = axes if validated == "loss" else axes.twinx()
        label = "validation" if side is axes else validated
        lines = side.plot(*zip(*valid, strict=True), color="#e6550d", marker="o", markersize=3.5, label=label)
        if side is not axes:
            side.set(ylabel=validated, ylim=(0, None))
            axes.plot([], [], color=lines[0].get_color(), marker="o", markersize=3.5, label=label)  # for the legend
        side.annotate(
            f"best {best[1]:.3f}", best, textcoords="offset points", xytext=(0, -14), ha="center", color="#e6550d"
        )
    ordered = sorted(value for _, value in (train + valid if validated == "loss" else train))
    if ordered:  # the high losses of the first steps would flatten the rest
        low, high = ordered[0], ordered[int(0.98 * (len(ordered) - 1))]
        axes.set_ylim(low - 0.08 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    name = run.path.resolve().name.replace("$", r"\$")  # a bare $ would begin mathematics
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=name.encode("utf-8", "replace").decode())
    axes.grid(alpha=0.25)
    if train or valid:
        axes.legend(frameon=False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)  # in the run's name
        figure.savefig(picture, dpi=120)
    write_atomically(run.path / "loss.png", picture.getvalue())


def _smoothed(values: tuple[float, ...], weight: float = 0.9) -> list[float]:
    smooth, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        smooth.append(total / norm)
    return smooth
