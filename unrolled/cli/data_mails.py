"""`unrolled data mails`: print made mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.cli.parsing import parse
from unrolled.settings import require


@dataclass(frozen=True)
class Arguments:
    """Print made mails and their answers, a tab between the two."""

    count: int = 6000
    """How many."""
    seed: int = 1
    """Seed of the choice of sentences."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.data.mails import made_mails

    require(arguments.count >= 1, "count", "at least 1", arguments.count)
    for message, reply in zip(*made_mails(arguments.count, arguments.seed), strict=True):
        print(f"{message}\t{reply}")
    return 0
