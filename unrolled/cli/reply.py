"""`unrolled reply RUN MESSAGE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import open_lines
from unrolled.errors import DataError
from unrolled.tasks import open_task
from unrolled.tasks.pairs import Which


@dataclass(frozen=True)
class Arguments:
    """Suggest short answers to a mail, the most probable of the run's responses first, with their scores.

    The score is the log-probability a token.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    message: Annotated[str, Positional, arg(metavar="MESSAGE")]
    """The mail."""
    count: int = 3
    """Answers to show."""
    diversity: float = 1.0
    """What a response loses for the words that it shares with one already shown; 0: nothing."""
    responses: Annotated[str, arg(metavar="FILE")] = ""
    """Responses to choose from, one a line; none: all replies of the training pairs."""
    length_penalty: float = 1.0
    """Exponent of the length that a log-probability is divided by."""
    checkpoint: Which = "best"
    """Which weights; average: the mean of the last validations'."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.data.vocabulary import unknown_note
    from unrolled.tasks.reply import ReplyTask
    from unrolled.tasks.translator import Translator

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, ReplyTask, trust=arguments.trust)
    responses = list(open_lines(arguments.responses)) if arguments.responses else None
    if responses is not None and not any(map(str.strip, responses)):
        raise DataError(f"{arguments.responses}: no responses to choose from")
    found = task.reply(
        arguments.message,
        count=arguments.count,
        diversity=arguments.diversity,
        responses=responses,
        length_penalty=arguments.length_penalty,
    )
    translator = Translator([task])
    message = translator.beginning(arguments.message)
    if message != arguments.message:
        print(
            f"unrolled: note: read the first {translator.longest} tokens of the mail, the most in training",
            file=sys.stderr,
        )
    if note := unknown_note(translator.source.level, translator.source.unknown(message)):
        print(f"unrolled: note: {note}", file=sys.stderr)
    for text, score in found:
        print(f"{score:7.3f}  {text}")
    return 0
