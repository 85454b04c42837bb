"""`unrolled classify RUN [TEXT...]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust, as_flags
from unrolled.cli.parsing import parse
from unrolled.data.labelled import format_of, iterate_labelled
from unrolled.data.lines import in_blocks, open_lines, readable
from unrolled.data.tagged import in_one_column
from unrolled.errors import ConfigurationError, DataError
from unrolled.settings import require
from unrolled.tasks.classifying_settings import AUDIO

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
    """Texts; none: those of --file. For a classifier of recordings: their files."""
    file: Annotated[str, arg(metavar="FILE")] = "-"
    """Texts, plain or gzip; -: standard input."""
    format: Literal["", "text", "jsonl", "csv", "tsv"] = ""
    """Format of FILE; text: one per line (by the name's ending, or text)."""
    text_column: str = ""
    """Column of the texts in a table, or their key in JSON (as in training)."""
    top: int = 0
    """Number of classes to show for each text, the most probable first (0: only those that it is given)."""
    words: bool = False
    """Show what each word adds to the most probable class: coloured text on a terminal, otherwise a line per word."""
    way: Literal["", "reading", "leaving-out"] = ""
    """How --words finds that: by the change of the class's log-odds as each word is read, or by leaving each word out
    (reading for models that pool the last state and read forwards; otherwise leaving-out)."""
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
    if arguments.way and not arguments.words:
        raise ConfigurationError("--way is about --words: give both", setting="way")
    from unrolled.tasks import open_task
    from unrolled.tasks.classifying import ClassifyingTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, ClassifyingTask, trust=arguments.trust)
    if task.config.texts.level == AUDIO:
        return _recordings(task, arguments)
    column = arguments.text_column or task.config.texts.text_column
    alone = arguments.file == "-" and sys.stdin is not None and sys.stdin.isatty()
    for some in in_blocks(_texts(arguments, column), 1 if alone else _BLOCK):
        for (text, entry), chances in zip(some, task.probabilities([text for text, _ in some]), strict=True):
            sys.stdout.write(_written(task, text, entry, chances, arguments) + "\n")
            if arguments.words and not arguments.json:
                _show_words(_changes(task, text, chances, arguments.way))
        sys.stdout.flush()
    return 0


def _recordings(task: ClassifyingTask, arguments: Arguments) -> int:
    """Classify the recordings that are named; 2 if one of them could not be read."""
    if not arguments.text:
        raise ConfigurationError("name the recordings to classify after RUN")
    if "" in arguments.text:
        raise ConfigurationError("a FILE is empty: name a recording")
    if arguments.words or arguments.file != "-" or arguments.format or arguments.text_column:
        raise ConfigurationError("--words, --file, --format and --text-column are for texts, not recordings")
    failed = 0
    for name in arguments.text:
        try:
            (chances,) = task.probabilities([name])
        except DataError as error:
            print(f"unrolled: error: {as_flags(error)}", file=sys.stderr)
            failed += 1
            continue
        line = _written(task, name, "", chances, arguments)
        print(line if arguments.json or len(arguments.text) == 1 else f"{name}\t{line}")
        sys.stdout.flush()
    return 2 if failed else 0


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
        return "\t".join(f"{in_one_column(name)}\t{chances[name]:.4f}" for name in names)
    shown = {name: round(chances[name], 6) for name in (names if arguments.top else chances)}
    found: dict[str, Any] = {"labels": list(given)} if task.classes.multi else {"label": given[0]}
    before = json.loads(entry) if entry else {"file" if task.config.texts.level == AUDIO else "text": text}
    if arguments.words:
        found["words"] = [[word, round(change, 4)] for word, change, _ in _changes(task, text, chances, arguments.way)]
    return json.dumps({**before, **found, "probabilities": shown}, ensure_ascii=False)


def _changes(task: ClassifyingTask, text: str, chances: dict[str, float], way: str) -> list[tuple[str, float, bool]]:
    """Return each word of a text, what it adds to the log-odds of the most probable class, and whether it is read."""
    from unrolled.analysis.attribution import attribute

    tokens, parts = task.parts(text)
    found = attribute(task.model, tokens, [part.tokens for part in parts], way)
    changes = found.changes[:, task.classes.names.index(next(iter(chances)))].tolist()
    return [(part.text, change, part.tokens > 0) for part, change in zip(parts, changes, strict=True)]


def _show_words(changes: Sequence[tuple[str, float, bool]]) -> None:
    """Print the words, coloured by what they add: green for the class, red against it, grey what is not read."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        for word, change, _ in changes:
            print(f"{in_one_column(word).strip()}\t{change:+.4f}")
        return
    most = max((abs(change) for _, change, _ in changes), default=0.0) or 1.0
    shown = Text()
    for word, change, read in changes:
        space = word[: len(word) - len(word.lstrip())]
        shown.append(space)
        shown.append(word[len(space) :], style=_style(change / most) if read else "bright_black")
    console.print(shown)


def _style(share: float) -> str:
    """Return the style of a word whose change is this share of the largest one: a pale or a strong background."""
    strength = abs(share)
    if strength < 0.05:
        return ""
    full = (40, 150, 80) if share > 0 else (215, 70, 55)
    red, green, blue = (round(255 - (255 - part) * strength) for part in full)
    return f"black on rgb({red},{green},{blue})"
