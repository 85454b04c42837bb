"""Sentences whose words have a tag each: CoNLL columns, CoNLL-U and JSON lines, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unrolled.data.lines import json_lines, open_lines, readable, split_blanks
from unrolled.errors import DataError

#: The formats; the empty name stands for what the file's name says.
Format = Literal["", "conll", "conllu", "jsonl"]
#: The columns of CoNLL-U, in their order (universaldependencies.org/format.html).
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
#: A line that separates documents in the data of CoNLL-2003.
_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class TaggedSentence:
    """The words of a sentence and their tags, as many as words, or none if the file has no tags.

    lines: the lines of the sentence in CoNLL-U. entry: its line in JSON. They let it be written again with other tags.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    entry: str = ""


def format_of(path: str | Path, other: str = "conll") -> str:
    """Return the format that a file's name stands for, or `other` if the name says nothing."""
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    known = {".conllu": "conllu", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll", ".tsv": "conll"}
    return known.get(suffix, other)


def read_tagged(
    path: str | Path, column: str = "", *, form: str = "", with_tags: bool = True
) -> Iterator[TaggedSentence]:
    """Iterate over the sentences of a file, plain or gzip; "-" is standard input.

    column: the column of the tags. In CoNLL columns its number, from 1, or a negative one from the end (-1, the last).
        In CoNLL-U its name or number ("upos"). In JSON lines the key of the tags ("tags"); the words are under "words".
    form: "conll", "conllu" or "jsonl"; by default what the name says.
    with_tags: whether the tags are read.

    Raises DataError, with the line, if a line has another number of columns than those before it, or lacks the column.
    """
    form = form or format_of(path)
    if form == "jsonl":
        yield from _read_json(path, column or "tags", with_tags)
        return
    where = _column_number(path, form, column)
    read = _read_block_of_conllu if form == "conllu" else _read_block_of_columns
    state = _Columns(path, where, with_tags)
    for number, block in _blocks(path):
        sentence = read(state, number, block)
        if sentence.words:
            yield sentence


@dataclass
class _Columns:
    """A file of columns: where its tags are, and how many columns its first line has."""

    path: str | Path
    column: int
    with_tags: bool
    width: int = 0

    def tag(self, number: int, parts: Sequence[str]) -> list[str]:
        """Return the tag of a line, in a list that is empty if tags are not read."""
        self.width = self.width or len(parts)
        if len(parts) != self.width:
            columns = "1 column" if len(parts) == 1 else f"{len(parts)} columns"
            raise DataError(f"{self.path}: line {number:,} has {columns}, the lines before it have {self.width}")
        if not self.with_tags:
            return []
        place = self.column if self.column >= 0 else len(parts) + self.column
        if not 0 < place < len(parts):
            raise DataError(
                f"{self.path}: line {number:,} has no column of tags next to the word ({len(parts)} in all); name it "
                "with `column`",
                setting="column",
            )
        if not parts[place]:
            raise DataError(f"{self.path}: line {number:,} has an empty tag")
        return [parts[place]]


def _column_number(path: str | Path, form: str, column: str) -> int:
    """Return the index of the column of tags."""
    if form == "conllu" and (not column or column in CONLLU_COLUMNS):
        return CONLLU_COLUMNS.index(column or "upos")
    try:
        number = int(column or -1)
    except ValueError:
        number = 0
    if number == 0:
        known = f"one of {', '.join(CONLLU_COLUMNS)}" if form == "conllu" else "a number from 1, or -1 for the last"
        raise DataError(f"`column` {column!r}: there is no such column in {path}: it must be {known}", setting="column")
    return number - 1 if number > 0 else number


def _blocks(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Iterate over the lines between empty lines, with the number of the first."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(open_lines(path), 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _read_block_of_columns(file: _Columns, first: int, block: list[str]) -> TaggedSentence:
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(block, first):
        if not line.startswith(_DOCUMENT):
            parts = line.split("\t") if "\t" in line else split_blanks(line)
            tags += file.tag(number, parts)
            words.append(parts[0])
    return TaggedSentence(tuple(words), tuple(tags))


def _read_block_of_conllu(file: _Columns, first: int, block: list[str]) -> TaggedSentence:
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(block, first):
        if line.startswith("#"):
            continue
        parts = line.split("\t")
        if len(parts) != len(CONLLU_COLUMNS):
            raise DataError(f"{file.path}: line {number:,} has {len(parts)} columns; CoNLL-U has 10, between tabs")
        if is_word(parts[0]):
            tags += file.tag(number, parts)
            words.append(parts[1])
    return TaggedSentence(tuple(words), tuple(tags), tuple(block))


def is_word(identifier: str) -> bool:
    """Return whether a CoNLL-U line is a word: ranges (`1-2`) and empty nodes (`1.1`) are not."""
    return "-" not in identifier and "." not in identifier


def _read_json(path: str | Path, key: str, with_tags: bool) -> Iterator[TaggedSentence]:
    for number, line, entry in json_lines(path):
        words = _strings(path, number, entry, "words")
        tags = _strings(path, number, entry, key) if with_tags else ()
        if with_tags and len(tags) != len(words):
            raise DataError(f"{path}: line {number:,} has {len(words)} words and {len(tags)} {key}")
        if "" in words or "" in tags:
            raise DataError(f"{path}: line {number:,} has an empty {'word' if '' in words else 'tag'}")
        if words or not with_tags:  # an output line for each line of input
            yield TaggedSentence(words, tags, entry=line)


def _strings(path: str | Path, number: int, entry: Any, key: str) -> tuple[str, ...]:
    values = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: line {number:,} has no list of strings {key!r}")
    if any(readable(value) != value for value in values):
        raise DataError(f"{path}: line {number:,} has half a surrogate pair, which is not text")
    return tuple(values)


def write_tagged(sentence: TaggedSentence, form: str, column: str = "") -> str:
    """Return a sentence as "jsonl", "conll" or "conllu", with a line end, and an empty line after columns.

    column: for CoNLL-U and JSON, as in `read_tagged`. A sentence keeps the other columns and comments, or the other
        keys, with which it was read.
    """
    if form == "jsonl":
        entry = json.loads(sentence.entry) if sentence.entry else {"words": sentence.words}
        return json.dumps({**entry, column or "tags": sentence.tags}, ensure_ascii=False) + "\n"
    if form == "conll":
        pairs = zip(sentence.words, sentence.tags, strict=True)
        return "".join(f"{in_one_column(word)}\t{tag}\n" for word, tag in pairs) + "\n"
    place, tags = _column_number("CoNLL-U", form, column), iter(sentence.tags)
    if not 2 <= place < len(CONLLU_COLUMNS):
        raise DataError(f"`column` {column!r}: tags cannot be written there", setting="column")
    lines = []
    for line in sentence.lines or _plain_conllu(sentence.words):
        parts = line.split("\t")
        if not line.startswith("#") and is_word(parts[0]):
            parts[place] = next(tags)
        lines.append("\t".join(parts) + "\n")
    return "".join(lines) + "\n"


def _plain_conllu(words: Sequence[str]) -> list[str]:
    return ["\t".join([str(number), in_one_column(word), *["_"] * 8]) for number, word in enumerate(words, 1)]


def in_one_column(word: str) -> str:
    """Return a word from JSON without the characters that end a column or a line."""
    return word.replace("\t", " ").replace("\n", " ")


def retagged(sentence: TaggedSentence, tags: Sequence[str]) -> TaggedSentence:
    """Return a sentence with other tags."""
    return replace(sentence, tags=tuple(tags))
