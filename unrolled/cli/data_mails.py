"""The command `unrolled data mails`: print synthetic mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unrolled.cli.parsing import parse
from unrolled.settings import require


@dataclass(frozen=True)
class Arguments:
    """Print synthetic mails and their answers, one pair per line, separated by a tab."""

    count: int = 6000
    """Number of pairs."""
    seed: int = 1
    """Seed for the choice of sentences."""


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.data.mails import synthetic_mails

    require(arguments.count >= 1, "count", "at least 1", arguments.count)
    for message, reply in zip(*synthetic_mails(arguments.count, arguments.seed), strict=True):
        print(f"{message}\t{reply}")
    return 0
