"""The display of training: a live line on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.rule import Rule
from rich.text import Text

PLAIN_EVERY_SECONDS = 10.0


def clock(seconds: float) -> str:
    """Return a duration as text: 45s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class ProgressLine:
    """A context manager for the line of a run: call `update` at every step, and `show` for text that stays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Progress | None = None
        self._said = time.monotonic()

    def __enter__(self) -> ProgressLine:
        if self.console.is_terminal:
            columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
            self._live = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self._live.start()
            self._task = self._live.add_task("", total=1.0)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, fraction: float, line: str) -> None:
        """Show that `fraction` of the run is done, with the status `line`."""
        if self._live is not None:
            self._live.update(self._task, completed=fraction, description=line)
        elif time.monotonic() - self._said > PLAIN_EVERY_SECONDS:
            self._said = time.monotonic()
            self.say(f"{fraction:4.0%} {line}")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def show(self, title: str, text: str) -> None:
        """Print a piece of text under a title."""
        self.console.print(Rule(Text(title), align="left", style="dim"))
        self.console.print(Text(text), soft_wrap=True)
        self.console.print(Rule(style="dim"))
