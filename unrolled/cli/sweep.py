"""`unrolled sweep DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from unrolled.cli.flags import as_flags
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, RunError, UnrolledError
from unrolled.experiments.exploration import LINES, TEXTS
from unrolled.settings import require
from unrolled.tasks.language import LanguageConfig, ModelConfig, TextConfig
from unrolled.tasks.sweep import Search, Sweep
from unrolled.training import TrainingConfig
from unrolled.training.links import refuse_links
from unrolled.training.run import one_line, write_atomically


@dataclass(frozen=True)
class Arguments:
    """Train many models and tell which settings are best.

    Every trial is a run in DIR. Start the command several times, on one machine or on several that share DIR, and they
    work at one study. Optuna chooses the settings, by the validation losses so far.
    """

    folder: Annotated[Path, Positional, arg(metavar="DIR")]
    """Directory of the study; one that exists goes on."""
    cells: tuple[str, ...] = ("lstm", "gru")
    """Cells to compare; each gets as many trials."""
    search: Annotated[tuple[str, ...], arg(metavar="NAME=VALUES...")] = ("learning_rate=0.0005:0.03:log",)
    """Settings to look for: NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C."""
    trials: int = 20
    """Trials of the study, by all processes together."""
    task: Literal["text", "arithmetic", "xml"] = "text"
    """text: that of --data; arithmetic, xml: made ones, after Jozefowicz et al. 2015."""
    storage: Annotated[str | None, arg(metavar="URL")] = None
    """Database of the study: postgresql://..., mysql://..., or a file on a shared disk (DIR/study.db)."""
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    require(arguments.trials >= 1, "trials", "at least 1", arguments.trials)
    if not arguments.cells or len(set(arguments.cells)) < len(arguments.cells):
        raise ConfigurationError("--cells: give at least one cell, and none twice")
    searches = [Search.parse(text) for text in arguments.search]
    folder = arguments.folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".study").exists():
        raise RunError(f"{folder}: is not empty, and not a study; choose another directory")
    # The runs in it are looked through when they are opened; Optuna's journal is locked by a link beside it.
    journal = Path(arguments.storage).name + ".lock" if arguments.storage else None
    refuse_links(folder, to_write=True, deep=False, but=journal)
    text = arguments.text
    if arguments.task != "text":
        if text.data:
            raise ConfigurationError(f"--task {arguments.task} makes its own text; leave out --data")
        text = dataclasses.replace(text, data=(str(folder / f"{arguments.task}.txt"),))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".study").touch()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to ({one_line(error)})") from error
    if arguments.task != "text" and not Path(text.data[0]).exists():
        write_atomically(Path(text.data[0]), TEXTS[arguments.task](LINES, 1))
    base = LanguageConfig(text, arguments.model, arguments.training)
    sweep = Sweep(folder, arguments.storage, arguments.cells, searches, base)
    sweep.plan(arguments.trials)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    finished = sweep.run(lambda told: console.print(as_flags(told) if isinstance(told, UnrolledError) else told))
    _show(sweep, console)
    if not finished:
        console.print(f"interrupted; the same command goes on with {folder}")
    return 0 if finished else 130


def _show(sweep: Sweep, console: Console) -> None:
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
