"""`unrolled train tree`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unrolled.cli.eval import tree_lines
from unrolled.cli.training import Command, RunArguments
from unrolled.data.tokens import Progress
from unrolled.errors import ConfigurationError
from unrolled.tasks.sentiment import (
    TASK,
    SentimentConfig,
    SentimentTask,
    TreeConfig,
    TreeModelConfig,
    TreeTraining,
    create_run,
    read_config,
)
from unrolled.training.processes import size
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments(RunArguments):
    """Train a recursive net on labelled trees, sentiment at every node, and tell its accuracy on dev."""

    trees: TreeConfig = field(default_factory=TreeConfig)
    model: TreeModelConfig = field(default_factory=TreeModelConfig)
    training: TreeTraining = field(default_factory=TreeTraining)


def _create(arguments: Arguments, progress: Progress) -> SentimentTask:
    config = SentimentConfig(arguments.trees, arguments.model, arguments.training)
    return create_run(arguments.out or next_free(Path("runs"), f"tree-{arguments.model.cell}"), config)


def _closing(task: SentimentTask) -> list[str]:
    """How well the best checkpoint labels dev."""
    return tree_lines(task.load("best").score(), "dev")


def main(words: Sequence[str], prog: str) -> int:
    if size() > 1:
        raise ConfigurationError("trees are trained by one process: leave out torchrun")
    use = ("score", "unrolled eval {run}")
    command = Command(Arguments, "train tree", TASK, SentimentTask, read_config, _create, use, _closing)
    return command.main(words, prog)
