"""What the commands that train share: a new run or one to go on with, by one process or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from tyro.conf import arg

from unrolled.cli.flags import flag
from unrolled.cli.parsing import parse
from unrolled.data.tokens import Progress as Told
from unrolled.errors import ConfigurationError, RunError
from unrolled.settings import to_json
from unrolled.tasks.language import LanguageConfig, LanguageTask
from unrolled.tasks.pairs import TranslationConfig
from unrolled.tasks.sentiment import SentimentConfig, SentimentTask
from unrolled.tasks.translation import TranslationTask
from unrolled.training import Outcome, Run, Trainer, open_run
from unrolled.training.config import FIXED_TRAINING
from unrolled.training.optimisation import find_device
from unrolled.training.processes import Processes, join
from unrolled.training.progress import clock

Task = LanguageTask | TranslationTask | SentimentTask
Config = LanguageConfig | TranslationConfig | SentimentConfig

#: A limit given anew takes the place of those before it.
_LIMITS = ("epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class RunArguments:
    """The flags of every such command that are no settings."""

    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (runs/NAME-1, or the next free number)."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with this run, exactly where it stopped; limits and learning rate may be given anew."""


@dataclass(frozen=True)
class Command:
    """A command that trains.

    kind: its flags, a RunArguments: the sections of a run's configuration by their names there, `out` and `resume`.
    name: as it is typed. task: of its runs. make: opens one. read: its settings.
    create: makes a new run of the arguments, telling how far it is, and returns its task.
    use: the word and the command for a run that is trained, `{run}` being its path.
    closing: what is said of it in the end, where a checkpoint was written; the task is then no longer trained.
    """

    kind: type[RunArguments]
    name: str
    task: str
    make: Callable[[Run], Task]
    read: Callable[[Run], Config]
    create: Callable[[Any, Told], Task]
    use: tuple[str, str]
    closing: Callable[[Any], list[str]] = lambda task: []

    def main(self, words: Sequence[str], prog: str) -> int:
        """Train anew or go on; the exit code."""
        arguments: Any = parse(self.kind, words, prog)
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if arguments.resume is None:
            processes = join(find_device(arguments.training.device), arguments.training.precision)
            created: list[Task] = []  # in the first process, which need not open it again

            def create() -> Path:
                created.append(self._create(arguments, console))
                return created[0].run.path

            path = processes.first(create)
            task = created[0] if created else self.make(open_run(path))
            return self._train(task, processes, console, resume=False)
        run, _ = Run.read(arguments.resume)
        config = self._renewed(run, arguments, words, prog)
        processes = join(find_device(config.training.device), config.training.precision)
        processes.first(lambda: open_run(run.path) and None)  # which brings one of an older format up to date
        with run.locked() if processes.leads else nullcontext():
            task = self.make(dataclasses.replace(run, config=to_json(config)))
            processes.first(task.verify)
            return self._train(task, processes, console, resume=True)

    def _create(self, arguments: Any, console: Console) -> Task:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=console,
            disable=not console.is_terminal,
        ) as bar:
            told = bar.add_task("reading", total=None)
            task = self.create(
                arguments, lambda what, share: bar.update(told, description=what, total=1.0, completed=share)
            )
            bar.remove_task(told)
        return task

    def _renewed(self, run: Run, arguments: Any, words: Sequence[str], prog: str) -> Config:
        """The run's settings, with what was given anew beside --resume, where it may be."""
        if arguments.out is not None:
            raise ConfigurationError("--resume goes on in its own directory; leave out --out")
        if run.task != self.task:
            raise RunError(f"{run.path}: a {run.task} run cannot be resumed by {self.name}")
        stored = self.read(run)
        names = [section.name for section in dataclasses.fields(stored)]
        before = {name: getattr(stored, name) for name in names}
        after: Any = parse(self.kind, words, prog, default=self.kind(**before, resume=arguments.resume))
        given = {name: _differences(before[name], getattr(after, name)) for name in names}
        fixed = [name for part in names for name in given[part] if part != "training" or name in FIXED_TRAINING]
        if fixed:
            raise ConfigurationError(
                f"{', '.join(map(flag, fixed))} cannot change when a run is resumed; start a new run, or leave it out"
            )
        limits = set(_LIMITS) & set(given["training"])
        dropped: dict[str, Any] = {name: None for name in _LIMITS if limits and name not in limits}
        return dataclasses.replace(stored, training=dataclasses.replace(after.training, **dropped))

    def _train(self, task: Task, processes: Processes, console: Console, resume: bool) -> int:
        trainer = Trainer(task, task.config.training, task.run, console, resume, processes)
        if processes.leads:
            if resume:  # now that it is sure to go on
                task.run.write_config(task.run.config)
            _introduce(task, trainer, console, resume)
        outcome = trainer.train()
        if processes.leads:
            self._conclude(task, outcome, console)
        return 130 if outcome.reason == "interrupted" else 0

    def _conclude(self, task: Task, outcome: Outcome, console: Console) -> None:
        at, path = outcome.position, task.run.path
        console.print(f"{outcome.reason} after {at.step:,} steps, {clock(at.seconds)}")
        if at.best_step:
            console.print(f"best validation at step {at.best_step:,}: {task.describe(at.best_loss)}")
            for line in self.closing(task):
                console.print(line)
        console.print(f"curve  {path / 'loss.png'}")
        if outcome.reason == "interrupted":
            console.print(f"go on  unrolled {self.name} --resume {quote(str(path))}")
        word, command = self.use
        console.print(f"{word:6} {command.format(run=quote(str(path)))}")


def _introduce(task: Task, trainer: Trainer, console: Console, resume: bool) -> None:
    for name, value in task.facts():
        together = f", {trainer.processes.size} processes" if name == "model" and trainer.processes.size > 1 else ""
        console.print(f"{name:6} {value}{together}")
    console.print(f"run    {task.run.path}")
    if resume:
        at = trainer.position
        said = f"resumed at step {at.step:,}, epoch {at.epoch}" if at.step else "no checkpoint yet: from step 0"
        console.print(f"       {said}")


def default_name(path: str | Path) -> str:
    """A short name of a file of pairs, for its runs."""
    return "stdin" if str(path) == "-" else Path(path).resolve().name.split(".")[0] or "pairs"


def _differences(before: Any, after: Any) -> list[str]:
    names = [f.name for f in dataclasses.fields(before)]
    return [name for name in names if getattr(before, name) != getattr(after, name)]
