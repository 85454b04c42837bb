"""The settings that a run takes from the run whose weights it starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from unrolled.tasks.info import TaskInfo


def inherited(info: type[TaskInfo], stored: Any, fates: Mapping[str, str] | None = None) -> Any:
    """Return the default settings of a new run that starts from a run with the settings `stored`.

    fates: what becomes of each setting, a mapping like `TaskInfo.inherited`, which is the default.
    """
    fates = info.inherited if fates is None else fates
    defaults = info.Settings()
    sections = {}
    for section in (each.name for each in dataclasses.fields(defaults)):
        ours, theirs = getattr(defaults, section), getattr(stored, section)
        names = [each.name for each in dataclasses.fields(ours) if _fate(fates, section, each.name) != "new"]
        sections[section] = dataclasses.replace(ours, **{name: getattr(theirs, name) for name in names})
    return info.Settings(**sections)


def contradictions(fates: Mapping[str, str], before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Return the fixed settings that differ between `before`, from `inherited`, and `after`, with both values."""
    return {
        each.name: values
        for section in (one.name for one in dataclasses.fields(before))
        for each in dataclasses.fields(getattr(before, section))
        if _fate(fates, section, each.name) == "fixed"
        for values in [tuple(getattr(getattr(part, section), each.name) for part in (before, after))]
        if values[0] != values[1]
    }


def _fate(fates: Mapping[str, str], section: str, name: str) -> str:
    return fates.get(f"{section}.{name}") or fates.get(section, "new")
