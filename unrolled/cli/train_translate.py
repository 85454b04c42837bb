"""`unrolled train translate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unrolled.cli.training import Command, RunArguments, default_name
from unrolled.data.tokens import Progress
from unrolled.tasks.pairs import (
    TRANSLATION,
    ModelConfig,
    PairsConfig,
    SentenceTraining,
    TranslationConfig,
    read_config,
)
from unrolled.tasks.translation import TranslationTask, create_run
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments(RunArguments):
    """Train an encoder and a decoder to translate, from two files whose lines belong together."""

    pairs: PairsConfig = field(default_factory=PairsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: SentenceTraining = field(default_factory=SentenceTraining)


def _create(arguments: Arguments, progress: Progress) -> TranslationTask:
    name = f"{default_name(arguments.pairs.target or 'pairs')}-{arguments.model.cell}"
    config = TranslationConfig(arguments.pairs, arguments.model, arguments.training)
    return create_run(arguments.out or next_free(Path("runs"), name), config)


def main(words: Sequence[str], prog: str) -> int:
    use = ("use", "unrolled translate {run} < SENTENCES")
    command = Command(Arguments, "train translate", TRANSLATION, TranslationTask, read_config, _create, use)
    return command.main(words, prog)
