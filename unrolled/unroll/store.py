"""What planning made, kept in the cache beside the libraries, for processes to come.

A file holds a plan as data, in one of `unrolled.unroll.forms`, after a digest of its name and content.
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
    """What is kept of a plan; `key` names its file, None if it is kept for this process alone."""

    schedule: Schedule
    key: str | None
    inference: Forward | None = None
    training: dict[tuple[bool, ...], Training] = field(default_factory=dict)

    def add(self, *, inference: Forward | None = None, training: Mapping[tuple[bool, ...], Training] = {}) -> None:
        """Take in what was made now, in the place of what was kept before, and keep it."""
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
    """What was saved under `key`, of such a form; None if there is nothing, or nothing whole and one's own."""
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
        return None  # it is made again


def save(key: str | None, value: object) -> None:
    """Keep `value` under `key`, in one step; where it or the cache cannot be written, it is made again next time."""
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
