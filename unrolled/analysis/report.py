"""An examination as one self-contained page, and the same data as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.analysis.examine import Examination, draw_units, to_colour, varied_stretch
from unrolled.analysis.figures import canvas, literal, svg
from unrolled.analysis.gates import draw_saturation
from unrolled.analysis.gradients import GradientFlow, draw_flows
from unrolled.analysis.hypotheses import Hypothesis
from unrolled.analysis.pages import page_with

#: How many characters of text the page shows.
EXCERPT = 4000


def report_data(
    facts: dict[str, Any],
    found: Examination,
    hypotheses: Sequence[Hypothesis],
    text: str,
    flows: dict[str, GradientFlow],
) -> dict[str, Any]:
    """Return all data that the page shows, in JSON's types.

    The activations of all units over an excerpt are int8 in base64, `units × characters`. A unit's values are its
    numbers times its scale plus its centre. For a cell state that leaves ±1 they are values of tanh if its centre is 0.
    """
    length = min(EXCERPT, len(text))
    labels = {hypothesis.name: hypothesis.labels for hypothesis in hypotheses}
    first = found.findings[0].hypothesis if found.findings else hypotheses[0].name
    half = len(text) // 2
    start = half + varied_stretch(labels[first][half:], text[half:], length) if len(text) >= 2 * length else 0
    coloured, scales, centres = [], [], []
    for row in found.activations.values:
        shown, centre = to_colour(row)
        scale = max(float(np.quantile(np.abs(shown), 0.995)), 1e-6)
        coloured.append(np.clip(np.round(shown[start : start + length] / scale * 127), -127, 127).astype(np.int8))
        scales.append(round(scale / 127, 8))
        centres.append(round(centre, 4))
    return {
        **facts,
        "loss": found.loss,
        "findings": [
            {
                "hypothesis": finding.hypothesis,
                "unit": str(finding.unit),
                "score": "r" if finding.graded else "AUC",
                "found": finding.found,
                "held_out": finding.held_out,
                "control": finding.control,
                "control_high": finding.control_high,
                "p": finding.p,
                "confirmed": finding.confirmed,
                "share": finding.share,
                "loss_without": change,
                "passages": [{"text": p.text, "at": p.at, "value": p.value} for p in passages],
            }
            for finding, passages, change in zip(found.findings, found.passages, found.ablations, strict=True)
        ],
        "saturation": [
            {
                "layer": part.layer,
                "gate": part.gate,
                "left": [round(share, 4) for share in part.left.tolist()],
                "right": [round(share, 4) for share in part.right.tolist()],
            }
            for part in found.saturation
        ],
        "gradients": {
            name: {
                "distances": list(flow.distances),
                "norms": flow.by_distance(flow.spectral).tolist(),
                "bound": flow.rate,
            }
            for name, flow in flows.items()
        },
        "text": text[start : start + length],
        "units": [str(unit) for unit in found.activations.units],
        "scales": scales,
        "centres": centres,
        "activations": base64.b64encode(np.stack(coloured).tobytes()).decode("ascii"),
    }


def report_page(
    data: dict[str, Any],
    found: Examination,
    hypotheses: Sequence[Hypothesis],
    text: str,
    flows: dict[str, GradientFlow],
) -> str:
    """Return the page as HTML, with the data and the figures in it."""
    figures = [
        ("Scores", svg(_draw_scores(found))),
        ("Text by the best units", svg(draw_units(found, hypotheses, text))),
        ("Gradient flow", svg(draw_flows(flows, "norm of ∂s_t/∂s_k over this text"))),
    ]
    if found.saturation:
        figures.append(("Gates", svg(draw_saturation(found.saturation))))
    shown = "\n".join(f"<figure><figcaption>{title}</figcaption>\n{drawn}</figure>" for title, drawn in figures)
    return page_with("report", data).replace("<!-- figures -->", shown)


def _draw_scores(found: Examination):
    """Draw how far each hypothesis's unit is from chance: as found, held out, and its median control."""
    figure = canvas(9, 0.8 + 0.32 * max(1, len(found.findings)))
    axes = figure.add_subplot()
    names = [literal(f"{finding.hypothesis} ({finding.unit})") for finding in found.findings]
    places = np.arange(len(names))

    def away(graded: bool, score: float) -> float:
        return abs(score) if graded else abs(2 * score - 1)

    for offset, name, color in (
        (-0.27, "found", "#9ecae1"),
        (0.0, "held_out", "#3182bd"),
        (0.27, "control", "#bbbbbb"),
    ):
        widths = [away(finding.graded, getattr(finding, name)) for finding in found.findings]
        axes.barh(places + offset, widths, height=0.26, color=color, label=name.replace("_", " "))
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="|r|, or twice the distance of the AUC from 0.5")
    axes.legend(fontsize=8, loc="lower right")
    return figure
