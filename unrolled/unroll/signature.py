"""Describes the structure of a cell. Cells of one structure share a plan if their steps read the same: see `watch`."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

from unrolled.cells import Cell
from unrolled.errors import UntraceableError
from unrolled.unroll.watch import INTERNAL, Itself

#: Held by the thread that plans or compiles, because tracing changes global state of PyTorch.
planning = threading.RLock()


class PassingError(UntraceableError):
    """A reason against a plan that may be gone at the next call."""


class Description(NamedTuple):
    """The structure of a module and its submodules.

    structure: classes, shapes, training modes and a cell's sizes; hashable.
    tensors: parameters and buffers by name. A tensor with several names appears once, under the first.
    modules: the module and all its submodules, in the order of the structure.
    """

    structure: Hashable
    tensors: dict[str, Tensor]
    modules: list[nn.Module]


def describe_module(module: nn.Module) -> Description:
    """Return the description of a module."""
    tensors: dict[str, Tensor] = {}
    modules: list[nn.Module] = []
    structure = _describe(module, "", tensors, {}, modules)
    # A cell's parameters may not determine the sizes of its input and its states.
    sizes = (module.input_size, module.state_sizes) if isinstance(module, Cell) else ()
    return Description((structure, sizes), tensors, modules)


def _describe(
    module: nn.Module, prefix: str, tensors: dict[str, Tensor], numbers: dict[int, int], modules: list[nn.Module]
) -> Hashable:
    modules.append(module)
    shapes: list[Hashable] = []
    for group in (module._parameters, module._buffers):
        for name, tensor in group.items():
            if tensor is None:
                shapes.append((name, None))
                continue
            number = numbers.setdefault(id(tensor), len(numbers))
            if number == len(tensors):
                tensors[prefix + name] = tensor
            shapes.append((name, number, tensor.shape, tensor.dtype, type(tensor)))
    if not module._modules:
        return type(module), module.training, tuple(shapes)
    parts = tuple(
        (name, None if part is None else _describe(part, f"{prefix}{name}.", tensors, numbers, modules))
        for name, part in module._modules.items()
    )
    return type(module), module.training, tuple(shapes), parts


def settings(description: Description) -> Hashable:
    """Return every attribute of a module and its submodules, while it is unknown which of them the step reads."""
    found: list[Hashable] = []
    for number, module in enumerate(description.modules):
        for name, value in vars(module).items():
            if name not in INTERNAL:
                plain = isinstance(value, Hashable) and not isinstance(value, Tensor)
                found.append((number, name, type(value), value if plain else Itself(value)))
    return tuple(found)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks are called when the module is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def check_hooks(modules: list[nn.Module]) -> None:
    """Raise PassingError if a module has hooks, because native code does not call them."""
    for module in modules:
        if has_hooks(module):
            raise PassingError(f"its {type(module).__name__} has a hook, which is called at every step")
    if _torch_module._has_any_global_hook():
        raise PassingError("global module hooks are registered, which are called at every step")
