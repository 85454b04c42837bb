"""Copies a cell to try its step on the copy, so that side effects do not reach the cell."""

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
#: Types whose values the copy shares, because copying them takes memory or has no effect.
_SHARED = (Tensor, type, str, int, float, bool, type(None), pytree.TreeSpec)


def trial_copy(cell: M, tensors: dict[int, Tensor]) -> tuple[M, dict[str, str]]:
    """Return a copy of `cell` and its submodules, and the attributes that could not be copied, with descriptions.

    tensors: replacements of parameters and buffers, by the `id` of the original. Tensors without one are shared.
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
                uncopied[name] = "a function that caches its results"
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
        uncopied[name] = f"a {type(value).__qualname__} of {_size(value):,} elements, too many to check in every call"
        return value
    before = dict(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # anything that an uncopyable class raises
        memo.clear()  # drop half-copied values
        memo.update(before)
        uncopied[name] = f"a {type(value).__qualname__}, which cannot be copied for a trial ({type(error).__name__})"
        return value


def _size(value: Sized) -> int:
    return value.size if isinstance(value, np.ndarray) else len(value)


def can_be_buffer(module: nn.Module, name: str) -> bool:
    """Return whether a buffer can replace an attribute: attribute access must find it, not something of the class."""
    kind = type(module)
    plain = kind.__getattr__ is nn.Module.__getattr__ and kind.__getattribute__ is nn.Module.__getattribute__
    return plain and not hasattr(kind, name)


def same_step(cell: Cell, other: Cell, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether one step of two cells has the same result on the same random numbers."""
    generator = torch.Generator().manual_seed(0)
    sizes: list[int] = [cell.input_size, *cell.state_sizes]
    x, *state = (torch.randn(2, size, generator=generator, dtype=dtype).to(device) for size in sizes)
    with torch.no_grad():
        (output, new), (output_2, new_2) = (step(trial_copy(each, {})[0], x, tuple(state)) for each in (cell, other))
    pairs = zip((output, *new), (output_2, *new_2), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs)


def with_buffers(cell: nn.Module, modules: list[nn.Module], numbers: dict[tuple[int, str], Tensor]) -> nn.Module:
    """Return a shallow copy of `cell` in which the attributes `numbers` are buffers.

    modules: the cell's modules. numbers: the buffers by `(index of module, name)`.
    """
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
