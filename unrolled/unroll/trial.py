"""A copy of a cell to try its step on: what the step does to it, the cell does not see."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from unrolled.unroll.watch import INTERNAL

#: What is shared for good: copying takes memory, or means nothing.
_SHARED = (Tensor, type, str, int, float, bool, type(None))


def trial_copy(cell: nn.Module, tensors: dict[int, Tensor]) -> tuple[nn.Module, dict[str, str]]:
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
    return pairs[0][1], uncopied


def _copied(value: Any, name: str, memo: dict[int, Any], uncopied: dict[str, str]) -> Any:
    before = dict(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # whatever a class raises that does not want to be copied
        memo.clear()  # of what was copied half
        memo.update(before)
        uncopied[name] = f"a {type(value).__qualname__} ({type(error).__name__})"
        return value


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
    top.__dict__["origin"] = getattr(cell, "origin", cell)
    return top
