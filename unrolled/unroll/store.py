"""Stores plans in the cache, next to the libraries, for later processes.

A file contains a digest of its name and content, followed by a plan as data, in one of `unrolled.unroll.forms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unrolled.cache import open_cache
from unrolled.errors import CompilerError
from unrolled.unroll import forms
from unrolled.unroll.graph import DamagedError
from unrolled.unroll.native import stated_digest
from unrolled.unroll.passes import Forward, Training
from unrolled.unroll.schedule import Schedule


@dataclass
class Record:
    """A stored plan. `key` names its file; it is None for a plan that is kept only in this process."""

    schedule: Schedule
    key: str | None
    inference: Forward | None = None
    training: dict[tuple[bool, ...], Training] = field(default_factory=dict)

    def add(self, *, inference: Forward | None = None, training: Mapping[tuple[bool, ...], Training] = {}) -> None:
        """Add new programs, replacing earlier ones of the same kind, and save the record if it has changed."""
        new = inference is not None and inference is not self.inference
        self.inference = inference or self.inference
        new |= any(self.training.get(wanted) is not one for wanted, one in training.items())
        self.training |= training
        if new:
            save(self.key, (self.schedule, self.inference, self.training))

    @classmethod
    def find(cls, key: str | None) -> Record | None:
        found = load(key)
        return None if found is None else cls(found[0], key, *found[1:])


def load(key: str | None, form: forms.Form = forms.record) -> Any:
    """Return the value saved under `key` in the given form, or None if it is missing, damaged or not trusted."""
    if key is None:
        return None
    try:
        with open_cache() as folder:
            content = None if folder is None else folder.read(f"{key}.plan")
        stated, _, content = (content or b"").partition(b"\n")
        if stated != stated_digest(key, content):
            return None
        return forms.read(form, content)
    except (DamagedError, OSError, CompilerError):
        return None  # the plan is made again


def save(key: str | None, value: object) -> None:
    """Save `value` under `key` atomically. If that fails, nothing is saved, and the next process makes it again."""
    if key is None:
        return
    try:
        content = forms.write(value)
        with open_cache(make=True) as folder:
            assert folder is not None
            folder.write(f"{key}.plan", stated_digest(key, content) + b"\n" + content)
            folder.added(len(content))
    except (DamagedError, OSError, CompilerError):
        return
