"""Watches one run of a step: which code runs, and what it does in addition to computing its new state.

A compiled step does not run its Python code again, so that side effects would happen only while it is traced. A step
that draws random numbers, prints, reads a clock or writes to a global is stopped before it does so, and runs eagerly.
"""

from __future__ import annotations

import builtins
import dis
import functools
import gc
import linecache
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unrolled.errors import UntraceableError
from unrolled.unroll.content import Content
from unrolled.unroll.watch import NO_BUFFER, TRUSTED, Watch, has_code_of_its_own, random_source

#: Modules of the standard library without side effects.
_PURE = frozenset(
    {"abc", "ast", "bisect", "cmath", "collections", "contextlib", "copy", "copyreg", "dataclasses", "decimal", "enum"}
    | {"fractions", "functools", "heapq", "importlib", "inspect", "itertools", "keyword", "math", "numbers", "operator"}
    | {"re", "reprlib", "statistics", "string", "types", "typing", "warnings", "weakref"}
)
#: Modules whose calls, and all calls below them, are not part of the step.
_IGNORED = frozenset({"importlib", "warnings", "_frozen_importlib", "zipimport"})
#: Modules whose C functions have no side effects.
_PURE_C = frozenset({"builtins", "_functools", "_operator", "_collections", "_weakref", "_abc"})
_LIBRARIES = TRUSTED | {"numpy", "functorch", "sympy", "optree", "typing_extensions"}
#: Modules that look attributes up by names that appear in no code.
_DYNAMIC_MODULES = frozenset({"copy", "dataclasses", "inspect", "operator", "json"})
_DYNAMIC_NAMES = frozenset(
    {"__dict__", "__getattribute__", "__getstate__", "__reduce_ex__", "attrgetter", "methodcaller"}
)
_DYNAMIC_CALLS = frozenset(map(id, (builtins.getattr, builtins.hasattr, builtins.vars, builtins.dir)))
_FORBIDDEN_CALLS = frozenset(
    id(getattr(builtins, name))
    for name in ("print", "input", "open", "exec", "eval", "globals", "locals", "id", "setattr", "delattr")
)
#: Functions of PyTorch that read or change state other than the values of tensors.
_AMBIENT = frozenset(
    {"is_grad_enabled", "is_inference_mode_enabled", "is_autocast_enabled", "is_autocast_cpu_enabled"}
    | {"get_num_threads", "get_rng_state", "set_rng_state", "initial_seed", "seed", "manual_seed"}
    | {"get_default_dtype", "data_ptr", "register_hook", "retain_grad"}
)
#: With these functions and types, a step may treat a number differently from a tensor.
_TYPES = frozenset({"type", "isinstance", "issubclass", "callable", "float", "int"})
#: Values of global and enclosing variables that a trial run would change, or that hide what they read.
_UNTOUCHABLE: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (random_source, "a generator of random numbers: draw them outside, and pass them with the input"),
    (lambda value: isinstance(value, Tensor), NO_BUFFER),
    (lambda value: isinstance(value, functools._lru_cache_wrapper), "a function that caches its results"),
    (lambda value: isinstance(value, Iterator), "an iterator, which advances at every step"),
)
_PLAIN_OWNERS = (list, dict, set, frozenset, tuple, str, bytes, int, float, complex, range, slice, type, Tensor)
_CHANGING = frozenset(
    {"append", "extend", "insert", "add", "update", "pop", "popitem", "popleft", "remove", "discard", "clear"}
    | {"setdefault", "sort", "reverse"}
)


