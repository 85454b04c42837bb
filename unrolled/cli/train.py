"""The command `unrolled train NAME` of every task: train a new run or resume one, in one or several processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from unrolled.cli.flags import Trust, flag
from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, RunError
from unrolled.settings import to_json
from unrolled.tasks import find_info, find_task
from unrolled.tasks.info import TaskInfo, sections
from unrolled.tasks.inherit import contradictions, inherited
from unrolled.tasks.own_cells import require_trusted, trust_cells
from unrolled.training import Run, open_run
from unrolled.training.checkpoint import Which
from unrolled.training.run import next_free

if TYPE_CHECKING:
    from rich.console import Console

    from unrolled.tasks.base import Task
    from unrolled.training import Outcome, Trainer
    from unrolled.training.processes import Processes

#: A limit that is given with --resume replaces all earlier ones.
_LIMITS = ("epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class RunArguments:
    """The flags of every training command that are not settings."""

    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (default: runs/NAME-1, or the next free number)."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Resume this run exactly where it stopped; its limits and learning rate may be changed."""
    trust: Trust = False
    init_from: Annotated[Path | None, arg(metavar="RUN")] = None
    """Start a new run from this run's weights and model settings, on new data and with a new optimiser.
    Tokens that RUN does not know start from fresh weights."""
    init_checkpoint: Which = "best"
    """Weights that `init_from` takes."""


def main(words: Sequence[str], prog: str) -> int:
    """Train a new run or resume one. Return the exit code."""
    return Training(find_info(prog.split()[-1])).main(words, prog)


def with_sections(task: type[TaskInfo], base: type, description: str) -> Any:
    """Return a dataclass of the flags of `base` and those of the sections of a task's settings."""
    parts = [
        (name, type(value), field(default_factory=partial(dataclasses.replace, value)))
        for name, value in sections(task.Settings).items()
    ]
    namespace = {"__doc__": description, "__module__": __name__}
    return dataclasses.make_dataclass("Arguments", parts, bases=(base,), frozen=True, namespace=namespace)


def arguments(name: str, words: Sequence[str]) -> Any:
    """Return the flags of `train NAME`."""
    return Training(find_info(name.split()[-1])).kind


