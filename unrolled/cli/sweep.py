"""The command `unrolled sweep DIR`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from unrolled.cli.flags import as_flags
from unrolled.cli.parsing import parse
from unrolled.cli.train import with_sections
from unrolled.errors import ConfigurationError, RunError, UnrolledError
from unrolled.experiments.exploration import LINES, TEXTS
from unrolled.settings import require
from unrolled.tasks import find_info, find_task
from unrolled.tasks.info import sections
from unrolled.tasks.sweep import Search, Sweep, configure, settings_by_name
from unrolled.training.links import refuse_links
from unrolled.training.run import one_line, write_atomically

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Arguments:
    """Train many models and report the best settings.

    Every trial is a run in DIR. To share the work, start the same command several times, on one machine or on several
    that share DIR. Optuna chooses the settings from the validation losses so far.
    """

    folder: Annotated[Path, Positional, arg(metavar="DIR")]
    """Directory of the study; an existing study is continued."""
    cells: Annotated[tuple[str, ...], arg(metavar="NAME...")] = ()
    """Cells to compare; the trials are divided equally among them (lstm and gru, or the task's own cell)."""
    search: Annotated[tuple[str, ...], arg(metavar="NAME=VALUES...")] = ("learning_rate=0.0005:0.03:log",)
    """Settings to search: NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C."""
    trials: int = 20
    """Number of trials in the study, over all cells and processes."""
    task: str = "text"
    """Task, by its name in `unrolled train`; text: the same as lm.
    arithmetic, xml: lm on synthetic text, after Jozefowicz et al. 2015."""
    storage: Annotated[str | None, arg(metavar="URL")] = None
    """Database of the study: postgresql://..., mysql://..., or a file on a shared disk (default: DIR/study.db)."""


def arguments(name: str, words: Sequence[str]) -> Any:
    """Return the flags of `sweep`, with the settings of the task that the words name."""
    return with_sections(find_info(_named_task(words)), Arguments, inspect.cleandoc(Arguments.__doc__ or ""))


def main(words: Sequence[str], prog: str) -> int:
    given = parse(arguments("sweep", words), words, prog)
    task = find_task(_named_task(words))
    from rich.console import Console

    require(given.trials >= 1, "trials", "at least 1", given.trials)
    kinds = settings_by_name(task.Settings)
    if not task.resumable:
        raise ConfigurationError(f"--task {task.name}: it has its own training loop, which a sweep cannot run")
    if len(set(given.cells)) < len(given.cells):
        raise ConfigurationError("--cells: a cell is given twice")
    if any(word.split("=")[0] == "--cell" for word in words):
        raise ConfigurationError("--cell: a sweep compares cells; give them with --cells")
    searches = [Search.parse(text, kinds) for text in given.search]
    folder = given.folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".study").exists():
        raise RunError(f"{folder}: is not empty, and not a study; choose another directory")
    # The runs in it are checked when they are opened. Optuna locks its journal with a link next to it.
    journal = Path(given.storage).name + ".lock" if given.storage else None
    refuse_links(folder, to_write=True, deep=False, but=journal)
    base = task.Settings(**{name: getattr(given, name) for name in sections(task.Settings)})
    cells = (given.cells or _default_cells(base)) if "cell" in kinds else ()
    synthetic = given.task in TEXTS
    if synthetic:
        if base.text.data:
            raise ConfigurationError(f"--task {given.task} makes its own text; leave out --data")
        file = folder / f"{given.task}.txt"
        base = dataclasses.replace(base, text=dataclasses.replace(base.text, data=(str(file),)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".study").touch()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to ({one_line(error)})") from error
    if synthetic and not file.exists():
        write_atomically(file, TEXTS[given.task](LINES, 1))
    sweep = Sweep(folder, given.storage, task, cells, searches, base)
    sweep.plan(given.trials)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    finished = sweep.run(lambda said: console.print(as_flags(said) if isinstance(said, UnrolledError) else said))
    _show(sweep, console)
    if not finished:
        console.print(f"interrupted; run the same command again to continue {folder}")
    return 0 if finished else 130


def _default_cells(base: Any) -> tuple[str, ...]:
    """Return the cells to compare if none are given: the usual two, or the task's own if it does not accept them."""
    usual = ("lstm", "gru")
    try:
        for cell in usual:
            configure(base, {"cell": cell})
    except ConfigurationError:
        return (base.model.cell,)
    return usual


def _named_task(words: Sequence[str]) -> str:
    """Return the task that the command line names."""
    given = [*(pair[1] for pair in pairwise(words) if pair[0] == "--task")]
    given += [word.partition("=")[2] for word in words if word.startswith("--task=")]
    name = given[-1] if given else "text"
    return "lm" if name == "text" or name in TEXTS else name


def _show(sweep: Sweep, console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [search.name for search in sweep.searches]
    for name in ("cell", "trials", "best loss", *names):
        table.add_column(name.replace("_", " "), justify="left" if name == "cell" else "right")
    best = sorted(sweep.best(), key=lambda row: float("inf") if row[2] is None else row[2].value)
    for cell, count, trial in best:
        found = [] if trial is None else [trial.params[name] for name in names]
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in found]
        table.add_row(cell, str(count), "-" if trial is None else f"{trial.value:.4f}", *shown)
    console.print(table)
