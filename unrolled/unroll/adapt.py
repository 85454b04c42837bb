"""Any module as a cell: what the engine asks of a step, and how other people's modules are made to answer."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError

#: How a module takes its state: None for a bare tensor, else the number of tensors in its tuple.
Form = int | None


class Around(Cell):
    """A cell that is made around another anew in every call, as noise is; it has that cell's states, and its start."""

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)  # the sizes were checked when `cell` was made
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size
        self.state_names = cell.state_names  # type: ignore[misc]
        self.training = cell.training

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.cell.state_sizes

    def initial_state(self, batch_size: int, *, like: Tensor) -> State:
        return self.cell.initial_state(batch_size, like=like)


class WithOutput(Cell):
    """A cell whose output is not its first state: `step` gives both, and `forward` the state alone."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError

    def forward(self, x: Tensor, state: State) -> State:
        return self.step(x, state)[1]


class Foreign(WithOutput):
    """A module that maps `(x, state)` to a state, or to `(output, state)`, as a cell.

    The state is one tensor or a tuple of them, whichever the module takes.
    """

    def __init__(self, module: nn.Module, form: Form, input_size: int, state_sizes: tuple[int, ...]) -> None:
        nn.Module.__init__(self)
        self.module, self.form = module, form
        self.input_size, self.hidden_size, self.sizes = input_size, state_sizes[0], state_sizes
        self.training = module.training

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.sizes

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return _read(self.module, self.module(x, state[0] if self.form is None else tuple(state)), self.form)


class Held(WithOutput):
    """A cell that moves only where the last feature of its input is 1, and keeps its state where that is 0.

    Where it is held, the cell is computed all the same, with the state that is kept, and its result is thrown away. The
    gradient of that is zero as long as the cell has a finite derivative there: the eager loop does better, which gives
    it the state before the first step.
    """

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)
        self.cell, self.hidden_size, self.input_size = cell, cell.hidden_size, cell.input_size + 1
        self.training = cell.training

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.cell.state_sizes

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        moves = x[:, -1:] > 0
        output, new = step(self.cell, x[:, :-1], state)
        held = tuple(torch.where(moves, after, before) for after, before in zip(new, state, strict=True))
        # Where the output is the first state, that of a held step is never looked at.
        return held[0] if output is new[0] else output, held


def step(cell: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of a cell: its output, and its new state."""
    if isinstance(cell, WithOutput):
        return cell.step(x, state)
    new = cell(x, state)
    return new[0], new


def title(cell: nn.Module) -> str:
    """The name of the class that a person wrote, behind what the engine and its layers put around it."""
    inner = getattr(cell, "cell", None) or getattr(cell, "module", None)
    return (
        title(inner)
        if isinstance(inner, nn.Module) and type(cell).__module__.startswith("unrolled.")
        else type(cell).__name__
    )


def adapt(module: nn.Module, inputs: Tensor, state: State | Tensor) -> tuple[Cell, State]:
    """The cell that a module is, and its state as a tuple."""
    tensors = (state,) if isinstance(state, Tensor) else tuple(state)
    if isinstance(module, Cell):
        return module, tensors
    if not tensors or any(not isinstance(part, Tensor) or part.dim() != 2 for part in tensors):
        raise ShapeError(f"the state of {type(module).__name__} must be a tensor [B, size], or a tuple of such")
    form = None if isinstance(state, Tensor) else len(tensors)
    return Foreign(module, form, inputs.size(-1), tuple(part.size(1) for part in tensors)), tensors


#: Which of its two results a module's state is, once that has been found out.
_forms: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def first_step(module: nn.Module, x: Tensor) -> tuple[Tensor, Any]:
    """Output and state of a stranger's module that is given no state, in the form that it takes.

    A pair that it returns is its state where it takes that pair as one, and else output and state.
    """
    try:
        made = module(x, None)
    except TypeError as error:
        raise ConfigurationError(f"{type(module).__name__} cannot start without a state: give unroll one") from error
    if not isinstance(made, Sequence) or len(made) != 2:
        return made if isinstance(made, Tensor) else made[0], made
    if module not in _forms:
        try:
            with torch.no_grad():
                module(x, made)
            _forms[module] = True
        except (TypeError, ValueError, AttributeError, RuntimeError, IndexError):
            _forms[module] = False
    return made[0], made if _forms[module] else made[1]


def _read(module: nn.Module, made, form: Form) -> tuple[Tensor, State]:
    """Output and state of what a step returned, for a state of that form."""
    if form is None:
        if isinstance(made, Tensor):
            return made, (made,)
        if isinstance(made, Sequence) and len(made) == 1:
            return made[0], tuple(made)
        if isinstance(made, Sequence) and len(made) == 2:
            output, new = made
            return output, (new,) if isinstance(new, Tensor) else tuple(new)
    elif isinstance(made, Sequence):
        if len(made) == form and all(isinstance(part, Tensor) for part in made):
            return made[0], tuple(made)
        if len(made) == 2 and isinstance(made[1], Sequence) and len(made[1]) == form:
            return made[0], tuple(made[1])
    raise ConfigurationError(
        f"{type(module).__name__} must return its new state, or (output, state); its state is "
        f"{'a tensor' if form is None else f'{form} tensors'}"
    )
