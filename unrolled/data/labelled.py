"""Texts that have a class each, or several: JSON lines, CSV, TSV, or a folder with a sub-folder for every class."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unrolled.data.lines import json_lines, open_lines, readable
from unrolled.errors import DataError

#: The formats; the empty name stands for what the file's name says.
Format = Literal["", "jsonl", "csv", "tsv", "folder"]
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}


@dataclass(frozen=True)
class LabelledText:
    """A text and its labels: one, or any number if `multi`, or none if they were not asked for.

    where: its place, for messages, such as "line 7". entry: its line in JSON, if it comes from there.
    """

    text: str
    labels: tuple[str, ...] = ()
    multi: bool = False
    where: str = ""
    entry: str = ""


@dataclass
class LabelledTexts:
    """The texts of a file or folder that are not empty, whether they have lists of labels, and notes for the user."""

    texts: list[LabelledText] = field(default_factory=list)
    multi: bool = False
    notes: list[str] = field(default_factory=list)


def format_of(path: str | Path, other: str = "") -> str:
    """Return the format that a file's name, or a folder, stands for, or `other` if there is none."""
    if path != "-" and Path(path).is_dir():
        return "folder"
    return _SUFFIXES.get(Path(str(path).removesuffix(".gz")).suffix.lower(), other)


def read_labelled(path: str | Path, text: str = "text", label: str = "label", *, form: str = "") -> LabelledTexts:
    """Read all texts of a file or folder. Empty ones are left out and counted in the notes.

    Raises DataError as `iterate_labelled` does, and if there is no text or some entries alone have lists of labels.
    """
    found, empty = LabelledTexts(), []
    for one in iterate_labelled(path, text, label, form=form):
        if found.texts and one.multi != found.multi:
            kind, before = ("a list of labels", "one label") if one.multi else ("one label", "a list of labels")
            raise DataError(f"{path}: {one.where} has {kind}, the texts before it have {before} each")
        found.multi = one.multi
        if one.text.strip():
            found.texts.append(one)
        else:
            empty.append(one.where)
    if empty:
        which = "1 text is" if len(empty) == 1 else f"{len(empty):,} texts are"
        found.notes.append(f"{path}: {which} empty and left out, first {empty[0]}")
    if not found.texts:
        raise DataError(f"{path}: there are no texts in it")
    return found


def iterate_labelled(
    path: str | Path, text: str = "text", label: str = "label", *, form: str = "", with_labels: bool = True
) -> Iterator[LabelledText]:
    """Iterate over the texts of a file, plain or gzip, or of a folder; "-" is standard input.

    text, label: the columns of a table, or the keys in JSON lines. A label in JSON is a string, a whole number or a
        truth value, or a list of strings if a text may have several labels.
    form: "jsonl", "csv", "tsv" or "folder"; by default what the name says. A TSV file has no quotes. A folder has a
        sub-folder of text files for every class.

    Raises DataError, with the line, if a column is missing, a row has another number of columns than the header, an
    entry has no label, or a file is not UTF-8.
    """
    form = form or format_of(path)
    if form == "folder":
        yield from _read_folder(Path(path))
    elif form == "jsonl":
        yield from _read_json(path, text, label, with_labels)
    elif form in ("csv", "tsv"):
        yield from _read_table(path, form, text, label, with_labels)
    else:
        said = f"{path}: its name ends in none of .jsonl, .csv and .tsv; name its `format`"
        if path != "-" and not Path(path).exists():
            said = f"{path}: no such file or folder"
        raise DataError(said, setting="format")


def _read_json(path: str | Path, text: str, label: str, with_labels: bool) -> Iterator[LabelledText]:
    for number, line, entry in json_lines(path):
        where = f"line {number:,}"
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {where} is not a JSON object")
        for key, setting in ((text, "text_column"), (label, "label_column"))[: 2 if with_labels else 1]:
            if key not in entry:
                raise _missing(f"{path}: {where}", key, list(entry), setting)
        if not isinstance(entry[text], str):
            raise DataError(f"{path}: {where}: {text!r} is not a string")
        labels = _labels_in(entry[label], f"{path}: {where}", label) if with_labels else ()
        multi = with_labels and isinstance(entry[label], list)
        if any(readable(each) != each for each in (entry[text], *labels)):
            raise DataError(f"{path}: {where} has half a surrogate pair, which is not text")
        yield LabelledText(entry[text], labels, multi, where, line)


