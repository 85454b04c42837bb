"""The plans of cells in this process. Each call looks its plan up by what the cell's step reads."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from unrolled.errors import CompilerError, UntraceableError
from unrolled.unroll.adapt import innermost
from unrolled.unroll.content import Content, Places
from unrolled.unroll.fallback import guarded, in_new_thread
from unrolled.unroll.signature import Description, check_hooks, describe_module, planning
from unrolled.unroll.trial import can_be_buffer, same_step, with_buffers
from unrolled.unroll.watch import SeenError, Watch

T = TypeVar("T")
#: The most plans of a process, the most settings of one cell object that get a plan, and the most failures kept for one
#: structure.
MOST_PLANS, MOST_SETTINGS, _MOST_FAILURES = 256, 8, 32
_clock = itertools.count()
#: What a plan depends on in addition to the cell: dtype, device, the kind of plan, PyTorch's default dtype.
About = tuple[torch.dtype, torch.device, Hashable, torch.dtype]


@dataclass
class _Kept(Generic[T]):
    value: T
    used: int


@dataclass
class _Settings(Generic[T]):
    """The plans for cells of one structure whose steps read the same names.

    masked: the attributes that vary and are floats.
    lifted: contents without the masked attributes; for these, the cell runs with buffers in place of those attributes.
    rigid: contents for which that failed; each value of the attributes needs its own plan.
    """

    watch: Watch
    kept: dict[Content, _Kept[T]] = field(default_factory=dict)
    masked: Places = frozenset()
    lifted: set[Hashable] = field(default_factory=set)
    rigid: set[Hashable] = field(default_factory=set)


@dataclass
class _Failure:
    """A failure to make a plan. It is kept as text, because an exception keeps its whole traceback alive."""

    watch: Watch
    content: Hashable
    kind: type[UntraceableError] | type[CompilerError]
    text: str


@dataclass
class _Family(Generic[T]):
    settings: list[_Settings[T]] = field(default_factory=list)
    failures: list[_Failure] = field(default_factory=list)


#: For each cell and structure, the hashes of the settings for which a plan was made or refused. A plan that is dropped
#: and made again for the same settings counts once.
_had: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, set[int]]] = weakref.WeakKeyDictionary()


class Known(Generic[T]):
    """A cache of at most `MOST_PLANS` plans. The least recently used are dropped first."""

    def __init__(self) -> None:
        self._families: dict[Hashable, _Family[T]] = {}

    def __len__(self) -> int:
        return sum(len(each.kept) for family in self._families.values() for each in family.settings)

    def clear(self) -> None:
        self._families.clear()

    def find(self, cell: Any, about: About, make: Callable[[Any], tuple[T, Watch]]) -> tuple[T, list[Tensor], Any]:
        """Return the plan of `cell`, making it if necessary; the cell's tensors; and the cell that they belong to.

        about: what the plan depends on in addition to the cell.
        make: returns a plan and what the step reads, or raises UntraceableError or CompilerError. The error is cached
            and raised at every call.
        The returned cell is a copy of `cell` if some of its attributes have become buffers.
        """
        described = describe_module(cell)
        check_hooks(described.modules)
        key = described.structure, about
        family = self._families.get(key)
        if family is not None:
            for settings in family.settings:
                content = _content(settings.watch, described.modules)
                kept = None if content is None else settings.kept.get(content)
                if kept is not None:
                    kept.used = next(_clock)
                    return kept.value, list(described.tensors.values()), cell
                if content is not None and settings.masked and content.without(settings.masked) in settings.lifted:
                    return self.find(_lift(cell, described.modules, settings.masked, about[0]), about, make)
        with planning:
            return self._miss(key, described, cell, about, make)

    def _miss(
        self, key: Hashable, described: Description, cell: Any, about: About, make
    ) -> tuple[T, list[Tensor], Any]:
        family = self._families.setdefault(key, _Family())
        for failure in family.failures:
            if failure.watch.code_only(described.modules) == failure.content:
                raise failure.kind(failure.text)
        changed = ""
        for settings in family.settings:
            content = _content(settings.watch, described.modules)
            if content is None:
                continue
            changed = changed or next((before.first_difference(content) for before in settings.kept), "")
            if content in settings.kept:  # another thread has made the plan meanwhile
                return settings.kept[content].value, list(described.tensors.values()), cell
            found = self._lifted(settings, content, cell, described.modules, about, make)
            if found is not None:
                return found
        had = _had.setdefault(innermost(cell), {}).setdefault(key, set())
        if len(had) >= MOST_SETTINGS:
            _refuse(changed)
        try:
            value, watch = guarded(make, cell)
            content = watch.look(described.modules)
        except (UntraceableError, CompilerError) as error:
            had.add(hash(str(error)))
            self._fail(family, described.modules, error)
            raise
        had.add(hash(content))
        alike = [each for each in family.settings if each.watch.reads == watch.reads]
        if not alike:
            alike = [_Settings(watch)]
            family.settings += alike
        alike[0].kept[content] = _Kept(value, next(_clock))
        self._bound()
        return value, list(described.tensors.values()), cell

    def _lifted(self, settings: _Settings[T], content: Content, cell, modules, about, make):
        """Do what `find` does, with varying floats as buffers. None if no known content differs only in floats."""
        for before in list(settings.kept):
            varying = before.varying_floats(content)
            masked = settings.masked | varying
            if not varying or not all(can_be_buffer(modules[number], name) for number, name in masked):
                continue
            alike = content.without(masked)
            if alike in settings.rigid:
                continue
            try:
                lifted = _lift(cell, modules, masked, about[0])
                found = self.find(lifted, about, make)
                if not in_new_thread(same_step, cell, lifted, about[0], about[1]):
                    raise UntraceableError("its step treats a tensor differently from a number")
            except UntraceableError:  # it branches on the number, or needs a Python number
                settings.rigid.add(alike)
                continue
            if len(settings.lifted) >= MOST_PLANS:
                settings.lifted.clear()
            settings.lifted = {alike} if masked != settings.masked else settings.lifted | {alike}
            settings.masked = masked
            return found
        return None

    def _fail(self, family: _Family[T], modules: list[nn.Module], error: UntraceableError | CompilerError) -> None:
        watch = error.watch if isinstance(error, SeenError) else Watch(None, (), modules)
        try:
            content = watch.code_only(modules)
        except UntraceableError:
            watch, content = Watch(frozenset(), (), modules), ()
        kind = CompilerError if isinstance(error, CompilerError) else UntraceableError
        family.failures.append(_Failure(watch, content, kind, str(error)))
        del family.failures[:-_MOST_FAILURES]

    def _bound(self) -> None:
        while len(self._families) > 2 * MOST_PLANS:  # some families hold only failures
            del self._families[next(iter(self._families))]
        if len(self) <= MOST_PLANS:
            return
        ages = [
            (kept.used, content, settings)
            for family in self._families.values()
            for settings in family.settings
            for content, kept in settings.kept.items()
        ]
        ages.sort(key=lambda each: each[0])
        for _, content, settings in ages[: len(ages) - MOST_PLANS + MOST_PLANS // 8]:
            del settings.kept[content]
        for family in self._families.values():
            family.settings = [each for each in family.settings if each.kept]
        self._families = {key: each for key, each in self._families.items() if each.settings or each.failures}


def _content(watch: Watch, modules: list[nn.Module]) -> Content | None:
    """Return what a watch sees of a cell, or None if some of it cannot be watched. No plan is kept under None."""
    try:
        return watch.look(modules)
    except UntraceableError:
        return None


def _refuse(changed: str) -> NoReturn:
    raise UntraceableError(
        f"its settings have had {MOST_SETTINGS} different values, each of which needs its own plan; "
        f"{changed or 'its structure'} changed last; a buffer, or a float that is used only in arithmetic, may change "
        "freely"
    )


def _lift(cell: Any, modules: list[nn.Module], masked: Places, dtype: torch.dtype) -> Any:
    values = {at: torch.tensor(vars(modules[at[0]])[at[1]], dtype=dtype) for at in sorted(masked)}
    return with_buffers(cell, modules, values)
