"""Reads what a step reads in addition to its arguments, and compares it at every call.

A plan is valid as long as everything that the step read while it was traced is unchanged. `Watch.look` returns this
content as a value that is equal to the content at the trace if nothing has changed. Scalars and containers are compared
by content, code by identity. A value that cannot be compared raises UntraceableError, and the cell runs eagerly.
"""

from __future__ import annotations

import collections
import enum
import functools
import operator
import sys
import types
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unrolled.errors import UntraceableError
from unrolled.unroll.content import Content


@dataclass(frozen=True)
class Itself:
    """A value that compares by identity. It is kept alive, so that no other object gets its id."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


#: Types whose values are compared directly.
_ATOMS = frozenset(
    {int, str, bool, type(None), bytes, complex, range, slice, type(...), type(NotImplemented)}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format}
)
_CODE = frozenset({types.FunctionType, types.BuiltinFunctionType})
_SIZED = (list, tuple, dict, set, frozenset, collections.deque)
_LISTS = (list, tuple, collections.deque)
#: Packages whose code does not change within a version, and reads only attributes of the modules themselves.
TRUSTED = frozenset({"torch", "unrolled"})
#: Modules whose members are compared by identity, without what the members contain.
_LIBRARIES = TRUSTED | {"numpy", "math", "builtins"}
#: Attributes of classes that run a step, and those of this package's cells that a step never reads.
_STEPS = frozenset({"forward", "__call__", "step"})
_UNREAD = frozenset(
    {"__init__", "__doc__", "__module__", "__annotations__", "__parameters__", "__firstlineno__"}
    | {"__static_attributes__", "__constants__", "__abstractmethods__", "_abc_impl"}
    | {"add_parameters", "reset_parameters", "initial_state", "bind", "extra_repr"}
)
#: Names in `__slots__` that hold no attribute.
_PASSED = frozenset({"__dict__", "__weakref__"})
#: The attributes of a module that PyTorch or the engine sets.
INTERNAL = frozenset([*vars(nn.Module()), "origin", "lifted"])
#: The most elements of one array, and the most values in all, that are compared at a call.
_MOST_ELEMENTS, MOST_VALUES = 4096, 2000
_MOST_GETTERS = 16
NO_BUFFER = "a tensor that is neither a parameter nor a buffer: use register_buffer to make it a buffer"
_ABSENT = object()

Pairs = tuple[tuple[dict, tuple[str, ...]], ...]


def is_trusted(owner: object) -> bool:
    """Return whether a class or function is PyTorch's or this package's."""
    return (getattr(owner, "__module__", None) or "").partition(".")[0] in TRUSTED


def has_code_of_its_own(modules: Sequence[nn.Module]) -> bool:
    """Return whether a step runs code other than PyTorch's and this package's, which read only their attributes."""
    for module in modules:
        held = [value for name, value in vars(module).items() if name not in INTERNAL and callable(value)]
        if not is_trusted(type(module)) or not all(map(is_trusted, held)):
            return True
    return False


class Watch:
    """What the steps of cells of one structure read.

    names: every name in the code that ran, which includes every attribute that it may have read; None if it looked up
        attributes by computed names.
    spaces: the namespaces of the functions that ran, with the names that these may read.
    modules: the cell's modules, in the order of `describe_module`.
    own_names: those of `names` that appear in the user's code.
    """

    def __init__(
        self,
        names: frozenset[str] | None,
        spaces: Pairs,
        modules: Sequence[nn.Module],
        own_names: frozenset[str] = frozenset(),
    ) -> None:
        self.names, self.spaces, self._own_names = names, spaces, own_names
        # For a trusted class, compare every attribute, because the names in its code were not collected.
        self._whole = [names is None or is_trusted(type(module)) for module in modules]
        self._attributes: list[dict[tuple[str, ...], _Getter]] = [{} for _ in modules]
        self._trusted: list[_Getter] = []
        self._own: list[type] = []
        for kind in dict.fromkeys(kind for module in modules for kind in type(module).__mro__ if kind is not object):
            if not is_trusted(kind):
                self._own.append(kind)
                continue
            wanted = _STEPS if kind is nn.Module or names is not None else set(vars(kind)) - _UNREAD
            read = [name for name in vars(kind) if name in wanted or (names is not None and name in names)]
            found = tuple(name for name in read if not isinstance(vars(kind)[name], list | dict | set))
            if found and kind is not nn.Module:
                self._trusted.append(_Getter(found, vars(kind)))
        self._trusted.append(_Getter(("__call__", "_call_impl"), vars(nn.Module)))

    @property
    def reads(self) -> Hashable:
        """What is compared. Watches for which this is equal have equal contents of equal cells."""
        return self.names, tuple((id(space), wanted) for space, wanted in self.spaces)

    def look(self, modules: Sequence[nn.Module]) -> Content:
        """Return the content of all that is watched: modules' attributes, classes, and functions' namespaces."""
        reader = _Reader(self.names, self._own_names, modules)
        attributes = []
        for number, module in enumerate(modules):
            own = module.__dict__
            getters = self._attributes[number]
            getter = getters.get(tuple(own))
            if getter is None:
                getter = self._getter(number, own)
            attributes.append(getter.read(own, reader))
        # Functions and properties, which compare by identity.
        members = tuple([getter.members() for getter in self._trusted])
        if not self._own and not self.spaces:
            return Content(tuple(attributes), members)
        others = tuple([reader.members(kind) for kind in self._own])
        read = tuple(
            [reader.read_at(space.get(name, _ABSENT), name) for space, wanted in self.spaces for name in wanted]
        )
        return Content(tuple(attributes), members, others, read)

    def _getter(self, number: int, own: dict[str, Any]) -> _Getter:
        names = tuple(
            name
            for name in own
            if name not in INTERNAL and (self._whole[number] or name in self.names)  # type: ignore[operator]
        )
        getters = self._attributes[number]
        if len(getters) >= _MOST_GETTERS:
            getters.clear()
        return getters.setdefault(tuple(own), _Getter(names))

    def code_only(self, modules: Sequence[nn.Module]) -> Hashable:
        """Return the content without numbers, which may change at every step: strings, flags and code."""
        found: list[Hashable] = []
        for number, module in enumerate(modules):
            for name, value in vars(module).items():
                if name in INTERNAL or not (self.names is None or name in self.names):
                    continue
                if isinstance(value, str | bool | type(None) | enum.Enum | torch.dtype):
                    found.append((number, name, value))
                elif isinstance(value, types.FunctionType | type):
                    found.append((number, name, Itself(getattr(value, "__code__", value))))
        return tuple(found)


class _Getter:
    """Reads fixed names from dictionaries, or from a class that may change."""

    def __init__(self, names: tuple[str, ...], members: Mapping[str, Any] | None = None) -> None:
        self.names, self._members = names, members
        self._get = operator.itemgetter(*names) if names else None
        self._one = len(names) == 1

    def read(self, own: Mapping[str, Any], reader: _Reader) -> tuple[Hashable, ...]:
        """Return the names, and the types and contents of their values."""
        if self._get is None:
            return ()
        values = (self._get(own),) if self._one else self._get(own)
        kinds = tuple(map(type, values))
        if _ATOMS.issuperset(kinds):
            return self.names, kinds, values
        contents = [
            value if kind in _ATOMS else reader.read_at(value, name)
            for name, kind, value in zip(self.names, kinds, values, strict=True)
        ]
        return self.names, kinds, tuple(contents)

    def members(self) -> Hashable:
        """Return the current values of the names in the class."""
        assert self._members is not None
        try:
            return self._get(self._members)  # type: ignore[misc]
        except KeyError:
            return tuple(map(self._members.get, self.names))


class _Reader:
    """Turns values into content that can be compared and hashed."""

    def __init__(self, names: frozenset[str] | None, own_names: frozenset[str], modules: Sequence[nn.Module]) -> None:
        self.names, self._own_names = names, own_names
        self._modules = modules
        self._numbers: dict[int, int] | None = None
        self._open: dict[int, int] = {}
        self._left = MOST_VALUES

    def read_at(self, value: Any, name: str) -> Hashable:
        try:
            return self.read(value)
        except _UnwatchableError as error:
            raise UntraceableError(f"its step reads `{name}`, {error}") from None

    def read(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in _ATOMS:
            return kind, value
        if kind is float:
            return kind, value if value == value and value else repr(value)
        if kind in _CODE and is_trusted(value):
            return value
        if value is _ABSENT:
            return "absent"
        self._left -= 1 + (len(value) if isinstance(value, _SIZED) else 0)
        if self._left < 0:
            raise _UnwatchableError(f"which holds more than {MOST_VALUES} values, too many to check in every call")
        if id(value) in self._open:
            return "again", self._open[id(value)]
        self._open[id(value)] = len(self._open)
        try:
            plain = _PLAIN.get(kind)
            return kind, self._inside(value, kind) if plain is None else plain(self, value)
        finally:
            del self._open[id(value)]

    def _inside(self, value: Any, kind: type) -> Hashable:
        if isinstance(value, pytree.TreeSpec):
            return value
        if isinstance(value, nn.Module):
            return self._module(value)
        if kind is np.ndarray or isinstance(value, np.generic):
            return _array(np.asarray(value))
        if random_source(value):
            raise _UnwatchableError("a generator of random numbers: draw them outside, and pass them with the input")
        if isinstance(value, Tensor):
            raise _UnwatchableError(NO_BUFFER)
        if isinstance(value, enum.Enum):
            return value.name
        if isinstance(value, types.MethodType):
            return self.read(value.__func__), self.read(value.__self__)
        if isinstance(value, staticmethod | classmethod):
            return self.read(value.__func__)
        if isinstance(value, property):
            return self.read(value.fget)
        if isinstance(value, functools.partial):
            return self.read(value.func), self.read(value.args), self.read(value.keywords)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):  # of a subclass
            return self._namespace(value)
        if isinstance(value, _LISTS):
            return tuple(map(self.read, value)), self._attributes(value)
        if isinstance(value, dict | types.MappingProxyType):
            return tuple((self.read(key), self.read(each)) for key, each in value.items()), self._attributes(value)
        if isinstance(value, set | frozenset):
            return frozenset(map(self.read, value)), self._attributes(value)
        if isinstance(value, int | float | complex | str | bytes):  # of a subclass
            return repr(value), self._attributes(value)
        if isinstance(value, bytearray):
            return bytes(value)
        if kind.__module__ == "_collections":  # the getter of a namedtuple field
            return Itself(value)
        if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
            owner = getattr(value, "__self__", None)
            if owner is None or isinstance(owner, types.ModuleType | type):
                return value
            return value.__name__, self.read(owner)
        if kind.__module__.startswith("unrolled."):  # a wrapper of the engine
            return Itself(value)
        if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType | np.dtype):
            return value
        if kind.__module__ != "builtins" and (hasattr(value, "__dict__") or _slots(kind)) and _is_python(kind):
            return self._class(kind), self._attributes(value)
        raise _UnwatchableError(f"a {kind.__module__}.{kind.__qualname__}, which cannot be watched for changes")

    def _wanted(self, name: str) -> bool:
        return self.names is None or name in self.names

    def _attributes(self, value: Any) -> Hashable:
        own = getattr(value, "__dict__", None)
        found: list[Hashable] = []
        if own:
            found += [(name, self.read(each)) for name, each in list(own.items()) if self._wanted(name)]
        for name in _slots(type(value)):
            if self._wanted(name) and hasattr(value, name):
                found.append((name, self.read(getattr(value, name))))
        return tuple(found)

    def _module(self, module: nn.Module) -> Hashable:
        """Return the number of one of the cell's modules, or the content of any other module."""
        if self._numbers is None:
            self._numbers = {id(each): number for number, each in enumerate(self._modules)}
        if id(module) in self._numbers:
            return self._numbers[id(module)]
        parts = tuple(self.read(part) for part in module._modules.values())
        own = [(name, each) for name, each in vars(module).items() if name not in INTERNAL]
        settings = tuple((name, self.read(each)) for name, each in own if self._wanted(name))
        tensors = [*module._parameters.values(), *module._buffers.values()]
        return parts, settings, module.training, tuple(map(Itself, tensors))

    def _function(self, function: types.FunctionType) -> Hashable:
        if is_trusted(function):
            return function
        closure = []
        for cell in function.__closure__ or ():
            try:
                closure.append(self.read(cell.cell_contents))
            except ValueError:  # still empty
                closure.append("empty")
        defaults = self.read(function.__defaults__), self.read(function.__kwdefaults__)
        return Itself(function.__code__), defaults, tuple(closure), self._attributes(function)

    def _class(self, kind: type) -> Hashable:
        parts = []
        for base in kind.__mro__:
            if not is_trusted(base) and base.__module__ != "builtins":
                parts.append(self.members(base))
        return kind, tuple(parts)

    def members(self, kind: type) -> Hashable:
        """Return the content of the members that a class itself defines and a step may read."""
        found = []
        for name, value in list(vars(kind).items()):
            special = name.startswith("__") and name.endswith("__")
            if (
                name == "forward"
                or (special and name not in _UNREAD and type(value) is types.FunctionType)
                or (self._wanted(name) and not special)
            ):
                found.append((name, self.read_at(value, name)))
        return tuple(found)

    def _namespace(self, module: types.ModuleType) -> Hashable:
        own, root = vars(module), module.__name__.partition(".")[0]
        found = [(name, own[name]) for name in self._own_names if name in own]
        if root in _LIBRARIES or root in sys.stdlib_module_names:
            return tuple([(name, Itself(value)) for name, value in found])
        return tuple([(name, self.read(value)) for name, value in found])


