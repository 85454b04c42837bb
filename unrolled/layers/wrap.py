"""A user's module as the cell of a layer. Its state's form is found by calling it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, find_cell
from unrolled.errors import ConfigurationError, UnrolledError
from unrolled.unroll.adapt import Foreign, first_step, title, unpack
from unrolled.unroll.trial import trial_copy

#: The errors that a module may raise for a state that it does not accept.
_REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, UnrolledError)


def as_cell(made: Any, input_size: int, hidden_size: int) -> Cell:
    """Return what a layer's `cell_class` has made as a cell.

    A module that is not a Cell is tried with inputs `[1, input_size]`: without a state, then with one state
    `[1, hidden_size]`, then with two. In a layer it starts from zeros.
    Raises ConfigurationError if `made` is not a module, or accepts none of these.
    """
    if isinstance(made, Cell):
        return made
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"a layer is made of cells or torch.nn modules (x, state) -> state; got {made!r}")
    first = next((parameter for parameter in made.parameters() if parameter.is_floating_point()), torch.empty(0))
    x = first.new_zeros(1, input_size)
    refused: list[str] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for state in (None, first.new_zeros(1, hidden_size), (first.new_zeros(1, hidden_size),) * 2):
            tensors = {id(each): each.detach().clone() for each in (*made.parameters(), *made.buffers())}
            tried, _ = trial_copy(made, tensors)
            try:
                if state is None:
                    output, state = first_step(tried, x)
                    _check(state)
                first_state, form = unpack(state)
                cell = Foreign(tried, form, input_size, tuple(part.size(1) for part in first_state))
                output, new = cell.step(x, first_state)
            except _REFUSALS as error:
                refused.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
                continue
            names = ("h", "c") if len(new) == 2 else ("h", *(f"state_{k}" for k in range(1, len(new))))
            found = Foreign(made, form, input_size, cell.sizes)
            found.state_names = names  # type: ignore[misc]
            found.own_output = None if output is new[0] else output.size(1)
            return found
    raise ConfigurationError(
        f"{title(made)} cannot be the cell of a layer: its forward must take (x [B, {input_size}], state) and return "
        f"the new state, or (output, state), where a state is one or two tensors [B, {hidden_size}]. "
        f"Its error is: {refused[1]}"
    )


def make_cell(name: str, input_size: int, hidden_size: int, dtype: torch.dtype | None = None) -> Cell:
    """Build a new cell of that name, which may be a user's cell (`find_cell`), in `dtype`."""
    make = find_cell(name)
    if dtype is None:
        return as_cell(make(input_size, hidden_size), input_size, hidden_size)
    takes = inspect.signature(make).parameters
    takes_dtype = "dtype" in takes or any(each.kind is each.VAR_KEYWORD for each in takes.values())
    made = make(input_size, hidden_size, **({"dtype": dtype} if takes_dtype else {}))
    return as_cell(made.to(dtype), input_size, hidden_size)


def _check(state: Any) -> None:
    """Raise ValueError if a module's first state is not made of tensors `[B, size]`."""
    if not all(isinstance(part, Tensor) and part.dim() == 2 for part in unpack(state)[0]):
        raise ValueError("its state is not made of tensors [B, size]")
