"""Gradient flow: the exact `∂s_t/∂s_k` of any cell, as products of its steps' Jacobians.

Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from unrolled.analysis.states import before_each, every_state
from unrolled.cells import Cell, ElmanCell, State
from unrolled.errors import ConfigurationError, ShapeError

#: How many numbers the Jacobians may hold while they are computed. With few of them they stay in the CPU's caches.
_AT_ONCE = 1 << 23


def step_jacobians(cell: Cell, inputs: Tensor, before: State) -> Tensor:
    """Return `∂s_t/∂s_{t-1}` of every step, `[T, S, S]`, where S is the sum of the cell's state sizes.

    inputs: `[T, I]`. before: the states before every step, `[T, size]` each.
    """
    sizes = cell.state_sizes

    def step(flat: Tensor, x: Tensor) -> Tensor:
        state = tuple(part.unsqueeze(0) for part in flat.split(sizes))
        return torch.cat(cell(x.unsqueeze(0), state), -1).squeeze(0)

    total = sum(sizes)
    chunk = max(1, _AT_ONCE // (8 * total * total))
    # `jacrev` differentiates with respect to the state only, so autograd need not track anything else.
    with torch.no_grad():
        return vmap(jacrev(step), chunk_size=chunk)(torch.cat(before, -1), inputs)


def spectral_norm(matrices: Tensor) -> Tensor:
    """Return the largest singular value of each matrix of `[..., M, N]`.

    It is computed from the eigenvalues of `AᵀA`. For the largest value this is as exact as a singular value
    decomposition, and several times faster.
    """
    scale = torch.linalg.matrix_norm(matrices).clamp_min(torch.finfo(matrices.dtype).tiny)
    scaled = matrices / scale[..., None, None]  # squares of small norms would underflow
    return torch.linalg.eigvalsh(scaled.mT @ scaled)[..., -1].clamp_min(0).sqrt() * scale


def largest_spectral_norm(matrices: Tensor) -> float:
    """Return the largest singular value over all matrices `[T, M, N]`.

    A matrix is skipped if its cheap upper bound is at most the best value found so far.
    """
    sums = (matrices.abs().sum(dim).amax(-1) for dim in (-1, -2))
    bounds = torch.minimum(torch.linalg.matrix_norm(matrices), torch.stack([*sums]).prod(0).sqrt())
    best = 0.0
    for k in bounds.argsort(descending=True).tolist():
        if bounds[k] <= best:
            break
        best = max(best, float(spectral_norm(matrices[k])))
    return best


@dataclass(frozen=True)
class GradientFlow:
    """Norms of `∂s_t/∂s_k`. Row e is for t = `ends[e]` and column k for `s_k`, where `s_0` precedes the first step.

    `spectral` and `frobenius` are `[E, T+1]`, with NaN where t-k is not one of `distances`. Every spectral norm is at
    most `rate ** (t-k)`.
    """

    ends: tuple[int, ...]
    distances: tuple[int, ...]
    spectral: Tensor
    frobenius: Tensor
    rate: float
    #: What `rate` was computed from, in words.
    rate_of: str

    def by_distance(self, norms: Tensor) -> Tensor:
        """Return for each of `distances` the geometric mean of `norms` over all pairs t, k that far apart, `[D]`."""
        means = []
        for distance in self.distances:
            found = [norms[e, t - distance] for e, t in enumerate(self.ends) if t >= distance]
            means.append(torch.stack(found).log().mean().exp())
        return torch.stack(means)


@torch.no_grad()
def gradient_flow(
    cell: Cell,
    inputs: Tensor,
    first: State | None = None,
    *,
    of: str | None = None,
    ends: Sequence[int] | None = None,
    distances: Sequence[int] | None = None,
) -> GradientFlow:
    """Compute how the state after `t` steps depends on the state after `k` steps, for all k ≤ t and each t of `ends`.

    inputs: `[T, I]`. first: the states before the first step, `[size]` each; None stands for zeros.
    of: the name of one of the cell's states. Only this state is varied at k and read at t. In between, its effect
        passes through all states. None means the whole state.
    ends: values of t from 1 to T. None means all of them.
    distances: the values of t-k to compute norms for. None means all. For a large cell the norms take most of the time.
    """
    if inputs.dim() != 2 or not len(inputs):
        raise ShapeError(f"inputs must be one sequence, [T, {cell.input_size}], got {list(inputs.shape)}")
    start = cell.initial_state(1, like=inputs) if first is None else tuple(part.unsqueeze(0) for part in first)
    after = every_state(cell, inputs.unsqueeze(1), start, backend="eager")  # one short sequence: not worth compiling
    before = tuple(part.squeeze(1) for part in before_each(after, start))
    return flow_of(step_jacobians(cell, inputs, before), cell, of=of, ends=ends, distances=distances)


@torch.no_grad()
def flow_of(
    jacobians: Tensor,
    cell: Cell,
    *,
    of: str | None = None,
    ends: Sequence[int] | None = None,
    distances: Sequence[int] | None = None,
) -> GradientFlow:
    """Compute the gradient flow from the `jacobians [T, S, S]` of a cell's steps; see `gradient_flow`."""
    steps = len(jacobians)
    ends = tuple(range(1, steps + 1)) if ends is None else tuple(sorted(ends))
    if not ends or not 1 <= ends[0] <= ends[-1] <= steps:
        raise ConfigurationError(f"ends must be steps from 1 to {steps}, got {ends}")
    distances = tuple(range(ends[-1] + 1)) if distances is None else tuple(sorted({*distances}))
    if not distances or not 0 <= distances[0] <= distances[-1] <= ends[-1]:
        raise ConfigurationError(f"distances must be from 0 to {ends[-1]}, got {distances}")
    part = _part(cell, of)
    size = jacobians.size(1)
    products = torch.eye(size, dtype=jacobians.dtype)[part].expand(len(ends), -1, -1).clone()
    norms = jacobians.new_full((2, len(ends), steps + 1), torch.nan)
    for k in range(ends[-1], -1, -1):
        if k < ends[-1]:
            live = next(e for e, t in enumerate(ends) if t > k)
            products[live:] = products[live:] @ jacobians[k]
        asked = [e for e, t in enumerate(ends) if t - k in distances]
        if asked:
            shown = products[asked][:, :, part]
            norms[0, asked, k] = spectral_norm(shown)
            norms[1, asked, k] = torch.linalg.matrix_norm(shown, "fro")
    rate, rate_of = _rate(jacobians, cell, of)
    return GradientFlow(ends, distances, norms[0], norms[1], rate, rate_of)


