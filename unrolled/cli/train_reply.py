"""`unrolled train reply`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unrolled.cli.training import Command, RunArguments, default_name
from unrolled.data.tokens import Progress
from unrolled.tasks.pairs import REPLY, MailsConfig, ModelConfig, ReplyConfig, SentenceTraining, read_config
from unrolled.tasks.reply import create_reply_run
from unrolled.tasks.translation import TranslationTask
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments(RunArguments):
    """Train an encoder and a decoder to answer short mails.

    With no --pairs it learns 6,000 made mails and answers (unrolled data mails prints them).
    """

    pairs: MailsConfig = field(default_factory=MailsConfig)
    model: ModelConfig = field(default_factory=lambda: ReplyConfig().model)
    training: SentenceTraining = field(default_factory=lambda: ReplyConfig().training)


def _create(arguments: Arguments, progress: Progress) -> TranslationTask:
    name = f"{default_name(arguments.pairs.pairs or 'mails')}-{arguments.model.cell}"
    config = ReplyConfig(arguments.pairs, arguments.model, arguments.training)
    return create_reply_run(arguments.out or next_free(Path("runs"), name), config)


def main(words: Sequence[str], prog: str) -> int:
    use = ("use", 'unrolled reply {run} "Lets do Monday."')
    return Command(Arguments, "train reply", REPLY, TranslationTask, read_config, _create, use).main(words, prog)
