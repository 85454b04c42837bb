"""A copy of a cell to try its step on: what the step does to it, the cell does not see."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sized
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unrolled.cells import Cell
from unrolled.unroll.adapt import step
from unrolled.unroll.watch import INTERNAL, MOST_VALUES, is_trusted

M = TypeVar("M", bound=nn.Module)
#: What is shared for good: copying takes memory, or means nothing.
_SHARED = (Tensor, type, str, int, float, bool, type(None), pytree.TreeSpec)


def trial_copy(cell: M, tensors: dict[int, Tensor]) -> tuple[M, dict[str, str]]:
    """A copy of `cell` and its parts, and the attributes that could not be copied: their names, and what they are.

    tensors: what takes the place of parameters and buffers, by `id`; one that is not there is shared.
    """
    memo: dict[int, Any] = dict(tensors)
    uncopied: dict[str, str] = {}
    pairs = []
    for module in cell.modules():
        made = type(module).__new__(type(module))
        memo[id(module)] = made
        pairs.append((module, made))
    for kind in {base for module, _ in pairs for base in type(module).__mro__ if not is_trusted(base)}:
        for name, value in vars(kind).items():
            if isinstance(value, functools._lru_cache_wrapper):
                uncopied[name] = "a function that remembers its results"
    for module, made in pairs:
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                value = {key: memo.get(id(tensor), tensor) for key, tensor in value.items()}
            elif name == "_modules":
                value = {key: memo.get(id(part), part) for key, part in value.items()}
            elif name == "origin":
                continue
            elif name in INTERNAL:
                value = copy.copy(value)
            elif not isinstance(value, _SHARED):
                value = _copied(value, name, memo, uncopied)
            made.__dict__[name] = value
    return memo[id(cell)], uncopied


def _copied(value: Any, name: str, memo: dict[int, Any], uncopied: dict[str, str]) -> Any:
    if isinstance(value, Sized) and _size(value) > MOST_VALUES:
        uncopied[name] = f"a {type(value).__qualname__} of {_size(value):,} elements, too many to look at in every call"
        return value
    before = dict(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # whatever a class raises that does not want to be copied
        memo.clear()  # of what was copied half
        memo.update(before)
        uncopied[name] = f"a {type(value).__qualname__}, which cannot be copied for a trial ({type(error).__name__})"
        return value


def _size(value: Sized) -> int:
    return value.size if isinstance(value, np.ndarray) else len(value)


def can_be_buffer(module: nn.Module, name: str) -> bool:
    """Whether a buffer in place of an attribute is found where the attribute is: nothing of the class comes first."""
    kind = type(module)
    plain = kind.__getattr__ is nn.Module.__getattr__ and kind.__getattribute__ is nn.Module.__getattribute__
    return plain and not hasattr(kind, name)


def same_step(cell: Cell, other: Cell, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether two cells make the same of the same numbers."""
    generator = torch.Generator().manual_seed(0)
    sizes: list[int] = [cell.input_size, *cell.state_sizes]
    x, *state = (torch.randn(2, size, generator=generator, dtype=dtype).to(device) for size in sizes)
    with torch.no_grad():
        (output, new), (output_2, new_2) = (step(trial_copy(each, {})[0], x, tuple(state)) for each in (cell, other))
    pairs = zip((output, *new), (output_2, *new_2), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs)


def with_buffers(cell: nn.Module, modules: list[nn.Module], numbers: dict[tuple[int, str], Tensor]) -> nn.Module:
    """A shallow copy of `cell`, which consists of `modules`, with attributes as buffers: `(index of module, name)`."""
    wanted = {index for index, _ in numbers}
    made: dict[int, nn.Module] = {}
    for index, module in enumerate(modules):
        clone = type(module).__new__(type(module))
        clone.__dict__.update(vars(module))
        if index in wanted:
            own = {name: value for (number, name), value in numbers.items() if number == index}
            for name in own:
                del clone.__dict__[name]
            clone.__dict__["_buffers"] = {**module._buffers, **own}
        made[id(module)] = clone
    for module in modules:
        parts = {name: None if part is None else made[id(part)] for name, part in module._modules.items()}
        made[id(module)].__dict__["_modules"] = parts
    top = made[id(cell)]
    top.__dict__["lifted"] = True
    top.__dict__["origin"] = getattr(cell, "origin", cell)
    return top
