"""Exploding and vanishing gradients: backpropagation through random recurrent weights of a chosen spectral radius.

Source: Li's demo in the Deep Learning lectures, after CS231n, lecture 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.analysis.gradients import gradient_flow, spectral_norm
from unrolled.cells import ElmanCell


def scale_radius(weight: Tensor, radius: float) -> Tensor:
    """Return `weight [H, H]`, scaled so that its largest absolute eigenvalue is `radius`."""
    return weight * (radius / torch.linalg.eigvals(weight).abs().max())


def clip_norm(gradient: Tensor, threshold: float) -> Tensor:
    """Return `threshold/‖g‖ · g` if `‖g‖` is above the threshold, else `g` (Pascanu et al. 2013, algorithm 1)."""
    norm = gradient.norm()
    return gradient * (threshold / norm) if norm > threshold else gradient


@dataclass(frozen=True)
class ScaledRun:
    """A gradient's norms on its way back through the steps of one net.

    norms: `[steps + 1]`, the gradient's norm 0, 1, ... steps before the end. rate: the norm's mean factor per step,
    over the half furthest from the end. expected: the same factor for the largest singular value of the exact product
    of Jacobians.
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
    """Backpropagate a random gradient through a net with normal random weights, a random first state and no input.

    clip_norm_at: the norm to clip the gradient to after each step back; 0 is off.
    clip_value_at: the absolute value to clip each of its elements to; 0 is off.
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
    """Return the mean factor per step from `norms[first]` to the last norm."""
    steps = len(norms) - 1 - first
    return float((norms[-1] / norms[first]) ** (1 / steps)) if norms[first] > 0 else 0.0


def scaled_table(runs: list[ScaledRun]) -> tuple[tuple[str, ...], list[list[object]]]:
    """Build a table with a row for each run: its heads and its rows."""
    heads = ("", "spectral radius", "largest singular value", "last norm", "a step", "a step, by the Jacobians")
    rows: list[list[object]] = [
        [run.nonlinearity, run.radius, run.largest_singular_value, float(run.norms[-1]), run.rate, run.expected]
        for run in runs
    ]
    return heads, rows


def draw_scaled(runs: list[ScaledRun], title: str):
    """Plot the gradient's norm against the steps back: a panel for each nonlinearity, a line for each radius."""
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
