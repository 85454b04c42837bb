"""The command `unrolled runs DIR`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from unrolled.cli.flags import as_flags
from unrolled.cli.parsing import parse
from unrolled.errors import RunError
from unrolled.tasks import info_of
from unrolled.tasks.reports import reports
from unrolled.training import Checkpoints, Run
from unrolled.training.checkpoint import UNREADABLE
from unrolled.training.journal import best_validation
from unrolled.training.progress import clock
from unrolled.training.run import one_line

Column = Literal[
    "name", "task", "cell", "units", "steps", "epochs", "seconds", "loss", "best_step", "report", "changed", "state"
]


@dataclass(frozen=True)
class Arguments:
    """Show a table of the runs below a folder."""

    folder: Annotated[Path, Positional, arg(metavar="DIR")] = Path("runs")
    """Folder to search, at any depth."""
    sort: Column = "name"
    """Column to sort by; runs without a value in it come last."""
    reverse: bool = False
    """Put the largest value first."""
    json: bool = False
    """Print one JSON object per run."""


@dataclass(frozen=True)
class Row:
    """A run's row in the table, as far as the run's files contain it."""

    name: str
    task: str = ""
    cell: str = ""
    units: str = ""
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    loss: float | None = None
    """The lowest validation loss, in nats."""
    best_step: int | None = None
    report: str = ""
    """The headline of the last `unrolled eval`."""
    changed: float = 0.0
    state: str = ""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    if not arguments.folder.is_dir():
        raise RunError(f"{arguments.folder}: no such folder")
    rows = [_row(path, arguments.folder, error) for path, error in _find(arguments.folder)]
    there = [row for row in rows if getattr(row, arguments.sort) not in (None, "")]
    lacking = [row for row in rows if getattr(row, arguments.sort) in (None, "")]
    there.sort(key=lambda row: getattr(row, arguments.sort), reverse=arguments.reverse)
    if arguments.json:
        for row in (*there, *lacking):
            print(json.dumps(asdict(row), ensure_ascii=False).encode("utf-8", "backslashreplace").decode())
        return 0
    if not rows:
        print(f"no runs in {arguments.folder}")
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for field in fields(Row):
        numbers = field.name in ("steps", "epochs", "seconds", "loss", "best_step")
        table.add_column(field.name.replace("_", " "), justify="right" if numbers else "left", no_wrap=True)
    for row in (*there, *lacking):
        table.add_row(*(Text(_printable(cell)) for cell in _shown(row)))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=500)  # a file has no width to fit
    console.print(table)
    return 0


def _printable(cell: str) -> str:
    """Replace characters that break lines or control the terminal, because runs may come from other people."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in cell)


def _find(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Yield the run directories below `folder`, itself included, and the folders that cannot be listed, with why.

    Nothing inside a run is searched.
    """
    problems: list[OSError] = []
    for path, folders, files in os.walk(folder, onerror=problems.append):
        folders.sort()
        if "config.json" in (*files, *folders):
            folders.clear()
            yield Path(path), None
        yield from _unlisted(problems)
    yield from _unlisted(problems)


def _unlisted(problems: list[OSError]) -> Iterator[tuple[Path, OSError]]:
    while problems:
        error = problems.pop()
        if not isinstance(error, FileNotFoundError):  # removed since its name was read
            yield Path(error.filename), error


def _row(path: Path, folder: Path, error: OSError | None = None) -> Row:
    """Return a run's row. If the run cannot be read, the row says why, and the other rows are still shown."""
    name = str(path.relative_to(folder)) if path != folder else path.name or str(path)
    try:
        if error is not None:
            raise error
        row = _read(path, name)
        _shown(row)  # raises an error for a time or a number that is out of bounds
        return row
    except (RunError, *UNREADABLE) as problem:
        said = as_flags(problem) if isinstance(problem, RunError) else f"cannot be read ({one_line(problem)})"
        return Row(name, changed=_changed(path), state=said.removeprefix(f"{path}").lstrip(": /"))


def _changed(path: Path) -> float:
    """Return when a file of the run was last written; 0 if that is unknown."""
    times = [0.0]
    with suppress(OSError):
        for child in path.iterdir():
            with suppress(OSError):  # a process that trains or cleans up has just removed it
                times.append(child.lstat().st_mtime)
    return max(times)


def _read(path: Path, name: str) -> Row:
    run, _ = Run.read(path)
    cell, units = _model(run.config.get("model"))
    records = run.metrics()
    last = records[-1] if records else {}
    scored = [record for record in records if math.isfinite(record.get("validation_loss", math.nan))]
    best = best_validation(scored, _validated(run)) if scored else {}
    return Row(
        name=name,
        task=run.task,
        cell=cell,
        units=units,
        steps=last.get("step"),
        epochs=last.get("epoch"),
        seconds=last.get("seconds"),
        loss=best.get("validation_loss"),
        best_step=best.get("step"),
        report=next((record["headline"] for record in reports(run)[-1:]), ""),
        changed=_changed(path),
        state=_state(run),
    )


def _validated(run: Run) -> str:
    """Return what the run's task validates; "loss" if the task is not installed."""
    try:
        return info_of(run).validated
    except RunError:
        return "loss"


def _model(model: Any) -> tuple[str, str]:
    """Return the cell and the widths of the layers. An encoder-decoder has one number, a language model has a list.

    Settings that somebody has edited may be invalid here; the commands that use the run refuse them.
    """
    if not isinstance(model, dict):
        return "", ""
    sizes, layers = model.get("hidden_size"), model.get("num_layers", 1)
    sizes = sizes if isinstance(sizes, list) else [sizes] if sizes else []
    if len(sizes) == 1:
        sizes = sizes * (layers if isinstance(layers, int) and 0 < layers <= 100 else 2)
    # A captioner whose cell is that of its decoder's paper is named by the decoder.
    return str(model.get("cell") or model.get("model") or ""), "+".join(map(str, sizes))


def _state(run: Run) -> str:
    if run.locked_by_another():
        return "training"
    if not any((run.path / "checkpoints").glob("step-*")):
        return "no checkpoint yet"
    last = Checkpoints(run).find("last")
    return f"at step {last.step:,}" if last else ""


def _shown(row: Row) -> list[str]:
    return [
        *(row.name, row.task, row.cell, row.units),
        "" if row.steps is None else f"{row.steps:,}",
        "" if row.epochs is None else f"{row.epochs:.2f}",
        "" if row.seconds is None else clock(row.seconds),
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.best_step is None else f"{row.best_step:,}",
        row.report,
        datetime.fromtimestamp(row.changed).strftime("%Y-%m-%d %H:%M") if row.changed else "",
        row.state,
    ]