class Training:
    """The command that trains a task."""

    def __init__(self, info: type[TaskInfo]) -> None:
        self.info = info
        self.kind = with_sections(info, RunArguments, info.help)
        self.names = list(sections(info.Settings))

    @property
    def task(self) -> type[Task]:
        """The task itself, which is imported after the flags are read."""
        return find_task(self.info.name)

    def main(self, words: Sequence[str], prog: str) -> int:
        arguments: Any = self._read(words, prog)
        from rich.console import Console

        from unrolled.training.optimisation import find_device
        from unrolled.training.processes import join

        console = Console(highlight=False, markup=False, soft_wrap=True)
        if arguments.resume is None:
            if arguments.trust and arguments.init_from is None:
                raise ConfigurationError("--trust is about an existing run: give it with --resume or --init-from")
            processes = join(find_device(arguments.training.device), arguments.training.precision)
            created: list[Task] = []  # set in the first process, which need not open the run again

            def create() -> Path:
                created.append(self._create(arguments, console))
                return created[0].run.path

            path = processes.on_main(create)
            task = created[0] if created else self._joined(open_run(path))
            return self._train(task, processes, console, resume=False)
        run, _ = Run.read(arguments.resume)
        config = self._renewed(run, arguments, words, prog)
        processes = join(find_device(config.training.device), config.training.precision)
        processes.on_main(lambda: open_run(run.path) and None)  # converts a run of an older format
        with run.locked() if processes.is_main else nullcontext():
            if arguments.trust:
                processes.on_main(partial(trust_cells, run))
            processes.on_main(lambda: require_trusted(run) and None)
            run = dataclasses.replace(run, config=to_json(config))
            task = self.task(run) if processes.is_main else self._joined(run)
            processes.on_main(task.verify)
            return self._train(task, processes, console, resume=True)

    def _joined(self, run: Run) -> Task:
        """Return a run's task in another process than the first, which has decided for all that its cell may run."""
        trust_cells(run, keep=False)
        return self.task(run)

    def _read(self, words: Sequence[str], prog: str) -> Any:
        """Return the flags. What --init-from inherits comes from that run's settings unless a flag gives it."""
        path = None if {"-h", "--help"} & set(words) else _value_of("--init-from", words)
        if not path:
            arguments: Any = parse(self.kind, words, prog)
            if arguments.init_checkpoint != "best":
                raise ConfigurationError("--init-checkpoint chooses weights of --init-from: name that run, too")
            return arguments
        if _value_of("--resume", words) is not None:
            raise ConfigurationError("--init-from starts a new run and --resume goes on with one; give one of them")
        run, _ = Run.read(path)
        stored, fates = self.info.settings_from(run)
        before = inherited(self.info, stored, fates)
        given: Any = parse(
            self.kind, words, prog, default=self.kind(**{name: getattr(before, name) for name in self.names})
        )
        if others := contradictions(fates, before, given):
            needs = ", ".join(
                f"{_typed(name, theirs)} (not {_typed(name, ours)})" for name, (theirs, ours) in others.items()
            )
            raise ConfigurationError(f"--init-from {path}: its weights need {needs}; leave out what differs")
        return given

    def _create(self, arguments: Any, console: Console) -> Task:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        start = None
        if arguments.init_from is not None:
            from unrolled.tasks.start import Start

            start = Start(arguments.init_from, arguments.init_checkpoint, arguments.trust)
        settings = self.info.Settings(**{name: getattr(arguments, name) for name in self.names})
        name = self.info.run_name(settings)
        path = arguments.out or next_free(Path("runs"), name)
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=console,
            disable=not console.is_terminal,
        ) as bar:
            reading = bar.add_task("reading", total=None)

            def progress(what: str, share: float) -> None:
                bar.update(reading, description=what, total=1.0, completed=share)

            while True:
                try:
                    task = self.task.create(path, settings, progress, start)
                    break
                except RunError:
                    free = next_free(Path("runs"), name)
                    if arguments.out is not None or free == path:
                        raise
                    path = free  # another process has taken the name meanwhile
            bar.remove_task(reading)
        if start is not None:
            console.print(f"start  {start.origin}")
            for note in start.notes:
                console.print(f"       {note}")
        return task

    def _renewed(self, run: Run, arguments: Any, words: Sequence[str], prog: str) -> Any:
        """Return the run's settings, changed by the flags given with --resume; raise an error for one that is fixed."""
        if arguments.out is not None:
            raise ConfigurationError("--resume goes on in its own directory; leave out --out")
        if run.task != self.info.kind:
            raise RunError(f"{run.path}: a {run.task} run cannot be resumed by train {self.info.name}")
        stored, names = self.info.settings_of(run), self.names
        before = {name: getattr(stored, name) for name in names}
        after: Any = parse(self.kind, words, prog, default=self.kind(**before, resume=arguments.resume))
        given = {name: _differences(before[name], getattr(after, name)) for name in names}
        fixed = [name for part in names for name in given[part] if part != "training" or name in after.training.fixed]
        if fixed:
            raise ConfigurationError(
                f"{', '.join(map(flag, fixed))} cannot change when a run is resumed; start a new run, or leave it out"
            )
        limits = set(_LIMITS) & set(given["training"])
        dropped: dict[str, Any] = {name: None for name in _LIMITS if limits and name not in limits}
        return dataclasses.replace(stored, training=dataclasses.replace(after.training, **dropped))

    def _train(self, task: Task, processes: Processes, console: Console, resume: bool) -> int:
        from unrolled.training import Trainer

        goes_on = resume or task.run.origin is not None  # a run with an origin has its first weights as a checkpoint
        trainer = Trainer(task, task.config.training, task.run, console, goes_on, processes)
        if processes.is_main:
            if resume:  # written only now, because the run is sure to resume
                task.run.write_config(task.run.config)
                task.keep_counts()
            _introduce(task, trainer, console, resume)
        outcome = trainer.train()
        if processes.is_main:
            self._conclude(task, outcome, console)
        return 130 if outcome.reason == "interrupted" else 0

    def _conclude(self, task: Task, outcome: Outcome, console: Console) -> None:
        from unrolled.training.progress import clock

        at, path = outcome.position, task.run.path
        console.print(f"{outcome.reason} after {at.step:,} steps, {clock(at.seconds)}")
        if at.best_step:
            console.print(f"best validation at step {at.best_step:,}: {task.describe_validation(at.best_loss)}")
            for line in task.closing():
                console.print(line)
        console.print(f"curve  {path / 'loss.png'}")
        if outcome.reason == "interrupted":
            console.print(f"go on  unrolled train {self.info.name} --resume {quote(str(path))}")
        for word, command in task.uses()[:1]:
            console.print(f"{word:6} {command.format(run=quote(str(path)))}")


def _introduce(task: Task, trainer: Trainer, console: Console, resume: bool) -> None:
    for name, value in task.facts():
        together = f", {trainer.processes.size} processes" if name == "model" and trainer.processes.size > 1 else ""
        console.print(f"{name:6} {value}{together}")
    console.print(f"run    {task.run.path}")
    if resume:
        at = trainer.position
        begins = "no checkpoint yet: from step 0" if task.run.origin is None else "from step 0"
        said = f"resumed at step {at.step:,}, epoch {at.epoch}" if at.step else begins
        console.print(f"       {said}")


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """Return the last value given to an option on the command line; None if there is none."""
    found = None
    for word, following in pairwise([*words, "--"]):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option and (equals or not following.startswith("--")):
            found = value if equals else following
    return found


def _typed(name: str, value: Any) -> str:
    """Return a setting as the user types it."""
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    if value is None:
        return f"no {flag(name)}"
    return " ".join([flag(name), *map(str, value if isinstance(value, tuple) else [value])])


def _differences(before: Any, after: Any) -> list[str]:
    names = [f.name for f in dataclasses.fields(before)]
    return [name for name in names if getattr(before, name) != getattr(after, name)]
