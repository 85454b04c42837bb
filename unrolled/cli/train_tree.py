"""`unrolled train tree`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import arg

from unrolled.cli.parsing import parse
from unrolled.errors import ConfigurationError
from unrolled.tasks.sentiment import (
    TASK,
    TREE_TRAINING,
    SentimentConfig,
    SentimentTask,
    TreeConfig,
    TreeModelConfig,
    prepare,
)
from unrolled.training import Checkpoints, Run, Trainer, TrainingConfig
from unrolled.training.config import to_json
from unrolled.training.processes import size
from unrolled.training.progress import clock
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments:
    """Train a recursive net on labelled trees, sentiment at every node, and tell its accuracy at the roots of dev.

    Trees are read whole, --batch-size a step; --seq-length, --backward-length and --carry-state have no meaning here.
    """

    trees: TreeConfig = field(default_factory=TreeConfig)
    model: TreeModelConfig = field(default_factory=TreeModelConfig)
    training: TrainingConfig = TREE_TRAINING
    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (runs/NAME-1, or the next free number)."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with this run where it stopped, with its own settings."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if arguments.resume is None:
        task = _create(arguments, console)
    else:
        if arguments != Arguments(resume=arguments.resume):
            raise ConfigurationError("--resume takes up the run's own settings; give it alone")
        task = SentimentTask(Run.open(arguments.resume))
        if not Checkpoints(task.run).folders():  # killed before its first: it starts anew
            _start_vectors(task, console)
    if size() > 1 or task.config.training.accumulate > 1:
        raise ConfigurationError("trees are trained by one process, whole batches: leave out torchrun and --accumulate")
    trainer = Trainer(task, task.config.training, task.run, console, resume=arguments.resume is not None)
    parameters = sum(p.numel() for p in task.model.parameters())
    console.print(f"trees  {len(task.train):,} to train on, {len(task.dev):,} of dev; {len(task.words):,} words")
    model = task.config.model
    console.print(f"model  {model.cell} of {model.hidden_size} units, {parameters:,} parameters")
    console.print(f"run    {task.run.path}")
    outcome = trainer.train()
    at = outcome.position
    console.print(f"{outcome.reason} after {at.step:,} steps, {clock(at.seconds)}")
    score = task.load("best").score()
    console.print(f"dev, at the root, best checkpoint (step {at.best_step:,}):")
    console.print(f"  fine    {score.fine:.1%} of five labels")
    console.print(f"  binary  {score.binary:.1%} of negative and positive, neutral roots left out")
    if outcome.reason == "interrupted":
        console.print(f"go on  unrolled train tree --resume {task.run.path}")
        return 130
    return 0


def _create(arguments: Arguments, console: Console) -> SentimentTask:
    config = SentimentConfig(arguments.trees, arguments.model, arguments.training)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, carry_state=False))
    path = arguments.out or next_free(Path("runs"), f"tree-{config.model.cell}")
    with Run.create(path, TASK, to_json(config)) as run:
        prepare(run, config.trees)
        task = SentimentTask(run)
        _start_vectors(task, console)
    return task


def _start_vectors(task: SentimentTask, console: Console) -> None:
    path = task.config.trees.vectors
    if path is not None:
        console.print(f"vectors of {task.start_from(path):,} of {len(task.words):,} words from {path}")
