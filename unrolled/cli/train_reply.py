"""`unrolled train reply`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from unrolled.cli.training import Command, default_name
from unrolled.data.tokens import Progress
from unrolled.tasks.pairs import REPLY, MailsConfig, ModelConfig, ReplyConfig, SentenceTraining, read_config
from unrolled.tasks.reply import create_reply_run
from unrolled.tasks.translation import TranslationTask
from unrolled.training.run import next_free


@dataclass(frozen=True)
class Arguments:
    """Train an encoder and a decoder to answer short mails.

    With no --pairs it learns 6,000 made mails and answers (python -m unrolled.data.mails prints them).
    """

    pairs: MailsConfig = field(default_factory=MailsConfig)
    model: ModelConfig = field(default_factory=lambda: ReplyConfig().model)
    training: SentenceTraining = field(default_factory=lambda: ReplyConfig().training)
    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Directory of the new run (runs/NAME-1, or the next free number)."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with this run, exactly where it stopped; limits and learning rate may be given anew."""


def _create(arguments: Arguments, progress: Progress) -> Path:
    name = f"{default_name(arguments.pairs.pairs or 'mails')}-{arguments.model.cell}"
    config = ReplyConfig(arguments.pairs, arguments.model, arguments.training)
    return create_reply_run(arguments.out or next_free(Path("runs"), name), config).run.path


def main(words: Sequence[str], prog: str) -> int:
    use = ("use", 'unrolled reply {run} "Lets do Monday."')
    return Command(Arguments, "train reply", REPLY, TranslationTask, read_config, _create, use).main(words, prog)
