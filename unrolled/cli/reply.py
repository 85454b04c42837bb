"""The command `unrolled reply RUN MESSAGE`."""

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
    """Suggest short answers to a mail, with their scores. The run's most probable responses come first.

    The score is the log-probability per token.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    message: Annotated[str, Positional, arg(metavar="MESSAGE")]
    """Text of the mail."""
    count: int = 3
    """Number of answers to show."""
    diversity: float = 1.0
    """Penalty for the words that a response shares with one already shown; 0: none."""
    responses: Annotated[str, arg(metavar="FILE")] = ""
    """Responses to choose from, one per line (default: all replies of the training pairs)."""
    length_penalty: float = 1.0
    """Exponent of the length by which a log-probability is divided."""
    checkpoint: Which = "best"
    """Weights to use; average: the mean of the weights at the last validations."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
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
            f"unrolled: note: read only the first {translator.longest} tokens of the mail, the longest in training",
            file=sys.stderr,
        )
    if note := unknown_note(translator.source.level, translator.source.unknown(message)):
        print(f"unrolled: note: {note}", file=sys.stderr)
    for text, score in found:
        print(f"{score:7.3f}  {text}")
    return 0
