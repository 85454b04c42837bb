"""What a run was found to be worth on some data: one form for every task, as a table, as JSON, as a row of `runs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Value:
    """One value of a report.

    name: its key in JSON; a dot puts it into a group, `root.fine`.
    label: what it is called in the table; if there is none, it stands in JSON alone.
    shown: how the table shows it, with its unit; four decimals where nothing is given.
    interval: half the width of its 95% confidence interval. signature: how exactly it was computed.
    A number of NumPy or PyTorch becomes one of Python.
    """

    name: str
    value: Any
    label: str = ""
    shown: str = ""
    interval: float | None = None
    signature: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "interval"):
            given = getattr(self, name)
            if hasattr(given, "item"):
                object.__setattr__(self, name, given.item())

    @property
    def text(self) -> str:
        """The value as the table shows it."""
        return self.shown or (f"{self.value:.4f}" if isinstance(self.value, float) else str(self.value))


@dataclass(frozen=True)
class Report:
    """Values that a model earned on a text or other data, the most telling of those with a label first.

    data: what it was scored on. heading: the line above the table. notes: what the user should know beside it.
    """

    data: str
    heading: str
    values: tuple[Value, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The heading and a row for each value that has a label."""
        rows = [value for value in self.values if value.label]
        width = max((len(value.label) for value in rows), default=0) + 2
        lines = [self.heading]
        for value in rows:
            lines.append(f"{value.label:{width}}{value.text}")
            if value.signature:
                lines.append(" " * width + value.signature)
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def json(self) -> dict[str, Any]:
        """Every value under its name, with `_interval` and `_signature` beside it where it has them."""
        found: dict[str, Any] = {}
        for value in self.values:
            *groups, name = value.name.split(".")
            group = found
            for each in groups:
                group = group.setdefault(each, {})
            group[name] = value.value
            if value.signature:
                if value.interval is not None or value.label:
                    group[f"{name}_interval"] = value.interval
                group[f"{name}_signature"] = value.signature
        return found

    @property
    def headline(self) -> str:
        """The first value that has a label, in one short phrase."""
        first = next((value for value in self.values if value.label), None)
        return "" if first is None else f"{first.label} {first.text}"
