"""`unrolled train lm`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from tyro.conf import arg

from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError, RunError
from unrolled.tasks.language import (
    TASK,
    LanguageConfig,
    LanguageTask,
    ModelConfig,
    TextConfig,
    create_run,
    read_config,
    text_name,
)
from unrolled.training import Outcome, Run, Trainer, TrainingConfig
from unrolled.training.config import FIXED_TRAINING, flag, to_json
from unrolled.training.optimisation import find_device
from unrolled.training.processes import Processes, join
from unrolled.training.progress import clock
from unrolled.training.run import next_free

#: A limit given anew takes the place of those before it.
_LIMITS = ("epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class Arguments:
    """Train a recurrent language model on text.

    With no --data it learns the source code of the running Python's standard library.
    """

    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (runs/NAME-1, or the next free number)."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with this run, exactly where it stopped; limits and learning rate may be given anew."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if arguments.resume is None:
        processes = join(find_device(arguments.training.device), arguments.training.precision)
        path = processes.first(lambda: _create(arguments, console))
        return _train(LanguageTask(Run.open(path)), processes, console, resume=False)
    run, _ = Run.read(arguments.resume)
    config = _renewed(run, arguments, words, prog)
    processes = join(find_device(config.training.device), config.training.precision)
    processes.first(lambda: Run.open(run.path) and None)  # which brings one of an older format up to date
    with run.locked() if processes.leads else nullcontext():
        task = LanguageTask(dataclasses.replace(run, config=to_json(config)))
        processes.first(task.verify_text)
        return _train(task, processes, console, resume=True)


def _train(task: LanguageTask, processes: Processes, console: Console, resume: bool) -> int:
    trainer = Trainer(task, task.config.training, task.run, console, resume, processes)
    if processes.leads:
        if resume:  # now that it is sure to go on
            task.run.write_config(task.run.config)
        _introduce(task, trainer, console, resume)
    outcome = trainer.train()
    if processes.leads:
        _conclude(task, outcome, console)
    return 130 if outcome.reason == "interrupted" else 0


def _create(arguments: Arguments, console: Console) -> Path:
    config = LanguageConfig(arguments.text, arguments.model, arguments.training)
    path = arguments.out or next_free(Path("runs"), f"{text_name(arguments.text.data)}-{arguments.model.cell}")
    with Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=console) as bar:
        told = bar.add_task("reading the text", total=1.0)
        create_run(path, config, lambda what, share: bar.update(told, description=what, completed=share))
        bar.remove_task(told)
    return path


def _renewed(run: Run, arguments: Arguments, words: Sequence[str], prog: str) -> LanguageConfig:
    """The run's settings, with what was given anew beside --resume, where it may be."""
    if arguments.out is not None:
        raise ConfigurationError("--resume goes on in its own directory; leave out --out")
    if run.task != TASK:
        raise RunError(f"{run.path}: a {run.task} run cannot be resumed; start it anew with more iterations")
    stored = read_config(run)
    before = Arguments(stored.text, stored.model, stored.training, resume=arguments.resume)
    after = parse(Arguments, words, prog, default=before)
    changed = [*_differences(before.text, after.text), *_differences(before.model, after.model)]
    training = _differences(before.training, after.training)
    changed += [name for name in training if name in FIXED_TRAINING]
    if changed:
        names = ", ".join(flag(name) for name in changed)
        raise ConfigurationError(f"{names} cannot change when a run is resumed; start a new run, or leave it out")
    old_limits: dict[str, Any] = (
        {name: None for name in _LIMITS if name not in training} if set(_LIMITS) & set(training) else {}
    )
    return LanguageConfig(after.text, after.model, dataclasses.replace(after.training, **old_limits))


def _differences(before, after) -> list[str]:
    names = [f.name for f in dataclasses.fields(before)]
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _introduce(task: LanguageTask, trainer: Trainer, console: Console, resume: bool) -> None:
    say = console.print
    config, split = task.config, task.split()
    parameters = sum(p.numel() for p in task.model.parameters())
    widths = "+".join(map(str, config.model.widths))
    together = f", {trainer.processes.size} processes" if trainer.processes.size > 1 else ""
    where = ", ".join(config.text.data) or "the Python standard library's source"
    say(f"text   {where}")
    say(
        f"       {len(split.train):,} tokens to train on, {len(split.validation):,} to validate, "
        f"{len(split.test):,} to test; {len(task.vocabulary):,} in the {config.text.level} vocabulary"
    )
    say(f"model  {config.model.cell}, layers of {widths} units, {parameters:,} parameters, on {task.device}{together}")
    say(f"run    {task.run.path}")
    if resume:
        at = trainer.position
        say(
            f"       resumed at step {at.step:,}, epoch {at.epoch}"
            if at.step
            else "       no checkpoint yet: from step 0"
        )


def _conclude(task: LanguageTask, outcome: Outcome, console: Console) -> None:
    say = console.print
    at, path = outcome.position, task.run.path
    say(f"{outcome.reason} after {at.step:,} steps, {clock(at.seconds)}")
    if at.best_step:
        say(f"best validation at step {at.best_step:,}: {task.describe(at.best_loss)}")
    say(f"curve  {path / 'loss.png'}")
    if outcome.reason == "interrupted":
        say(f"go on  unrolled train lm --resume {path}")
    say(f"sample unrolled sample {path}")