def _labels_in(value: Any, where: str, key: str) -> tuple[str, ...]:
    """Return the labels in a value from JSON."""
    if isinstance(value, bool | int):
        value = json.dumps(value)
    labels = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in labels):
        raise DataError(f"{where}: {key!r} is {json.dumps(value)[:40]}, not a label or a list of labels")
    if not all(map(str.strip, labels)):
        raise DataError(f"{where} has an empty label")
    return tuple(dict.fromkeys(labels))


def _read_table(path: str | Path, form: str, text: str, label: str, with_labels: bool) -> Iterator[LabelledText]:
    lines = (line + "\n" for line in open_lines(path))
    if form == "tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        places = [_column(path, header, text, "text_column")]
        if with_labels:
            places.append(_column(path, header, label, "label_column"))
        begin = reader.line_num + 1
        for row in reader:
            where, begin = f"line {begin:,}", reader.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                columns = "1 column" if len(row) == 1 else f"{len(row)} columns"
                raise DataError(f"{path}: {where} has {columns}, the header has {len(header)}")
            found, *labels = (row[place] for place in places)
            if not all(map(str.strip, labels)):
                raise DataError(f"{path}: {where} has an empty label")
            yield LabelledText(found, tuple(labels), where=where)
    except csv.Error as error:
        advice = "a quote that is not closed, or a field that JSON lines would hold"
        raise DataError(f"{path}: line {reader.line_num:,} is not {form.upper()} ({error}): {advice}") from error


def _column(path: str | Path, header: Sequence[str], name: str, setting: str) -> int:
    """Return the index of a column."""
    if header.count(name) > 1:
        raise DataError(f"{path}: there are {header.count(name)} columns {name!r}; rename all but one")
    if name not in header:
        raise _missing(f"{path}", name, header, setting)
    return header.index(name)


def _missing(where: str, name: str, known: Sequence[str], setting: str) -> DataError:
    there = ", ".join(map(repr, known[:20])) or "none"
    return DataError(f"{where} has no column {name!r} but {there}; name it with `{setting}`", setting=setting)


def _read_folder(path: Path) -> Iterator[LabelledText]:
    """Iterate over the files of a folder's sub-folders, whose names are the labels. Hidden files are left out."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not folders:
        raise DataError(f"{path}: has no sub-folders; there must be one with text files for every class")
    for folder in folders:
        inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        if any(each.is_dir() for each in inside):
            raise DataError(f"{folder}: holds folders; name a folder whose sub-folders hold the texts of a class each")
        for file in inside:
            yield LabelledText("\n".join(open_lines(file)), (folder.name,), where=f"{folder.name}/{file.name}")


def repeats(train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> list[str]:
    """Return notes on texts of `dev` that are also in training, and on texts of training with different labels."""
    labels: dict[str, set[tuple[str, ...]]] = {}
    for one in train:
        labels.setdefault(one.text, set()).add(tuple(sorted(one.labels)))
    notes = []
    known = sum(one.text in labels for one in dev)
    if known:
        which = "1 text of the dev part is" if known == 1 else f"{known:,} texts of the dev part are"
        notes.append(f"{which} also in training, so the score is too good")
    torn = sum(len(found) > 1 for found in labels.values())
    if torn:
        which = "1 text occurs" if torn == 1 else f"{torn:,} texts occur"
        notes.append(f"{which} in training with different labels")
    return notes


def count_labels(texts: Sequence[LabelledText]) -> Counter[str]:
    """Return how many texts have each label."""
    return Counter(label for one in texts for label in one.labels)
