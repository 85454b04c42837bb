"""Exploding and vanishing on demand: a gradient carried back through random recurrent weights of a chosen radius.

Source: Li's demo in the Deep Learning lectures, after CS231n, lecture 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.analysis.gradients import gradient_flow, spectral_norm
from unrolled.cells import ElmanCell


def scale_radius(weight: Tensor, radius: float) -> Tensor:
    """`weight [H, H]` times the number that makes `radius` of its largest absolute eigenvalue."""
    return weight * (radius / torch.linalg.eigvals(weight).abs().max())


def clip_norm(gradient: Tensor, threshold: float) -> Tensor:
    """`threshold/‖g‖ · g` where `‖g‖` is above the threshold (Pascanu et al. 2013, algorithm 1)."""
    norm = gradient.norm()
    return gradient * (threshold / norm) if norm > threshold else gradient


@dataclass(frozen=True)
class ScaledRun:
    """A gradient on its way back through `steps` steps of one net.

    norms: `[steps + 1]`, of the gradient 0, 1, ... steps before the end. rate: its mean factor a step, over the half
    furthest from the end. expected: the same factor of the largest singular value of the exact product of Jacobians.
    """

    nonlinearity: str
    radius: float
    largest_singular_value: float
    norms: Tensor
    rate: float
    expected: float


@torch.no_grad()
def carry_back(
    radius: float,
    nonlinearity: str = "tanh",
    *,
    hidden_size: int = 32,
    steps: int = 50,
    clip_norm_at: float = 0.0,
    clip_value_at: float = 0.0,
    seed: int = 1,
) -> ScaledRun:
    """Backpropagate a random gradient through a net of normal random weights, without input, from a random state.

    clip_norm_at, clip_value_at: clip the gradient after each step back to this norm, or each element to ± this; 0: not.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cell = ElmanCell(1, hidden_size, nonlinearity=nonlinearity, bias=False, dtype=torch.float64)
    cell.weight_hh.copy_(scale_radius(draw(hidden_size, hidden_size), radius))
    states = [draw(hidden_size)]
    silence = torch.zeros(steps, 1, dtype=torch.float64)
    for x in silence:
        states.append(cell(x.unsqueeze(0), (states[-1].unsqueeze(0),))[0].squeeze(0))
    gradient = draw(hidden_size)
    gradient /= gradient.norm()
    norms = [gradient.norm()]
    for h in reversed(states[1:]):
        slope = 1 - h**2 if nonlinearity == "tanh" else (h > 0).to(h)
        gradient = cell.weight_hh.T @ (slope * gradient)
        if clip_norm_at:
            gradient = clip_norm(gradient, clip_norm_at)
        if clip_value_at:
            gradient = gradient.clamp(-clip_value_at, clip_value_at)
        norms.append(gradient.norm())
    flow = gradient_flow(cell, silence, (states[0],), ends=[steps])
    exact = flow.by_distance(flow.spectral)
    half = steps // 2
    largest = float(spectral_norm(cell.weight_hh))
    found = torch.stack(norms)
    return ScaledRun(nonlinearity, radius, largest, found, _rate(found, half), _rate(exact, half))


def _rate(norms: Tensor, first: int) -> float:
    """The mean factor a step from `norms[first]` to the last."""
    steps = len(norms) - 1 - first
    return float((norms[-1] / norms[first]) ** (1 / steps)) if norms[first] > 0 else 0.0


def scaled_table(runs: list[ScaledRun]) -> tuple[tuple[str, ...], list[list[object]]]:
    """Heads of a table, and a row for each run."""
    heads = ("", "spectral radius", "largest singular value", "last norm", "a step", "a step, by the Jacobians")
    rows: list[list[object]] = [
        [run.nonlinearity, run.radius, run.largest_singular_value, float(run.norms[-1]), run.rate, run.expected]
        for run in runs
    ]
    return heads, rows


def draw_scaled(runs: list[ScaledRun], title: str):
    """The gradient's norm against the steps back, a panel for each nonlinearity, a line for each radius."""
    from unrolled.analysis.figures import canvas

    panels = list(dict.fromkeys(run.nonlinearity for run in runs))
    radii = list(dict.fromkeys(run.radius for run in runs))
    figure = canvas(5 * len(panels), 4.5)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        for run in runs:
            if run.nonlinearity == panel:
                norms = run.norms.clamp_min(1e-30)
                color = f"C{radii.index(run.radius) % 10}"
                axes.plot(norms, color=color, label=f"radius {run.radius:g}: ×{run.rate:.3f} a step")
        axes.set_yscale("log")
        axes.set_title(f"{panel}{title}", fontsize=10)
        axes.set_xlabel("steps back")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    every[0].set_ylabel("norm of the gradient")
    return figure
