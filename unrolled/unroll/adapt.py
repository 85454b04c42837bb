"""Any module as a cell: what the engine asks of a step, and how other people's modules are made to answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unrolled.cells import Cell, State
from unrolled.errors import ConfigurationError, ShapeError

#: How a module takes its state: None for a bare tensor, the number of tensors in a plain tuple, or, for whatever else
#: there is (lists, dicts, namedtuples, tuples of tuples), PyTorch's description of its structure.
Form = int | pytree.TreeSpec | None


class WrapperCell(Cell):
    """A cell that is made around another again in every call, as noise is; it has that cell's states, and its start."""

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
    """Somebody else's module, `(x, state) -> state` or `(x, state) -> (output, state)`, as a cell.

    own_output: in a layer, the width of an output that is not the first state.
    """

    own_output: int | None = None

    def __init__(self, module: nn.Module, form: Form, input_size: int, state_sizes: tuple[int, ...]) -> None:
        nn.Module.__init__(self)
        self.module, self.form = module, form
        self.input_size, self.hidden_size, self.sizes = input_size, state_sizes[0], state_sizes
        self.training = module.training

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.sizes

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return _read(self.module, self.module(x, pack(state, self.form)), self.form)


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
    new = new_state(cell, x, state)  # type: ignore[arg-type]
    return new[0], new


def stepper(cell: nn.Module) -> Callable[[Tensor, State], tuple[Tensor, State]]:
    """`step` for one cell, with as little as possible left to do at every step."""
    if not isinstance(cell, Foreign):
        return partial(step, cell)
    module, form = cell.module, cell.form
    if form is None:

        def bare(x: Tensor, state: State) -> tuple[Tensor, State]:
            made = module(x, state[0])
            return (made, (made,)) if isinstance(made, Tensor) else _read(module, made, None)

        return bare
    if isinstance(form, int):
        return lambda x, state: _read(module, module(x, state), form)
    return cell.step


def new_state(cell: Cell, x: Tensor, state: State) -> State:
    """What a cell's `forward` returns, as a tuple: a bare tensor is the new state of a cell that has one.

    ConfigurationError if it is no state of that cell.
    """
    new = cell(x, state)
    if type(new) is tuple and len(new) == len(state):
        return new
    if isinstance(new, Tensor) and len(state) == 1:
        return (new,)
    if isinstance(new, list | tuple) and len(new) == len(state) and all(isinstance(part, Tensor) for part in new):
        return tuple(new)
    got = f"a tuple of {len(new)}" if isinstance(new, tuple) else f"a {type(new).__name__}"
    names = ", ".join(cell.state_names) + ("," if len(state) == 1 else "")
    raise ConfigurationError(
        f"{title(cell)}.forward must return its new state as a tuple ({names}), one tensor [B, size] for each of "
        f"state_names; it returned {got}"
    )


def title(cell: nn.Module) -> str:
    """The name of the class that the user wrote, inside what the engine and its layers put around it."""
    return type(innermost(cell)).__name__


def innermost(cell: nn.Module) -> nn.Module:
    """The user's own object, inside what the engine and its layers put around it again in every call."""
    while True:
        if "origin" in vars(cell):
            cell = cell.origin  # type: ignore[assignment]
        elif isinstance(cell, WrapperCell | Held):
            cell = cell.cell
        elif isinstance(cell, Foreign):
            cell = cell.module
        else:
            return cell


def check_module(module: object) -> None:
    """ConfigurationError if `module` is nothing that can be unrolled."""
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type):
        what, advice = f"the class {module.__name__}", f"make one first: {module.__name__}(input_size, hidden_size)"
    else:
        what = f"a {type(module).__name__}"
        advice = "put the step into the forward(x, state) of a torch.nn.Module, so that its parameters are known"
    raise ConfigurationError(f"unroll takes a Cell or a torch.nn.Module, got {what}: {advice}")


def adapt(module: nn.Module, inputs: Tensor, state: Any) -> tuple[Foreign, State]:
    """The cell that a module is, and its state as a tuple."""
    tensors, form = unpack(state)
    if not tensors or any(not isinstance(part, Tensor) or part.dim() != 2 for part in tensors):
        raise ShapeError(f"the state of {type(module).__name__} must be a tensor [B, size], or a tuple of such")
    return Foreign(module, form, inputs.size(-1), tuple(part.size(1) for part in tensors)), tensors


def unpack(state: Any) -> tuple[State, Form]:
    """The tensors of a state, and the form that they had."""
    if isinstance(state, Tensor):
        return (state,), None
    if type(state) is tuple and all(isinstance(part, Tensor) for part in state):
        return state, len(state)
    tensors, form = pytree.tree_flatten(state)
    return tuple(tensors), form


def pack(tensors: State, form: Form) -> Any:
    """The reverse of `unpack`."""
    if form is None:
        return tensors[0]
    return tuple(tensors) if isinstance(form, int) else pytree.tree_unflatten(list(tensors), form)


def returned(state: State, form: Form) -> Any:
    """A last state in the form in which the first one was given; a bare tensor comes back as a tuple of one."""
    return pack(state, form) if isinstance(form, pytree.TreeSpec) else state


#: Which of its two results a module's state is, once that has been found out.
_forms: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def first_step(module: nn.Module, x: Tensor) -> tuple[Tensor, Any]:
    """Output and state of a module of the user that is given no state, in the form that it takes.

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


def _read(module: nn.Module, made: Any, form: Form) -> tuple[Tensor, State]:
    """Output and state of what a step returned, for a state of that form."""
    if isinstance(form, pytree.TreeSpec):
        tensors = _leaves(made, form)
        if tensors is not None:
            return tensors[0], tensors
        if isinstance(made, Sequence) and len(made) == 2 and isinstance(made[0], Tensor):
            tensors = _leaves(made[1], form)
            if tensors is not None:
                return made[0], tensors
    elif form is None:
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
        f"{'a tensor' if form is None else f'{form} tensors' if isinstance(form, int) else f'of the form {form}'}"
    )


def _leaves(made: Any, form: pytree.TreeSpec) -> State | None:
    """The tensors of a state of that form, or of another sequence in place of one; None if it is neither."""
    if (
        isinstance(made, list | tuple)
        and len(made) == form.num_leaves
        and all(isinstance(each, Tensor) for each in made)
    ):
        return tuple(made)
    try:
        found = form.flatten_up_to(made)
    except ValueError:
        return None
    return tuple(found) if all(map(_is_tensor, found)) else None


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
