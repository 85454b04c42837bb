"""A hash of everything that decides a cell's step. Equal steps have equal hashes in every process.

The hash covers settings, shapes and code: the code of the cell's classes and of everything that they call. PyTorch and
Python's own modules are represented by their versions. If something cannot be hashed reliably, there is no fingerprint.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import platform
import sys
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch

from unrolled.unroll.schedule import Schedule
from unrolled.unroll.watch import Itself

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...), torch.dtype, torch.device)
_WRAPPERS = (staticmethod, classmethod, types.MethodType)
#: Members of a class that no step reads.
_PASSED = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__"}
_PASSED |= {"__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl"}
_PASSED |= {"__annotate__", "__annotate_func__", "__annotations_cache__"}


class _UnknownError(Exception):
    """A value that may mean something else in another process."""


def fingerprint(*things: Hashable) -> str | None:
    """Return a hash of descriptions of modules and of other plain values; None if one cannot be hashed reliably."""
    reader = _Reader()
    try:
        for thing in (*things, torch.__version__, platform.python_version(), str(torch.get_default_dtype()), _own()):
            reader.read(thing)
    except _UnknownError:
        return None
    return reader.hash.hexdigest()[:32]


@functools.cache
def _own() -> str:
    """Return a hash of this package's own code."""
    room = Path(__file__).parent
    files = sorted([*room.iterdir(), *(room.parent / "cells").iterdir(), *(room.parent / "layers").iterdir()])
    texts = [path.read_bytes() for path in files if path.suffix in (".py", ".c", ".h")]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _is_known(module: str | None) -> bool:
    """Return whether a hash or a version covers a module's code: PyTorch's, Python's, or this package's own."""
    root = (module or "").split(".")
    known = root[0] in sys.stdlib_module_names and root[0] != "__main__"
    return known or root[0] == "torch" or root[:2] in (["unrolled", name] for name in ("unroll", "cells", "layers"))


class _Reader:
    """Feeds values to a hash, each class and function once."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []

    def _say(self, *words: object) -> None:
        for word in words:
            self.hash.update(f"{type(word).__name__}:{word!r};".encode())

    def _again(self, value: object) -> bool:
        """Hash the number of `value`, and return whether it was read before."""
        known = id(value) in self._seen
        if not known:
            self._seen[id(value)] = len(self._alive)
            self._alive.append(value)  # keeps its address from being used again
        self._say(self._seen[id(value)])
        return known

    def read(self, value: Any) -> None:
        if isinstance(value, enum.Enum):
            self._say(type(value).__qualname__, value.name)
        elif isinstance(value, _PLAIN):
            self._say(value)
        elif isinstance(value, Itself):
            self.read(value.value)
        elif isinstance(value, Schedule):  # it follows from the cell, which is hashed too
            self._say("schedule")
        elif isinstance(value, tuple | list):
            self._say(type(value).__qualname__, len(value))
            for part in value:
                self.read(part)
        elif isinstance(value, dict):
            self._say("dict", len(value))
            for item in value.items():
                self.read(item)
        elif isinstance(value, set | frozenset) and all(isinstance(part, _PLAIN) for part in value):
            self._say("set", sorted(map(repr, value)))
        elif isinstance(value, _WRAPPERS):
            self._say(type(value).__qualname__)
            self.read(value.__func__)
        elif isinstance(value, property):
            self.read((value.fget, value.fset))
        elif isinstance(value, functools.partial):
            self.read((value.func, value.args, value.keywords))
        elif isinstance(value, type):
            self._read_class(value)
        elif isinstance(value, types.FunctionType):
            self._read_function(value)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
            self._say(value.__module__ if hasattr(value, "__module__") else None, value.__qualname__)
        elif isinstance(value, types.ModuleType) and _is_known(value.__name__):
            self._say("module", value.__name__)
        else:
            raise _UnknownError

    def _read_class(self, value: type) -> None:
        self._say("class", value.__module__, value.__qualname__)
        if _is_known(value.__module__) or value.__module__ == "builtins" or self._again(value):
            return
        for base in value.__bases__:
            self.read(base)
        for name, member in sorted(vars(value).items()):
            if name not in _PASSED:
                self._say(name)
                self.read(member)

    def _read_function(self, value: types.FunctionType) -> None:
        self._say("function", value.__module__, value.__qualname__)
        if _is_known(value.__module__) or self._again(value):
            return
        self.read((value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            try:
                self.read(cell.cell_contents)
            except ValueError:  # still empty
                self._say("empty")
        names = self._read_code(value.__code__)
        for name in sorted(names):
            if name in value.__globals__:
                self._say(name)
                self._read_global(value.__globals__[name], names)
            elif not hasattr(builtins, name):
                self._say("attribute", name)

    def _read_global(self, value: Any, names: set[str]) -> None:
        """Read a global; of a module, read every member whose name appears in the code."""
        if not isinstance(value, types.ModuleType) or _is_known(value.__name__):
            self.read(value)
            return
        self._say("module", value.__name__)
        if self._again(value):
            raise _UnknownError  # it was read for the names in another function's code
        for name in sorted(names & set(vars(value))):
            self._say(name)
            self._read_global(getattr(value, name), names)

    def _read_code(self, code: types.CodeType) -> set[str]:
        """Read a function's code and return the names that it uses."""
        self._say(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount)
        names = set(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                names |= self._read_code(constant)
            else:
                self.read(constant)
        return names
