"""Loss gradients: how much of a loss's gradient reaches the states of each step, in the layers of any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unrolled.analysis.flows import Table
from unrolled.cells import Cell
from unrolled.cells.tree import TreeCell
from unrolled.errors import ConfigurationError
from unrolled.unroll.adapt import Foreign, WithOutput

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_gradients(model: nn.Module, loss: Callable[[], Tensor], of: str | None = None) -> dict[str, Tensor]:
    """Return the norm of `∂loss/∂s_t`, `[T]`, for each cell of the model, by the cell's name in the model.

    loss: runs the model and returns the loss. Meanwhile the layers use the eager loop.
    of: the name of one state. The norm is then over this state only, in the cells that have it. None means all states.

    The norm is over all rows of the batch. Steps are in the order in which the cell takes them: a layer that reads
    backward begins at the end, and each step of a tree cell is one height of the trees, above the leaves.
    Raises ConfigurationError if `loss` runs no cell, or no cell that has the state `of`.
    """
    steps: dict[str, list[tuple[Tensor, ...]]] = {}
    names: dict[str, tuple[str, ...]] = {}
    with torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(_eager(model))
        for name, cell in _cells(model):
            names[name] = cell.state_names
            stack.enter_context(_recorded(cell, steps.setdefault(name, [])))
        value = loss()
    ran = {name: states for name, states in steps.items() if states}
    if not ran:
        raise ConfigurationError("the loss runs no cell of the model, so there are no states to take a gradient of")
    if of is not None:
        known = sorted({state for name in ran for state in names[name]})
        if of not in known:
            raise ConfigurationError(f"the model's cells have no state {of!r}: choose from {', '.join(known)}")
        ran = {
            name: [(state[names[name].index(of)],) for state in states]
            for name, states in ran.items()
            if of in names[name]
        }
    flat = [part for states in ran.values() for state in states for part in state]
    gradients = iter(torch.autograd.grad(value, flat, allow_unused=True))
    found = {}
    for name, states in ran.items():
        squares = [[_square(next(gradients)) for _ in state] for state in states]
        found[name] = torch.tensor([sum(each) for each in squares], dtype=torch.float64).sqrt()
    return found


def _square(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.double().square().sum())


def _cells(model: nn.Module) -> Iterator[tuple[str, Cell | TreeCell]]:
    """Yield the cells that the layers step, without cells inside another cell."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, Cell | TreeCell) and id(module) not in inside:
            inside |= {id(part) for part in module.modules()}
            yield name, module


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Make the layers call their cells exactly once at every step."""
    wanted = {"backend": "eager", "recompute_every": None}
    kept = [(m, key, getattr(m, key)) for m in model.modules() for key in wanted if key in vars(m)]
    for module, key, _ in kept:
        setattr(module, key, wanted[key])
    try:
        yield
    finally:
        for module, key, value in kept:
            setattr(module, key, value)


@contextmanager
def _recorded(cell: Cell | TreeCell, states: list[tuple[Tensor, ...]]) -> Iterator[None]:
    """Append the state after every step of the cell to `states`."""

    def keep(state: Any) -> None:
        states.append((state,) if isinstance(state, Tensor) else tuple(state))

    if isinstance(cell, Foreign):
        raise ConfigurationError("the states inside a module that is no Cell cannot be recorded: make it a Cell")
    if not isinstance(cell, WithOutput):
        handle = cell.register_forward_hook(lambda module, given, state: keep(state))
        try:
            yield
        finally:
            handle.remove()
        return
    inner = cell.step  # layers call `step` directly, so that no hook of the module runs

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, new = inner(x, state)
        keep(new)
        return output, new

    cell.__dict__["step"] = step
    try:
        yield
    finally:
        del cell.__dict__["step"]


def loss_table(norms: dict[str, Tensor], length: int) -> Table:
    """Build a table with each cell's number of steps, and its norm at the first, middle and last of `length` steps.

    These are the last `length` steps of the cell.
    """
    shown = {name: each[-length:] for name, each in norms.items()}
    rows: list[list[object]] = [
        [name, str(len(norms[name])), float(each[0]), float(each[len(each) // 2]), float(each[-1])]
        for name, each in shown.items()
    ]
    return ("norm of ∂loss/∂s", "steps", "first shown", "middle", "last step"), rows


def draw_loss_gradients(norms: dict[str, Tensor], length: int, title: str) -> Figure:
    """Plot the norm at each of the last `length` steps, one line for each cell, without the steps of zero gradient."""
    from matplotlib.ticker import MaxNLocator

    from unrolled.analysis.figures import canvas, literal

    figure = canvas(8.5, 5)
    axes = figure.add_subplot()
    for number, (name, each) in enumerate(norms.items()):
        shown = torch.where(each > 0, each, torch.nan)[-length:]
        style = "-" if number < 10 else "--"
        axes.plot(
            range(len(each) - len(shown) + 1, len(each) + 1),
            shown,
            label=literal(name),
            color=f"C{number % 10}",
            linestyle=style,
            marker=".",
        )
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step t, in the order in which the cell takes them")
    axes.set_ylabel("norm of ∂loss / ∂s_t")
    axes.set_title(literal(title), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=1 + len(norms) // 9)
    return figure