class Observer:
    """Watches a thread while it runs a step: `with observer: ...`.

    untouchable: the names of attributes that a trial must not use, with a description of each.
    """

    def __init__(self, untouchable: dict[str, str]) -> None:
        self.untouchable = untouchable
        self.names: set[str] = set()
        self._own_names: set[str] = set()
        self.dynamic = False
        self.asks_type = False
        self.refusal: UntraceableError | None = None
        self._seen: dict[int, tuple[types.CodeType, bool]] = {}
        self._spaces: dict[int, tuple[dict, set[str]]] = {}
        self._collect_all = True
        self._may_draw = False
        self._ignored: types.FrameType | None = None

    def __enter__(self) -> Observer:
        self._collects = gc.isenabled()
        gc.disable()  # finalizers that run during garbage collection are not part of the step
        self._before = sys.getprofile()
        self._drawn = np.random.get_state()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        if self._collects:
            gc.enable()
        # Calls of NumPy's compiled functions are not reported to the profiler.
        if self._may_draw and not all(map(np.array_equal, self._drawn, np.random.get_state())):
            np.random.set_state(self._drawn)
            self.refusal = self.refusal or UntraceableError("it draws random numbers from NumPy")

    def settled(self) -> None:
        """Raise the refusal again if the step caught it. Stop collecting names from PyTorch's own code."""
        self._collect_all = False
        if self.refusal is not None:
            raise self.refusal

    def watch(self, modules: Iterable[nn.Module]) -> Watch:
        """Return a watch on all that the step has read."""
        names = None if self.dynamic else frozenset(self.names)
        spaces = tuple((space, tuple(sorted(wanted))) for space, wanted in self._spaces.values())
        return Watch(names, spaces, list(modules), frozenset(self._own_names))

    def _event(self, frame: types.FrameType, event: str, argument: Any) -> None:
        if self._ignored is not None:  # ignore all calls until this frame returns
            if event == "return" and frame is self._ignored:
                self._ignored = None
        elif event == "call":
            if id(frame.f_code) not in self._seen:
                self._enter(frame)
        elif event == "c_call":
            known = self._seen.get(id(frame.f_code))
            if known is not None and known[1]:
                self._call(frame, argument)

    def _enter(self, frame: types.FrameType) -> None:
        code = frame.f_code
        module = frame.f_globals.get("__name__") or ""
        root = module.partition(".")[0]
        generated = code.co_filename.startswith("<") and (root in ("", "torch") or root.startswith("namedtuple_"))
        known = root in _LIBRARIES or generated
        own = not known and (root not in sys.stdlib_module_names or root == "__main__")
        caller = frame.f_back
        while caller is not None and caller.f_globals.get("__name__", "").partition(".")[0] in _PURE:
            caller = caller.f_back
        called_by_own = caller is not None and self._seen.get(id(caller.f_code), (None, False))[1]
        if code.co_name == "<module>" or root in _IGNORED or not (own or known or called_by_own or root in _PURE):
            self._ignored = frame  # an import, a warning, or a handler of PyTorch's log: it may run any code
            return
        self._seen[id(code)] = code, own
        if own:
            self._enter_own(frame, code)
        elif not known:
            if called_by_own:
                assert caller is not None
                if root not in _PURE:
                    self._refuse(f"calls {module}.{code.co_name}", caller)
                self.dynamic |= root in _DYNAMIC_MODULES
            self.names.update(code.co_names)
        elif self._collect_all:
            self.names.update(code.co_names)

    def _enter_own(self, frame: types.FrameType, code: types.CodeType) -> None:
        self._own_names.update(code.co_names)
        self.names.update(code.co_names)
        self.names.update(code.co_freevars)
        self.dynamic |= not _DYNAMIC_NAMES.isdisjoint(code.co_names)
        space = frame.f_globals
        _, wanted = self._spaces.setdefault(id(space), (space, set()))
        steps = list(dis.get_instructions(code))
        read = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        wanted |= read
        self.asks_type |= not _TYPES.isdisjoint(read)
        for name in (*read, *code.co_freevars):
            value = space[name] if name in space else frame.f_locals.get(name)
            found = next((what for holds, what in _UNTOUCHABLE if holds(value)), None)
            if found is not None:
                self._refuse(f"uses `{name}`, {found}", frame, _line_of(steps, name))
        if "sys" in read and "modules" in code.co_names:
            self._refuse("looks modules up in sys.modules", frame)
        self._may_draw |= "random" in code.co_names
        for name in code.co_names:
            if name in self.untouchable:
                self._refuse(f"uses `{name}`, {self.untouchable[name]}", frame, _line_of(steps, name))
        for what, line in _writes(code, steps):
            self._refuse(what, frame, line)

    def _call(self, frame: types.FrameType, called: Any) -> None:
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", str(called))
        module = getattr(called, "__module__", None)
        if id(called) in _DYNAMIC_CALLS:
            self.dynamic = True
        root = (module or "").partition(".")[0]
        if id(called) in _FORBIDDEN_CALLS:
            self._refuse(f"calls {name}()", frame)
        elif random_source(owner):
            self._refuse("draws random numbers", frame)
        elif name in _AMBIENT and (root == "torch" or isinstance(owner, Tensor)):
            self._refuse(f"calls {name}()", frame)
        elif isinstance(owner, types.ModuleType) or (owner is None and root):
            if root not in _PURE_C | _PURE | _LIBRARIES:
                self._refuse(f"calls {module}.{name}()", frame)
        elif owner is not None and not isinstance(owner, _PLAIN_OWNERS):
            root = type(owner).__module__.partition(".")[0]
            if root not in _LIBRARIES and root not in _PURE and root != "builtins":
                self._refuse(f"calls {type(owner).__qualname__}.{name}()", frame)
        elif name in _CHANGING:
            target = _called(frame)
            if target is not None and outlives(target, frame.f_code):
                self._refuse(f"changes `{target.rpartition('.')[0]}`", frame)

    def _refuse(self, what: str, frame: types.FrameType, line: int | None = None) -> None:
        self.refusal = UntraceableError(f"it {what} at {place(frame.f_code.co_filename, line or frame.f_lineno)}")
        raise self.refusal


