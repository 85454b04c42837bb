"""What the commands that train on pairs share: a new run or one to go on with, and what is said about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, RunError
from unrolled.tasks.pairs import TranslationConfig, read_config
from unrolled.tasks.translation import TranslationTask
from unrolled.training import Run, Trainer
from unrolled.training.config import FIXED_TRAINING, flag, to_json
from unrolled.training.progress import clock

#: A limit given anew takes the place of those before it.
_LIMITS = ("epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class Command:
    """A command that trains: `kind` holds its flags, a section a field of the run's configuration, `out`, `resume`.

    create: makes the run of the given arguments.
    name: as it is typed. task: of its runs. hint: what to do with a run that is trained, `{run}` being its path.
    """

    kind: type
    name: str
    task: str
    create: Callable[[Any], TranslationTask]
    hint: str

    def main(self, words: Sequence[str], prog: str) -> int:
        """Train anew or go on; the exit code."""
        arguments: Any = parse(self.kind, words, prog)
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if arguments.resume is None:
            with console.status("reading the pairs"):
                task = self.create(arguments)
            return self._train(task, console, resume=False)
        run = Run.open(arguments.resume)
        with run.locked():
            run = dataclasses.replace(run, config=to_json(self._renewed(run, arguments, words, prog)))
            return self._train(TranslationTask(run), console, resume=True)

    def _renewed(self, run: Run, arguments: Any, words: Sequence[str], prog: str) -> TranslationConfig:
        """The run's settings, with what was given anew beside --resume, where it may be."""
        if arguments.out is not None:
            raise ConfigurationError("--resume goes on in its own directory; leave out --out")
        if run.task != self.task:
            raise RunError(f"{run.path}: a {run.task} run, which {self.name} cannot go on with")
        stored = read_config(run)
        names = [section.name for section in dataclasses.fields(stored)]
        sections = {name: getattr(stored, name) for name in names}
        after = parse(self.kind, words, prog, default=self.kind(**sections, resume=arguments.resume))
        given = {name: _differences(sections[name], getattr(after, name)) for name in names}
        fixed = [name for part in names for name in given[part] if part != "training" or name in FIXED_TRAINING]
        if fixed:
            raise ConfigurationError(
                f"{', '.join(map(flag, fixed))} cannot change when a run is resumed; start a new run, or leave it out"
            )
        dropped: dict[str, Any] = {name: None for name in _LIMITS if name not in given["training"]}
        if not set(_LIMITS) & set(given["training"]):
            dropped = {}
        return dataclasses.replace(stored, training=dataclasses.replace(after.training, **dropped))

    def _train(self, task: TranslationTask, console: Console, resume: bool) -> int:
        trainer = Trainer(task, task.config.training, task.run, console, resume=resume)
        if resume:  # now that it is sure to go on
            task.run.write_config(task.run.config)
        self._introduce(task, trainer, console, resume)
        outcome = trainer.train()
        at, path = outcome.position, task.run.path
        console.print(f"{outcome.reason} after {at.step:,} steps, {clock(at.seconds)}")
        if at.best_step:
            console.print(f"best validation at step {at.best_step:,}: {task.describe(at.best_loss)}")
        console.print(f"curve  {path / 'loss.png'}")
        if outcome.reason == "interrupted":
            console.print(f"go on  unrolled {self.name} --resume {path}")
        console.print(f"use    {self.hint.format(run=path)}")
        return 130 if outcome.reason == "interrupted" else 0

    def _introduce(self, task: TranslationTask, trainer: Trainer, console: Console, resume: bool) -> None:
        for name, value in task.facts():
            console.print(f"{name:6} {value}")
        console.print(f"run    {task.run.path}")
        if resume:
            at = trainer.position
            where = f"at step {at.step:,}, epoch {at.epoch}" if at.step else "from step 0: no checkpoint yet"
            console.print(f"       resumed {where}")


def default_name(path: str | Path) -> str:
    """A short name of a file of pairs, for its runs."""
    return "stdin" if str(path) == "-" else Path(path).resolve().name.split(".")[0] or "pairs"


def _differences(before: Any, after: Any) -> list[str]:
    names = [f.name for f in dataclasses.fields(before)]
    return [name for name in names if getattr(before, name) != getattr(after, name)]
