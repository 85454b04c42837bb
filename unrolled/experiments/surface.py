"""The error surface of a one-unit recurrent net, with its wall, and gradient descent over it, plain and clipped.

`h = w σ(h') + b` from `h = start`; the error is `(σ(h_T) - target)²`.
Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", figure 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unrolled.analysis.scaled import clip_norm


@dataclass(frozen=True)
class OneUnit:
    """The net and its task: after `steps` steps from state `start`, the output should be `target`."""

    steps: int = 50
    start: float = 0.5
    target: float = 0.7

    def error(self, w: Tensor, b: Tensor) -> Tensor:
        """Return the error at every pair of `w` and `b`, tensors of the same shape."""
        h = torch.full_like(w, self.start)
        for _ in range(self.steps):
            h = w * torch.sigmoid(h) + b
        return (torch.sigmoid(h) - self.target) ** 2


@dataclass(frozen=True)
class Descent:
    """The path of gradient descent: `points [N+1, 2]` as (w, b), `errors [N+1]`, and the length of the largest step."""

    points: Tensor
    errors: Tensor

    @property
    def largest_step(self) -> float:
        return float(self.points.diff(dim=0).norm(dim=1).max())


def surface(unit: OneUnit, w: Tensor, b: Tensor) -> Tensor:
    """Return the errors over a grid, `[len(b), len(w)]`."""
    return unit.error(w.expand(len(b), -1), b.unsqueeze(1).expand(-1, len(w)))


def descend(
    unit: OneUnit, at: tuple[float, float], *, learning_rate: float, updates: int, clip_norm_at: float = 0.0
) -> Descent:
    """Run gradient descent from (w, b) = `at`. If `clip_norm_at` is above 0, it is the gradient's largest norm."""
    point = torch.tensor(at, dtype=torch.float64)
    points, errors = [point], []
    for k in range(updates + 1):
        here = points[-1].clone().requires_grad_()
        error = unit.error(here[:1], here[1:]).squeeze()
        errors.append(error.detach())
        if k == updates:
            break
        (gradient,) = torch.autograd.grad(error, here)
        if clip_norm_at:
            gradient = clip_norm(gradient, clip_norm_at)
        points.append(here.detach() - learning_rate * gradient)
    return Descent(torch.stack(points), torch.stack(errors))


def draw_surface(unit: OneUnit, descents: dict[str, Descent], w: tuple[float, float], b: tuple[float, float]):
    """Draw the surface in 3-D and from above, with the descents on it."""
    from unrolled.analysis.figures import canvas

    w_axis, b_axis = (torch.linspace(*ends, 201, dtype=torch.float64) for ends in (w, b))
    errors = surface(unit, w_axis, b_axis)
    figure = canvas(11, 5)
    solid = figure.add_subplot(1, 2, 1, projection="3d")
    above = figure.add_subplot(1, 2, 2)
    grid_w, grid_b = torch.meshgrid(w_axis, b_axis, indexing="xy")
    solid.plot_surface(
        grid_w.numpy(), grid_b.numpy(), errors.numpy(), cmap="viridis", rcount=80, ccount=80, alpha=0.75, linewidth=0
    )
    image = above.contourf(w_axis.numpy(), b_axis.numpy(), errors.numpy(), levels=40, cmap="viridis")
    figure.colorbar(image, ax=above, label="error")
    for number, (name, descent) in enumerate(descents.items()):
        color = ("#e6550d", "#ffffff")[number % 2]
        points = descent.points
        above.plot(points[:, 0], points[:, 1], marker="o", markersize=2.5, linewidth=1, color=color, label=name)
        # Points outside the box are cut off, because 3-D axes would draw them outside.
        inside = (points >= torch.tensor([w[0], b[0]])).all(1) & (points <= torch.tensor([w[1], b[1]])).all(1)
        lifted = [part.where(inside, torch.nan) for part in (points[:, 0], points[:, 1], descent.errors)]
        solid.plot(*lifted, marker="o", markersize=2, linewidth=1, color=("#e6550d", "#222222")[number % 2], zorder=5)
    above.set(xlim=w, ylim=b, xlabel="w", ylabel="b")
    above.legend(fontsize=8, facecolor="#888888")
    solid.set(xlabel="w", ylabel="b", zlabel="error")
    solid.set_title(f"one unit, {unit.steps} steps", fontsize=10)
    return figure
