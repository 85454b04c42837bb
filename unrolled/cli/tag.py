"""`unrolled tag RUN [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import open_lines
from unrolled.data.tagged import TaggedSentence, read_tagged, retagged, write_tagged
from unrolled.errors import ConfigurationError
from unrolled.tasks import open_task

if TYPE_CHECKING:
    from unrolled.tasks.tagging import TaggingTask

#: Sentences that are read before the first is tagged, from a file; on a terminal each line is answered at once.
_BLOCK = 256


@dataclass(frozen=True)
class Arguments:
    """Tag the words of a text, a sentence per line, or of a file of columns.

    Text is cut into words and punctuation marks. By default the output is a word, a tab and a tag per line, and an
    empty line after each sentence.
    """

    run: Annotated[str, Positional, arg(metavar="RUN")]
    """Run directory."""
    file: Annotated[str, Positional, arg(metavar="FILE")] = "-"
    """Text, or sentences in columns, plain or gzip; -: standard input."""
    format: Literal["", "text", "words", "conll", "conllu", "jsonl"] = ""
    """What FILE holds: text; words, with spaces between; or columns or JSON, whose tags are not read (by the name)."""
    to: Literal["", "conll", "conllu", "jsonl", "inline"] = ""
    """Form of the output; inline: word/TAG with spaces between (as FILE, and columns for text)."""
    column: str = ""
    """Column of CoNLL-U to write the tags to (as in training, or upos)."""
    marginals: bool = False
    """Add the probability of each tag as a third column."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = field(default=False)


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    form = arguments.format or _form_of(arguments.file)
    to = arguments.to or (form if form in ("conllu", "jsonl") else "conll")
    if arguments.marginals and to != "conll":
        raise ConfigurationError("--marginals needs --to conll", setting="marginals")
    from unrolled.tasks.tagging import TaggingTask

    task = open_task(arguments.run, arguments.device, arguments.checkpoint, TaggingTask, trust=arguments.trust)
    column = arguments.column or (task.config.sentences.column if to == "conllu" else "")
    block = 1 if arguments.file == "-" and sys.stdin is not None and sys.stdin.isatty() else _BLOCK
    for sentences in _in_blocks(_read(arguments.file, form), block):
        for sentence, tags in zip(sentences, task.tag(sentences), strict=True):
            sys.stdout.write(_written(task, retagged(sentence, tags), to, column, arguments.marginals))
        sys.stdout.flush()
    return 0


def _form_of(file: str) -> str:
    suffix = Path(file.removesuffix(".gz")).suffix.lower()
    known = {".conllu": "conllu", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll", ".tsv": "conll"}
    return known.get(suffix, "text")


def _read(file: str, form: str) -> Iterator[TaggedSentence]:
    if form not in ("text", "words"):
        yield from read_tagged(file, form=form, with_tags=False)
        return
    from unrolled.data.words import bare_words

    for line in open_lines(file):
        words = bare_words(line) if form == "text" else line.split()
        if words:
            yield TaggedSentence(tuple(words))


def _in_blocks(sentences: Iterator[TaggedSentence], size: int) -> Iterator[list[TaggedSentence]]:
    block: list[TaggedSentence] = []
    for sentence in sentences:
        block.append(sentence)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _written(task: TaggingTask, sentence: TaggedSentence, to: str, column: str, marginals: bool) -> str:
    pairs = zip(sentence.words, sentence.tags, strict=True)
    if to == "inline":
        return " ".join(f"{word}/{tag}" for word, tag in pairs) + "\n"
    if marginals:
        chances = task.marginals(sentence.words)
        lines = [f"{word}\t{tag}\t{each[tag]:.4f}\n" for (word, tag), each in zip(pairs, chances, strict=True)]
        return "".join(lines) + "\n"
    return write_tagged(sentence, to, column)
