"""Reports of a run's scores on some data. Every task uses this form, for tables, for JSON and for the list of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Value:
    """One value of a report.

    name: its key in JSON. A dot puts it into a group, as in `root.fine`.
    label: its name in the table. A value without a label is in JSON only.
    shown: its text in the table, with its unit. Default: four decimals.
    interval: half the width of its 95% confidence interval.
    signature: a description of exactly how it was computed.

    NumPy and PyTorch numbers are converted to Python numbers.
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
        """The value's text in the table."""
        return self.shown or (f"{self.value:.4f}" if isinstance(self.value, float) else str(self.value))


@dataclass(frozen=True)
class Report:
    """A model's values on a text or other data. The first value with a label is the most important one.

    data: what the model was scored on. heading: the line above the table. notes: further remarks for the user.
    """

    data: str
    heading: str
    values: tuple[Value, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the heading and a row for each value that has a label."""
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
        """Return every value by its name, together with its `_interval` and `_signature` if it has them."""
        found: dict[str, Any] = {}
        for value in self.values:
            *groups, name = value.name.split(".")
            group = found
            for each in groups:
                group = group.setdefault(each, {})
            group[name] = value.value
            if value.interval is not None or (value.signature and value.label):
                group[f"{name}_interval"] = value.interval
            if value.signature:
                group[f"{name}_signature"] = value.signature
        return found

    @property
    def headline(self) -> str:
        """The first value that has a label, as its label and text."""
        first = next((value for value in self.values if value.label), None)
        return "" if first is None else f"{first.label} {first.text}"
