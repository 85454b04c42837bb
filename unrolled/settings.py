"""Settings: conversion of dataclasses to JSON and back, and checks of their values."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from unrolled.errors import ConfigurationError, RunError


def require(condition: bool, name: str, expected: str, value: object) -> None:
    """Raise ConfigurationError, "`name` must be expected, got value", if `condition` is false."""
    if not condition:
        raise ConfigurationError(f"`{name}` must be {expected}, got {value}", setting=name)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigurationError if the value of the setting `name` is not one of `choices`."""
    if value not in choices:
        known = ", ".join(choices)
        raise ConfigurationError(f"`{name}`: unknown value {value!r}, choose from {known}", setting=name)


def parse_duration(text: str) -> float:
    """Return the seconds in "90", "90s", "5m" or "1.5h"."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)", text.strip().lower())
    if not match or float(match[1]) == 0:
        said = f"`max_time`: {text!r} is not a length of time; write 90s, 5m or 1.5h"
        raise ConfigurationError(said, setting="max_time")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def to_json(config: Any) -> dict[str, Any]:
    """Return a configuration in JSON's types."""
    return dataclasses.asdict(config)


def from_json(kind: type, stored: Any, where: str) -> Any:
    """Return a configuration of class `kind` from the result of `to_json`.

    Raise RunError, naming `where`, if `stored` is something else.
    """
    if not isinstance(stored, dict):
        raise RunError(f"{where}: expected settings by name, got {type(stored).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(stored) - set(hints))
    if unknown:
        raise RunError(f"{where}: unknown settings {', '.join(unknown)}; written by another version of unrolled?")
    values = {}
    for name, value in stored.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = from_json(typing.cast(type, hint), value, where)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
            if not _fits(values[name], hint):
                raise RunError(f"{where}: {name} cannot be {value!r}", setting=name)
    try:
        return kind(**values)
    except ConfigurationError as error:
        raise RunError(f"{where}: {error}", setting=error.settings) from error


def from_options(kind: type, options: Mapping[str, Any]) -> Any:
    """Return a configuration of class `kind` from keywords. A path may be a `Path`; a single value may be given where
    several are allowed.

    Raise ConfigurationError if a value has another type or is out of its range.
    """
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in options.items():
        several = typing.get_origin(hints[name]) is tuple
        if several and (isinstance(value, str | os.PathLike) or not isinstance(value, Iterable)):
            value = (value,)
        made = tuple(map(_plain_path, value)) if several else _plain_path(value)
        if not _fits(made, hints[name]):
            raise ConfigurationError(f"`{name}` cannot be {value!r}", setting=name)
        values[name] = made
    return kind(**values)


def _plain_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(part, inner[0]) for part in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def plain(value: Any) -> Any:
    """Return a setting's value in JSON's types."""
    return list(value) if isinstance(value, tuple) else value