class SeenError(UntraceableError):
    """A step that cannot be compiled. `watch` is what it read before this was found out."""

    def __init__(self, text: str, watch: Watch) -> None:
        super().__init__(text)
        self.watch = watch


#: The types that most cells hold, read without the checks for other types.
_PLAIN: dict[type, Callable[[_Reader, Any], Hashable]] = {
    list: lambda reader, value: tuple(map(reader.read, value)),
    tuple: lambda reader, value: tuple(map(reader.read, value)),
    dict: lambda reader, value: tuple([(reader.read(key), reader.read(each)) for key, each in value.items()]),
    types.FunctionType: _Reader._function,
    types.ModuleType: _Reader._namespace,
}


class _UnwatchableError(Exception):
    """A value that cannot be watched for changes. The message continues a sentence that names the value."""


def _array(value: np.ndarray) -> Hashable:
    if value.dtype.hasobject or value.size > _MOST_ELEMENTS:
        raise _UnwatchableError(f"an array of {value.size:,} elements: register it as a tensor with register_buffer")
    return value.shape, value.dtype.str, value.tobytes()


def _slots(kind: type) -> Iterable[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else (name for name in slots if name not in _PASSED)


def _is_python(kind: type) -> bool:
    """Return whether a class and all its bases are written in Python, so that instances hold only attributes."""
    roots = [base for base in kind.__mro__[:-1] if base.__bases__ == (object,)]
    return kind is types.SimpleNamespace or all("__dict__" in vars(b) or "__slots__" in vars(b) for b in roots)


def random_source(value: object) -> bool:
    """Return whether an object is a generator of random numbers."""
    return type(value).__module__ in ("random", "numpy.random", "numpy.random._generator", "numpy.random.mtrand") or (
        isinstance(value, torch.Generator)
    )
