"""`unrolled tag RUN [FILE]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unrolled.cli.flags import Trust
from unrolled.cli.parsing import parse
from unrolled.data.lines import in_blocks, open_lines
from unrolled.data.tagged import TaggedSentence, format_of, in_one_column, read_tagged, retagged, write_tagged
from unrolled.errors import ConfigurationError
from unrolled.settings import require
from unrolled.tasks import open_task

if TYPE_CHECKING:
    from unrolled.tasks.tagging import TagSequence

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
    """Text, or sentences in another format, plain or gzip; -: standard input."""
    format: Literal["", "text", "words", "conll", "conllu", "jsonl"] = ""
    """Format of FILE; words: with spaces between. Tags in it are not read (by the name's ending, or text)."""
    to: Literal["", "conll", "conllu", "jsonl", "inline"] = ""
    """Format of the output; inline: word/TAG with spaces between (as FILE, or conll for text)."""
    column: str = ""
    """Column of CoNLL-U, or key of JSON, to write the tags to (as in training, or upos and tags)."""
    marginals: bool = False
    """Add the probability of each tag that is written, as a third column."""
    best: int = 0
    """Write this many sequences of tags per sentence, the most probable first, each after a comment, or with a key in
    JSON, that gives its log-probability; 0: only the best, without it."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to use."""
    device: str = "cpu"
    """cpu, cuda, mps."""
    trust: Trust = False


def main(words: Sequence[str], prog: str) -> int:
    arguments = parse(Arguments, words, prog)
    form = arguments.format or format_of(arguments.file, "text")
    to = arguments.to or (form if form in ("conllu", "jsonl") else "conll")
    if arguments.marginals and to != "conll":
        raise ConfigurationError("--marginals needs --to conll", setting="marginals")
    if arguments.column and to not in ("conllu", "jsonl"):
        raise ConfigurationError("--column needs --to conllu or --to jsonl", setting="column")
    if arguments.best and (to not in ("conll", "jsonl") or arguments.marginals):
        raise ConfigurationError("--best needs --to conll or --to jsonl, and goes without --marginals", setting="best")
    from unrolled.tasks.tagging import MOST_SEQUENCES, TaggingTask

    require(0 <= arguments.best <= MOST_SEQUENCES, "best", f"from 0 to {MOST_SEQUENCES:,}", arguments.best)
    task = open_task(arguments.run, arguments.device, arguments.checkpoint, TaggingTask, trust=arguments.trust)
    _, column = task.form_and_column("", to, arguments.column)
    block = 1 if arguments.file == "-" and sys.stdin is not None and sys.stdin.isatty() else _BLOCK
    before, unruly = 0, list[str]()
    for sentences in in_blocks(_read(arguments.file, form), block):
        unruly += [f"number {before + k + 1:,}" for k in task.unruly(sentences)]
        before += len(sentences)
        if arguments.best:
            for sentence, found in zip(sentences, task.best(sentences, arguments.best), strict=True):
                sys.stdout.write(_best(sentence, found, to, column))
        else:
            chances = task.all_marginals(sentences) if arguments.marginals else [None] * len(sentences)
            for sentence, tags, chance in zip(sentences, task.tag(sentences), chances, strict=True):
                sys.stdout.write(_written(retagged(sentence, tags), to, column, chance))
        sys.stdout.flush()
    if unruly:
        where = "standard input" if arguments.file == "-" else arguments.file
        print(f"unrolled: note: {task.unruly_note(unruly, where)}", file=sys.stderr)
    return 0


def _read(file: str, form: str) -> Iterator[TaggedSentence]:
    if form not in ("text", "words"):
        yield from read_tagged(file, form=form, with_tags=False)
        return
    from unrolled.data.words import bare_words

    for line in open_lines(file):
        yield TaggedSentence(tuple(bare_words(line) if form == "text" else line.split()))


def _written(sentence: TaggedSentence, to: str, column: str, chances: Sequence[dict[str, float]] | None) -> str:
    if not sentence.words and to != "jsonl":  # an empty line of text, which separates nothing in columns
        return "\n" if to == "inline" else ""
    pairs = zip(sentence.words, sentence.tags, strict=True)
    if to == "inline":
        return " ".join(f"{in_one_column(word)}/{tag}" for word, tag in pairs) + "\n"
    if chances is not None:
        rows = zip(pairs, chances, strict=True)
        return "".join(f"{in_one_column(word)}\t{tag}\t{each[tag]:.4f}\n" for (word, tag), each in rows) + "\n"
    return write_tagged(sentence, to, column)


def _best(sentence: TaggedSentence, found: Sequence[TagSequence], to: str, column: str) -> str:
    """Return the best sequences of tags of a sentence."""
    if to == "jsonl":
        entry = json.loads(write_tagged(retagged(sentence, found[0].tags), to, column))
        entry["best"] = [{"tags": list(one.tags), "log_prob": round(one.log_prob, 6)} for one in found]
        return json.dumps(entry, ensure_ascii=False) + "\n"
    if not sentence.words:
        return ""
    return "".join(
        f"# {rank} of {len(found)}, log-probability {one.log_prob:.4f}\n"
        + write_tagged(retagged(sentence, one.tags), to, column)
        for rank, one in enumerate(found, 1)
    )
