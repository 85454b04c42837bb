"""What two cells must share to run by one plan."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@dataclass(frozen=True)
class _Itself:
    """Stands in a key for a setting that cannot be compared: equal to itself alone, and kept alive by the key."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


_INTERNAL = frozenset(vars(nn.Module()))


def signature(module: nn.Module) -> Hashable:
    """What decides a module's step beside the values of its parameters: class, settings, shapes, and its parts'."""
    settings = []
    for name, value in vars(module).items():
        if name not in _INTERNAL:
            plain = isinstance(value, Hashable) and not isinstance(value, Tensor)
            settings.append((name, type(value), value if plain else _Itself(value)))
    tensors = [
        (name, None if value is None else (value.shape, value.dtype))
        for group in (module._parameters, module._buffers)
        for name, value in group.items()
    ]
    parts = tuple((name, None if part is None else signature(part)) for name, part in module._modules.items())
    return type(module), module.training, tuple(settings), tuple(tensors), parts
