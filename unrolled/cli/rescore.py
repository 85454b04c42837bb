"""The command `unrolled rescore RUN...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import open_lines
from unrolled.errors import DataError, DecodingError
from unrolled.settings import require
from unrolled.tasks.pairs import Which


@dataclass(frozen=True)
class Arguments:
    """Rerank the outputs of another system. Several runs form an ensemble.

    Print the best output of each list, one line for each line of the source. The line is empty if a source has no list.
    """

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="RUN...")]
    """Run directories; all runs were trained on the same pairs."""
    source: Annotated[str, arg(metavar="FILE")]
    """The sentences that were translated, one per line."""
    n_best: Annotated[str, arg(metavar="FILE")]
    """Lines of the form `number ||| translation ||| score`, as `unrolled translate --n-best` and Moses write them."""
    weight: float = 0.5
    """Weight of these runs in the score; the rest is the weight of the list's own score. 1: these runs alone."""
    length_penalty: float = 1.0
    """Exponent of the length by which these runs' log-probability is divided."""
    all: bool = False
    """Print the whole lists in their new order, with the new scores."""
    checkpoint: Which = "best"
    """Weights to use; average: the mean of the weights at the last validations."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    from unrolled.cli.translate import open_translator
    from unrolled.decoding.beam import require_length_penalty
    from unrolled.tasks.translator import at_line

    require(0 <= arguments.weight <= 1, "weight", "from 0 to 1", arguments.weight)
    require_length_penalty(arguments.length_penalty)
    sources = list(open_lines(arguments.source))
    lists = read_lists(arguments.n_best, len(sources), scored=arguments.weight < 1)
    translator = open_translator(arguments.runs, arguments.checkpoint, arguments.device, trust=arguments.trust)
    try:
        scores = translator.score(sources, [[text for text, _ in some] for some in lists])
    except DecodingError as error:
        raise at_line(error, arguments.source) from error
    for number, (some, found) in enumerate(zip(lists, scores, strict=True)):
        ranked = []
        for (text, own), (log_prob, length) in zip(some, found, strict=True):
            ranked.append((_mixed(log_prob / length**arguments.length_penalty, own, arguments.weight), text))
        ranked.sort(key=lambda entry: -entry[0])
        if arguments.all:
            for score, text in ranked:
                print(f"{number} ||| {text} ||| {score:.6f}")
        else:
            print(ranked[0][1] if ranked else "")
    return 0


def _mixed(new: float, own: float, weight: float) -> float:
    """Return the weighted mean of two scores. A score of weight 0 is ignored, because it may be -inf."""
    return own if weight == 0 else new if weight == 1 else weight * new + (1 - weight) * own


def read_lists(name: str, count: int, scored: bool) -> list[list[tuple[str, float]]]:
    """Read the `(translation, score)` pairs of each of `count` sources. A line's last field is its score.

    The score is 0 if the lists are not `scored`.
    """
    lists: list[list[tuple[str, float]]] = [[] for _ in range(count)]
    for line_number, line in enumerate(open_lines(name), 1):
        if not line.strip():
            continue
        fields = [part.strip() for part in line.split("|||")]
        where = f"{name}: line {line_number:,}"
        if len(fields) < 2 or not fields[0].isdecimal():
            raise DataError(f"{where} is not of the form `number ||| translation ||| score`")
        if int(fields[0]) >= count:
            raise DataError(f"{where} belongs to source line {int(fields[0]):,} (from 0), but the source has {count:,}")
        score = 0.0
        if scored:
            try:
                score = float(fields[-1]) if len(fields) > 2 else float("nan")
            except ValueError:
                score = float("nan")
            if not isfinite(score):
                raise DataError(f"{where} has no finite score after the translation; add one, or give --weight 1")
        lists[int(fields[0])].append((fields[1], score))
    return lists
