"""What two cells must share to run by one plan, and how that is remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from unrolled.errors import CompilerError, UntraceableError

T = TypeVar("T")
#: Held by the one thread that plans or compiles: tracing switches things in PyTorch that all threads see.
planning = threading.RLock()


@dataclass(frozen=True)
class Itself:
    """Stands in a key for a setting that cannot be compared: equal to itself alone, and kept alive by the key."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


_INTERNAL = frozenset([*vars(nn.Module()), "origin"])


def describe(module: nn.Module) -> tuple[Hashable, dict[str, Tensor]]:
    """What decides a module's step beside the values of its tensors, and these by name.

    That is class, settings, shapes, and its parts'. Buffers count among the tensors; one that has several names comes
    once, under the first.
    """
    tensors: dict[str, Tensor] = {}
    return _describe(module, "", tensors, {}), tensors


def _describe(module: nn.Module, prefix: str, tensors: dict[str, Tensor], numbers: dict[int, int]) -> Hashable:
    settings: list[Hashable] = []
    shapes: list[Hashable] = []
    for name, value in vars(module).items():
        if name not in _INTERNAL:
            plain = isinstance(value, Hashable) and not isinstance(value, Tensor)
            settings.append((name, type(value), value if plain else Itself(value)))
    for group in (module._parameters, module._buffers):
        for name, tensor in group.items():
            if tensor is None:
                shapes.append((name, None))
                continue
            number = numbers.setdefault(id(tensor), len(numbers))
            if number == len(tensors):
                tensors[prefix + name] = tensor
            shapes.append((name, (number, tensor.shape, tensor.dtype)))
    parts = tuple(
        (name, None if part is None else _describe(part, f"{prefix}{name}.", tensors, numbers))
        for name, part in module._modules.items()
    )
    return type(module), module.training, tuple(settings), tuple(shapes), parts


def remember(known: dict[Hashable, T | Exception], key: Hashable, make: Callable[[], T]) -> T:
    """What was made for `key`, now or before; the error again, where it could not be made."""
    if key not in known:
        with planning:
            if key not in known:
                try:
                    known[key] = make()
                except (UntraceableError, CompilerError) as error:
                    known[key] = error
    found = known[key]
    if isinstance(found, Exception):
        raise found
    return found
