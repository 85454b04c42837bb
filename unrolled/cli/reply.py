"""`unrolled reply RUN MESSAGE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import open_lines
from unrolled.errors import DataError
from unrolled.settings import require
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
    from unrolled.decoding.beam import require_length_penalty
    from unrolled.tasks.reply import ReplyTask, choose_diverse, rank_replies, read_responses
    from unrolled.tasks.translator import Translator

    require(arguments.count >= 1, "count", "at least 1", arguments.count)
    require(0 <= arguments.diversity < inf, "diversity", "0 or above", arguments.diversity)
    require_length_penalty(arguments.length_penalty)
    try:
        arguments.message.encode()
    except UnicodeEncodeError as error:
        raise DataError("the message is not UTF-8 text") from error
    task = open_task(arguments.run, arguments.device, kind=ReplyTask, trust=arguments.trust)
    if arguments.responses:
        responses = list(dict.fromkeys(line.strip() for line in open_lines(arguments.responses) if line.strip()))
        if not responses:
            raise DataError(f"{arguments.responses}: no responses to choose from")
    else:
        responses = read_responses(task.run)
    translator = Translator([task.load(arguments.checkpoint)])
    message = translator.beginning(arguments.message)
    ranked = rank_replies(translator, message, responses, arguments.length_penalty)
    if message != arguments.message:
        print(
            f"unrolled: note: read the first {translator.longest} tokens of the mail, the most in training",
            file=sys.stderr,
        )
    if note := unknown_note(translator.source.level, translator.source.unknown(message)):
        print(f"unrolled: note: {note}", file=sys.stderr)
    for text, score in choose_diverse(ranked, arguments.count, arguments.diversity):
        print(f"{score:7.3f}  {text}")
    return 0