class Seen:
    """What a step reads, as far as it is known. It is collected while the step is tried and while it is traced."""

    watch: Watch | None = None
    asks_type = False

    def add(self, observer: Observer, modules: list[nn.Module], tried: list[nn.Module]) -> None:
        """Record what a run over the copy `tried` of `modules` read; UntraceableError if the run changed any of it."""
        watch = observer.watch(modules)
        _require_unchanged(watch.look(modules), watch.look(tried))
        self.watch, self.asks_type = watch, observer.asks_type

    def unchanged(self, modules: list[nn.Module], work: Callable[[], None]) -> Watch:
        """Call `work`, which runs the step, and return the watch; UntraceableError if `work` changes what it sees."""
        assert self.watch is not None
        before = self.watch.look(modules)
        work()
        _require_unchanged(before, self.watch.look(modules))
        return self.watch


def _require_unchanged(before: Content, after: Content) -> None:
    if before != after:
        raise UntraceableError(f"it changes {before.first_difference(after)} at every step")


def seen_by(modules: list[nn.Module]) -> Seen | None:
    """Return an empty `Seen` to collect what a cell reads, or None for cells of PyTorch and of this package.

    The latter read only attributes.
    """
    return Seen() if has_code_of_its_own(modules) else None


def place(path: str, line: int) -> str:
    """Return `FILE:LINE` and the source at that line."""
    text = linecache.getline(path, line).strip()
    return f"{Path(path).name}:{line}" + (f" (`{text if len(text) < 90 else text[:87] + '...'}`)" if text else "")


def _writes(code: types.CodeType, steps: list[dis.Instruction]) -> Iterator[tuple[str, int]]:
    """Yield each write to an object that outlives the call, and each import of an unwatched module, with its line.

    Writes through local variables that are not arguments are skipped. If such a variable refers to an object that
    outlives the call, the change to that object is found after the run.
    """
    for step in steps:
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            yield f"writes the global `{step.argval}`", _line(step) or code.co_firstlineno
        elif step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars:
            yield f"writes `{step.argval}`, a variable of the enclosing function", _line(step) or code.co_firstlineno
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            target = _text(code.co_filename, step)
            if target is not None and outlives(target, code):
                yield f"writes `{target}`", _line(step) or code.co_firstlineno
        elif step.opname in ("STORE_ATTR", "DELETE_ATTR") and code.co_name not in ("__init__", "__post_init__"):
            target = _text(code.co_filename, step) or f"an attribute `{step.argval}`"
            if outlives(target, code, ()):
                yield f"writes `{target}`", _line(step) or code.co_firstlineno
        elif step.opname == "IMPORT_NAME":
            root = step.argval.partition(".")[0]
            if root and root not in _LIBRARIES and root not in sys.stdlib_module_names:
                yield f"imports `{step.argval}`, whose names are not watched,", _line(step) or 0


def outlives(target: str, code: types.CodeType, copied: tuple[str, ...] | None = None) -> bool:
    """Return whether an expression in a function starts at an object that existed before the call.

    copied: names of objects that are copies for the trial; by default, the function's first argument.
    """
    root = re.split(r"\W", target, maxsplit=1)[0]
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    safe = arguments[:1] if copied is None else copied
    return root not in safe and (root in arguments or root not in code.co_varnames)


def _called(frame: types.FrameType) -> str | None:
    """Return the source of the call that a frame is executing, without its arguments."""
    for step in dis.get_instructions(frame.f_code):
        if step.offset == frame.f_lasti:
            text = _text(frame.f_code.co_filename, step)
            return None if text is None else text.partition("(")[0]
    return None


def _line_of(steps: list[dis.Instruction], name: str) -> int | None:
    return next((_line(step) for step in steps if step.argval == name), None)


def _text(path: str, step: dis.Instruction) -> str | None:
    """Return the source of an instruction if it is within one line, else None."""
    at = step.positions
    if at is None or at.lineno is None or at.lineno != at.end_lineno or at.col_offset is None:
        return None
    # Columns are counted in bytes.
    return (
        linecache.getline(path, at.lineno).encode()[at.col_offset : at.end_col_offset].decode(errors="replace") or None
    )


def _line(step: dis.Instruction) -> int | None:
    """Return the line of an instruction. `positions` is the same in every version of Python since 3.11."""
    return step.positions.lineno if step.positions else None
