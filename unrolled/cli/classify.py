"""`unrolled classify RUN [TEXT...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.labelled import format_of, iterate_labelled
from unrolled.data.lines import in_blocks, open_lines, readable
from unrolled.errors import ConfigurationError
from unrolled.settings import require

if TYPE_CHECKING:
    from unrolled.tasks.classifying import ClassifyingTask

#: Texts that are read before the first is classified, from a file; on a terminal each line is answered at once.
_BLOCK = 256


@dataclass(frozen=True)
class Arguments:
    """Give each text its class, or its classes, with their probabilities.

    Texts are given as arguments, or by a file, one per line. By default the output for each text is a line of classes,
    each followed by its probability, with tabs between.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    text: Annotated[tuple[str, ...], Positional, arg(metavar="TEXT...")] = ()
    """Texts; none: those of --file."""
    file: Annotated[str, arg(metavar="FILE")] = "-"
    """Texts, plain or gzip; -: standard input."""
    format: Literal["", "text", "jsonl", "csv", "tsv"] = ""
    """Format of FILE; text: one per line (by the name's ending, or text)."""
    text_column: str = ""
    """Column of the texts in a table, or their key in JSON (as in training)."""
    top: int = 0
    """Number of classes to show for each text, the most probable first (0: only those that it is given)."""
    json: bool = False
    """Print one JSON object per text, with its label or labels and the probability of every class."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    require(arguments.top >= 0, "top", "0 or above", arguments.top)
    if arguments.text and (arguments.file != "-" or arguments.format or arguments.text_column):
        said = "--file, --format and --text-column are about a file: give either TEXT or them"
        raise ConfigurationError(said, setting="file")
    from unrolled.tasks import open_task
    from unrolled.tasks.classifying import ClassifyingTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, ClassifyingTask, trust=arguments.trust)
    column = arguments.text_column or task.config.texts.text_column
    alone = arguments.file == "-" and sys.stdin is not None and sys.stdin.isatty()
    for some in in_blocks(_texts(arguments, column), 1 if alone else _BLOCK):
        for (text, entry), chances in zip(some, task.probabilities([text for text, _ in some]), strict=True):
            sys.stdout.write(_written(task, text, entry, chances, arguments) + "\n")
        sys.stdout.flush()
    return 0


def _texts(arguments: Arguments, column: str) -> Iterator[tuple[str, str]]:
    """Iterate over the texts, each with its line of JSON if it comes from one."""
    if arguments.text:
        yield from ((readable(text), "") for text in arguments.text)
        return
    form = arguments.format or format_of(arguments.file, "text")
    if form == "text":
        yield from ((line, "") for line in open_lines(arguments.file))
        return
    for one in iterate_labelled(arguments.file, column, form=form, with_labels=False):
        yield one.text, one.entry


def _written(task: ClassifyingTask, text: str, entry: str, chances: dict[str, float], arguments: Arguments) -> str:
    given = task.chosen(chances)
    names = list(chances)[: arguments.top] if arguments.top else list(given)
    if not arguments.json:
        return "\t".join(f"{name}\t{chances[name]:.4f}" for name in names)
    shown = {name: round(chances[name], 6) for name in (names if arguments.top else chances)}
    found = {"labels": list(given)} if task.classes.multi else {"label": given[0]}
    before = json.loads(entry) if entry else {"text": text}
    return json.dumps({**before, **found, "probabilities": shown}, ensure_ascii=False)
