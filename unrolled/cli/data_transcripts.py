"""The command `unrolled data transcripts`: print the transcripts that a run trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.tasks import open_task


@dataclass(frozen=True)
class Arguments:
    """Print the transcripts that a transcriber trains on, one per line, to train a language model on."""

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory of a transcriber."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.tasks.transcribing import TranscribingTask

    task = open_task(arguments.run, "cpu", kind=TranscribingTask, trust=arguments.trust)
    seen: set[str] = set()
    for number in task.items.train:
        name = task.items.names[number]
        if name not in seen:  # copies at other speeds have the same transcript
            seen.add(name)
            print(task.items.texts[number])
    return 0
