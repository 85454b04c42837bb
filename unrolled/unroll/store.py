"""What planning made, kept in the cache beside the libraries, for processes to come.

A file holds pickled schedules and programs behind their digest; nothing but this room's own classes is read from it.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unrolled.errors import CompilerError
from unrolled.unroll.native import cache_directory, check_owner, digest
from unrolled.unroll.passes import Forward, Training
from unrolled.unroll.schedule import Schedule

#: What reading a damaged file, or one of another version, may raise.
_DAMAGED = (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, ImportError, SyntaxError)
_OTHERS = {("torch", "float32"), ("torch", "float64"), ("torch", "Size")}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module.startswith("unrolled.unroll.") and "." not in name) or (module, name) in _OTHERS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a plan")


@dataclass
class Record:
    """What is kept of a plan; `key` names its file, None where it is kept for this process alone."""

    schedule: Schedule
    key: str | None
    inference: Forward | None = None
    training: dict[tuple[bool, ...], Training] = field(default_factory=dict)

    def add(self, *, inference: Forward | None = None, training: Mapping[tuple[bool, ...], Training] = {}) -> None:
        """Take in what was made now, and keep it."""
        new = inference is not None and self.inference is None
        self.inference = self.inference or inference
        new |= any(wanted not in self.training for wanted in training)
        self.training |= training
        if new:
            save(self.key, (self.schedule, self.inference, self.training))

    @classmethod
    def find(cls, key: str | None) -> Record | None:
        found = load(key)
        if not isinstance(found, tuple) or not isinstance(found[0], Schedule):
            return None
        return cls(found[0], key, *found[1:])


def load(key: str | None) -> Any:
    """What was saved under `key`; None where there is nothing, or nothing whole."""
    if key is None:
        return None
    try:
        check_owner(cache_directory())
        stated, _, content = (cache_directory() / f"{key}.plan").read_bytes().partition(b"\n")
        if digest(content).encode() != stated:
            return None
        return _Unpickler(io.BytesIO(content)).load()
    except (*_DAMAGED, OSError, CompilerError):
        return None  # it is made anew


def save(key: str | None, value: object) -> None:
    """Keep `value` under `key`, in one step; where the cache cannot be written, it is made anew next time."""
    if key is None:
        return
    try:
        content = pickle.dumps(value)
        with tempfile.NamedTemporaryFile(dir=cache_directory(), prefix="saving-", delete=False) as file:
            try:
                file.write(digest(content).encode() + b"\n" + content)
                file.close()
                os.replace(file.name, cache_directory() / f"{key}.plan")
            except OSError:
                Path(file.name).unlink(missing_ok=True)
    except OSError:
        return
