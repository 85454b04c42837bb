"""Adapters that make a cell of any module: the engine's contract for a step, and the modules of users that meet it."""

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

#: The form in which a module takes its state: None for a bare tensor, the number of tensors for a plain tuple, and
#: PyTorch's TreeSpec for anything else (lists, dicts, namedtuples, tuples of tuples).
Form = int | pytree.TreeSpec | None


class WrapperCell(Cell):
    """A cell that wraps another one for the length of a call, such as noise. It has that cell's states and start."""

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)  # the sizes were checked when `cell` was built
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
    """A cell whose output is not its first state: `step` returns both, and `forward` returns the state alone."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError

    def forward(self, x: Tensor, state: State) -> State:
        return self.step(x, state)[1]


class Foreign(WithOutput):
    """A user's module, `(x, state) -> state` or `(x, state) -> (output, state)`, as a cell.

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
    """A cell that takes a step only if the last feature of its input is 1, and keeps its state if that feature is 0.

    For a sequence that keeps its state, the step is still computed, from that state, and its result is discarded. The
    gradient of the discarded result is zero only if the cell has a finite derivative at that state. The eager loop
    avoids this condition: there such a step starts from the state before the first step.
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
        # If the output is the first state, nothing reads the output of a held step.
        return held[0] if output is new[0] else output, held


def step(cell: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Run one step of a cell and return its output and its new state."""
    if isinstance(cell, WithOutput):
        return cell.step(x, state)
    new = new_state(cell, x, state)  # type: ignore[arg-type]
    return new[0], new


def stepper(cell: nn.Module) -> Callable[[Tensor, State], tuple[Tensor, State]]:
    """Return `step` for one cell, with everything that is the same at every step done in advance."""
    if not isinstance(cell, Foreign):
        return partial(step, cell)
    module, form = cell.module, cell.form
    if form is None:

        def bare(x: Tensor, state: State) -> tuple[Tensor, State]:
            result = module(x, state[0])
            return (result, (result,)) if isinstance(result, Tensor) else _read(module, result, None)

        return bare
    if isinstance(form, int):
        return lambda x, state: _read(module, module(x, state), form)
    return cell.step


def new_state(cell: Cell, x: Tensor, state: State) -> State:
    """Return what a cell's `forward` returns as a tuple; a cell with one state may return a bare tensor.

    Raises ConfigurationError if it is not a state of that cell.
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
    """Return the name of the class that the user wrote, without the wrappers of the engine and its layers."""
    return type(innermost(cell)).__name__


def innermost(cell: nn.Module) -> nn.Module:
    """Return the user's own object, without the wrappers that the engine and its layers add in every call."""
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
    """Raise ConfigurationError if `module` cannot be unrolled."""
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type):
        what = f"the class {module.__name__}"
        advice = f"create an instance first: {module.__name__}(input_size, hidden_size)"
    else:
        what = f"a {type(module).__name__}"
        advice = "write the step as the forward(x, state) of a torch.nn.Module, so that its parameters are known"
    raise ConfigurationError(f"unroll takes a Cell or a torch.nn.Module, got {what}: {advice}")


def adapt(module: nn.Module, inputs: Tensor, state: Any) -> tuple[Foreign, State]:
    """Return a module as a cell, and its state as a tuple."""
    tensors, form = unpack(state)
    if not tensors or any(not isinstance(part, Tensor) or part.dim() != 2 for part in tensors):
        raise ShapeError(f"the state of {type(module).__name__} must be a tensor [B, size], or a tuple of such tensors")
    return Foreign(module, form, inputs.size(-1), tuple(part.size(1) for part in tensors)), tensors


def unpack(state: Any) -> tuple[State, Form]:
    """Return the tensors of a state, and their form."""
    if isinstance(state, Tensor):
        return (state,), None
    if type(state) is tuple and all(isinstance(part, Tensor) for part in state):
        return state, len(state)
    tensors, form = pytree.tree_flatten(state)
    return tuple(tensors), form


def pack(tensors: State, form: Form) -> Any:
    """Return the state that `unpack` took apart."""
    if form is None:
        return tensors[0]
    return tuple(tensors) if isinstance(form, int) else pytree.tree_unflatten(list(tensors), form)


def returned(state: State, form: Form) -> Any:
    """Return the last state in the form of the first one, except that a bare tensor becomes a tuple of one."""
    return pack(state, form) if isinstance(form, pytree.TreeSpec) else state


#: For modules that return two values: whether the pair is the state, or its second value is.
_forms: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def first_step(module: nn.Module, x: Tensor) -> tuple[Tensor, Any]:
    """Return the output and the state of a user's module that is called without a state.

    If the module returns a pair and accepts that pair as its state, the pair is its state. Otherwise it is
    `(output, state)`.
    """
    try:
        result = module(x, None)
    except TypeError as error:
        raise ConfigurationError(f"{type(module).__name__} cannot start without a state: give unroll one") from error
    if not isinstance(result, Sequence) or len(result) != 2:
        return result if isinstance(result, Tensor) else result[0], result
    if module not in _forms:
        try:
            with torch.no_grad():
                module(x, result)
            _forms[module] = True
        except (TypeError, ValueError, AttributeError, RuntimeError, IndexError):
            _forms[module] = False
    return result[0], result if _forms[module] else result[1]


def _read(module: nn.Module, result: Any, form: Form) -> tuple[Tensor, State]:
    """Return the output and the state in what a step returned, for a state of that form."""
    if isinstance(form, pytree.TreeSpec):
        tensors = _leaves(result, form)
        if tensors is not None:
            return tensors[0], tensors
        if isinstance(result, Sequence) and len(result) == 2 and isinstance(result[0], Tensor):
            tensors = _leaves(result[1], form)
            if tensors is not None:
                return result[0], tensors
    elif form is None:
        if isinstance(result, Tensor):
            return result, (result,)
        if isinstance(result, Sequence) and len(result) == 1:
            return result[0], tuple(result)
        if isinstance(result, Sequence) and len(result) == 2:
            output, new = result
            return output, (new,) if isinstance(new, Tensor) else tuple(new)
    elif isinstance(result, Sequence):
        if len(result) == form and all(isinstance(part, Tensor) for part in result):
            return result[0], tuple(result)
        if len(result) == 2 and isinstance(result[1], Sequence) and len(result[1]) == form:
            return result[0], tuple(result[1])
    raise ConfigurationError(
        f"{type(module).__name__} must return its new state, or (output, state); its state is "
        f"{'a tensor' if form is None else f'{form} tensors' if isinstance(form, int) else f'of the form {form}'}"
    )


def _leaves(result: Any, form: pytree.TreeSpec) -> State | None:
    """Return the tensors of a state of that form, or of a sequence of as many tensors; None for anything else."""
    if (
        isinstance(result, list | tuple)
        and len(result) == form.num_leaves
        and all(isinstance(each, Tensor) for each in result)
    ):
        return tuple(result)
    try:
        found = form.flatten_up_to(result)
    except ValueError:
        return None
    return tuple(found) if all(map(_is_tensor, found)) else None


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
