"""`unrolled train lm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unrolled.cli.training import Command, RunArguments
from unrolled.data.tokens import Progress
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
from unrolled.training import TrainingConfig
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments(RunArguments):
    """Train a recurrent language model on text.

    With no --data it learns the source code of the running Python's standard library.
    """

    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def _create(arguments: Arguments, progress: Progress) -> LanguageTask:
    config = LanguageConfig(arguments.text, arguments.model, arguments.training)
    path = arguments.out or next_free(Path("runs"), f"{text_name(arguments.text.data)}-{arguments.model.cell}")
    return create_run(path, config, progress)


def main(words: Sequence[str], prog: str) -> int:
    use = ("sample", "unrolled sample {run}")
    return Command(Arguments, "train lm", TASK, LanguageTask, read_config, _create, use).main(words, prog)