def _part(cell: Cell, of: str | None) -> slice:
    if of is None:
        return slice(None)
    if of not in cell.state_names:
        raise ConfigurationError(f"this cell has no state {of!r}: choose from {', '.join(cell.state_names)}")
    k = cell.state_names.index(of)
    first = sum(cell.state_sizes[:k])
    return slice(first, first + cell.state_sizes[k])


def _rate(jacobians: Tensor, cell: Cell, of: str | None) -> tuple[float, str]:
    """Return a bound for a step's factor and its source: for vanilla cells `β_W β_h` (|tanh'|, |relu'| ≤ 1 = β_h)."""
    recurring = cell.state_names[cell.recurring]
    if isinstance(cell, ElmanCell) and (of or "".join(cell.state_names)) == recurring:
        return float(spectral_norm(cell.weight_hh.to(jacobians.dtype))), "β_W β_h"
    return largest_spectral_norm(jacobians), "largest step"


@dataclass(frozen=True)
class RecurrentMatrix:
    """A square block of a cell's recurrent weights: its largest absolute eigenvalue and its largest singular value."""

    name: str
    spectral_radius: float
    largest_singular_value: float


def recurrent_matrices(cell: Cell) -> list[RecurrentMatrix]:
    """Return each `[H, H]` block of the weights that a cell applies to its states: `weight_h*`, peephole matrices."""
    found = []
    for name, weight in cell.named_parameters():
        fits = weight.dim() == 2 and weight.size(1) == cell.hidden_size and weight.size(0) % cell.hidden_size == 0
        if not fits or name.startswith(("weight_i", "weight_x")):
            continue
        blocks = weight.detach().double().split(cell.hidden_size)
        for number, block in enumerate(blocks, 1):
            title = name if len(blocks) == 1 else f"{name} {number}/{len(blocks)}"
            radius = float(torch.linalg.eigvals(block).abs().max())
            found.append(RecurrentMatrix(title, radius, float(spectral_norm(block))))
    return found


def draw_flows(flows: dict[str, GradientFlow], title: str):
    """Plot the spectral norm against the distance on a logarithmic scale: one line for each flow, its bound dotted."""
    from unrolled.analysis.figures import canvas, literal

    figure = canvas(8.5, 5)
    axes = figure.add_subplot()
    tiny = 1e-30
    for number, (name, flow) in enumerate(flows.items()):
        norms = flow.by_distance(flow.spectral)
        color, style = f"C{number % 10}", "-" if number < 10 else "--"
        axes.plot(
            flow.distances, norms.clamp_min(tiny), label=literal(name), linewidth=1.6, color=color, linestyle=style
        )
        axes.plot(flow.distances, [flow.rate**n for n in flow.distances], color=color, linestyle=":", linewidth=0.8)
    shown = torch.cat([flow.by_distance(flow.spectral) for flow in flows.values()])
    axes.set_yscale("log")
    axes.set_ylim(max(float(shown.min()) / 3, tiny), max(float(shown.max()) * 30, 10))
    axes.set_xlabel("steps back, t - k")
    axes.set_ylabel("norm of ∂s_t / ∂s_k")
    axes.set_title(literal(f"{title} (dotted: bound)"), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=1 + len(flows) // 9)
    return figure
