"""Names that are imported on first use, so that the command line answers without PyTorch."""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Place:
    """The place of an object, `package.module:name`, and the options that it is always called with."""

    where: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Import the object and return it; with options, return a `functools.partial` of it."""
        module, _, name = self.where.partition(":")
        found = getattr(importlib.import_module(module), name)
        return partial(found, **self.options) if self.options else found


class Table(UserDict[str, Value]):
    """Objects by name: a `dict` whose `Place`s are imported when they are looked up. Listing names imports nothing."""

    def __getitem__(self, name: str) -> Value:
        found: Any = self.data[name]
        if isinstance(found, Place):
            found = self.data[name] = found.load()
        return found


def door(package: str, offered: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package, given the names that each of its modules offers."""
    module_of = {name: module for module, names in offered.items() for name in names}

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return find
