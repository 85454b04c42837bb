"""Recordings and pictures of lines with their transcripts: lists, folders and arrays, as people have them."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unrolled.data.arrays import read_array, read_arrays
from unrolled.data.audio import AUDIO_SUFFIXES
from unrolled.data.lines import json_lines, open_lines, readable
from unrolled.data.pictures import IMAGE_SUFFIXES
from unrolled.errors import ConfigurationError, DataError

Kind = Literal["audio", "pictures", "features"]

#: The names of columns and keys that hold a file and its transcript, the usual ones first.
FILE_KEYS = ("file", "path", "audio", "image", "filename", "file_name", "audio_filepath", "wav", "wav_filename")
TEXT_KEYS = ("text", "transcript", "transcription", "sentence", "label")
#: The endings of the files with the transcript of a file of the same name.
_TEXT_SUFFIXES = (".gt.txt", ".txt")


@dataclass(frozen=True)
class Item:
    """A recording, a picture or an array of features, and its transcript, which may be empty.

    source: the file, or the features themselves, `[T, D]`. name: how the user knows it.
    """

    name: str
    text: str
    source: Path | np.ndarray

    @property
    def kind(self) -> Kind:
        """What the item is, as its file's name says; DataError if the name says nothing."""
        if isinstance(self.source, np.ndarray):
            return "features"
        return kind_of(self.source)


def kind_of(path: Path) -> Kind:
    """Return what a file is, as its name says; DataError if the name says nothing."""
    suffix = path.suffix.lower()
    kinds: dict[Kind, tuple[str, ...]] = {"audio": AUDIO_SUFFIXES, "pictures": IMAGE_SUFFIXES, "features": (".npy",)}
    for kind, suffixes in kinds.items():
        if suffix in suffixes:
            return kind
    known = ", ".join((*AUDIO_SUFFIXES[:3], *IMAGE_SUFFIXES[:3], ".npy"))
    raise DataError(f"{path}: neither a recording nor a picture nor features by its name ({known} and others)")


def read_items(
    path: str | Path,
    file_column: str = "",
    text_column: str = "",
    text_keys: Sequence[str] = TEXT_KEYS,
    alone: list[Path] | None = None,
) -> list[Item]:
    """Return the items of a folder, a list or an archive of features.

    A folder holds files and next to each its transcript: `a.wav` and `a.txt`, `a.png` and `a.gt.txt`. A list is JSON
    lines, CSV or TSV, plain or gzip; its files are relative to it. In a table without a header the file is in the first
    column and the transcript in the second. An archive `.npz` holds `frames [N, D]`, `offsets [items + 1]`, `text`, and
    maybe `names`. Texts are put into Unicode's form NFC, with single spaces.
    text_keys: the usual names of the column of transcripts. alone: collects the files of a folder that have no
        transcript.

    Raises DataError, with the line, if there is no such column, no item, or an item twice.
    """
    path = Path(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_dir():
        items = list(_in_folder(path, [] if alone is None else alone))
    elif suffix == ".npz":
        items = _in_archive(path)
    elif suffix in (".jsonl", ".ndjson", ".json"):
        items = list(_in_json(path, file_column, text_column, text_keys))
    elif suffix in (*AUDIO_SUFFIXES, *IMAGE_SUFFIXES, ".npy"):
        raise DataError(f"{path}: a single file has no transcript; name a folder, or a list of files and transcripts")
    else:
        items = list(_in_table(path, file_column, text_column, text_keys))
    if not items:
        raise DataError(f"{path}: there are no transcripts in it")
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise DataError(f"{path}: {item.name} is in it twice")
        seen.add(item.name)
    return items


def is_list(path: str | Path) -> bool:
    """Return whether `read_items` reads a path as a list, whose columns can be named."""
    suffix = Path(Path(path).name.removesuffix(".gz")).suffix.lower()
    return not Path(path).is_dir() and suffix != ".npz"


def plain_text(text: str) -> str:
    """Return a transcript in Unicode's form NFC, with single spaces and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", readable(text)).split())


def _in_folder(folder: Path, alone: list[Path]) -> Iterator[Item]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (*AUDIO_SUFFIXES, *IMAGE_SUFFIXES, ".npy") or path.name.startswith("."):
            continue
        for suffix in _TEXT_SUFFIXES:
            transcript = path.with_name(path.name.removesuffix(path.suffix) + suffix)
            if transcript.is_file():
                yield Item(str(path.relative_to(folder)), plain_text(" ".join(open_lines(transcript))), path)
                break
        else:
            if path.is_file():
                alone.append(path)


def _in_archive(path: Path) -> list[Item]:
    found = read_arrays(path)
    texts = found.get("text", found.get("texts"))
    if texts is None or "frames" not in found or "offsets" not in found:
        there = ", ".join(found) or "nothing"
        raise DataError(f"{path}: it must hold `frames`, `offsets` and `text`, and holds {there}")
    frames, offsets = found["frames"], found["offsets"]
    names = found.get("names", np.array([f"{k}" for k in range(texts.size)]))
    for name, strings in (("text", texts), ("names", names)):
        if strings.dtype.kind not in "UTiu":  # of bytes, str() would be "b'...'"
            raise DataError(f"{path}: `{name}` must be strings, got {strings.dtype}")
    if offsets.dtype.kind not in "iu":
        raise DataError(f"{path}: `offsets` must be whole numbers, got {offsets.dtype}")
    fits = frames.ndim == 2 and all(each.ndim == 1 for each in (offsets, texts, names))
    fits = fits and frames.shape[1] > 0 and len(offsets) == len(texts) + 1 == len(names) + 1
    offsets = offsets.astype(np.int64)  # differences of unsigned numbers are never below 0
    if not fits or (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > len(frames):
        raise DataError(
            f"{path}: `frames` {frames.shape}, `offsets` {offsets.shape} and `text` {texts.shape} do not fit together"
        )
    parts = (frames[int(first) : int(end)] for first, end in pairwise(offsets))
    return [
        Item(readable(str(name)), plain_text(str(text)), part)
        for name, text, part in zip(names, texts, parts, strict=True)
    ]


def _in_json(path: Path, file_column: str, text_column: str, text_keys: Sequence[str]) -> Iterator[Item]:
    for number, _, entry in json_lines(path):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: line {number:,} is no JSON object")
        where = f"line {number:,}"
        file = entry[column_of(path, where, list(entry), file_column, FILE_KEYS, "file_column")]
        text = entry[column_of(path, where, list(entry), text_column, text_keys, "text_column")]
        if not isinstance(file, str) or not isinstance(text, str):
            raise DataError(f"{path}: {where}: the file and its transcript must be strings")
        yield _listed(path, file, text)


def _in_table(path: Path, file_column: str, text_column: str, text_keys: Sequence[str]) -> Iterator[Item]:
    for file, text in read_table(path, file_column, text_column, text_keys):
        yield _listed(path, file, text)


def read_table(path: Path, file_column: str, text_column: str, text_keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Iterate over the files and the texts of a table, CSV or TSV.

    If no column is named and no header names the usual ones, the file is in the first column, the text in the second.
    Raises DataError, with the line, if there is no such column or a row does not fit the header.
    """
    lines = open_lines(path)
    first = next(lines, None)
    if first is None:
        return
    options: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if "\t" in first else {}
    read = csv.reader(chain([first], lines), strict=True, **options)
    rows = _rows(path, read)
    header = [name.strip() for name in next(rows)]
    if len(header) < 2:
        raise DataError(
            f"{path}: line 1 has one column; a file and its transcript must be separated by a tab or a comma"
        )
    if file_column or text_column or (set(header) & set(FILE_KEYS) and set(header) & set(text_keys)):
        at_file = header.index(column_of(path, "line 1", header, file_column, FILE_KEYS, "file_column"))
        at_text = header.index(column_of(path, "line 1", header, text_column, text_keys, "text_column"))
    else:
        at_file, at_text = 0, 1
        _check_first_row(path, header)
        yield header[0], header[1]
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(f"{path}: line {read.line_num:,} has {len(row)} columns, the first line has {len(header)}")
        yield row[at_file], row[at_text]


def _rows(path: Path, read: Any) -> Iterator[list[str]]:
    """Iterate over the rows of a table; DataError, with the line, where it is none."""
    try:
        yield from read
    except csv.Error as error:  # such as a quotation mark that nothing closes
        raise DataError(f"{path}: line {read.line_num:,} cannot be read as a table ({error})") from error


def _check_first_row(path: Path, row: Sequence[str]) -> None:
    """Raise DataError if the first row of a table without the usual header names no file."""
    item = _listed(path, row[0], row[1])
    try:
        kind_of(Path(row[0]))
    except DataError as error:
        raise DataError(
            f"{path}: line 1 is no header with `file` and `text`, and {item.name!r} is not the name of a recording, a "
            "picture or features; name the columns with `file_column` and `text_column`",
            setting=("file_column", "text_column"),
        ) from error


def column_of(path: Path, where: str, keys: Sequence[str], wanted: str, known: Sequence[str], setting: str) -> str:
    """Return the name of a column: the one that the user named, or the first usual one."""
    for name in [wanted] if wanted else known:
        if list(keys).count(name) > 1:
            raise DataError(f"{path}: {where} has two columns {name!r}")
        if name in keys:
            return name
    said = f"no {wanted!r}" if wanted else f"none of {', '.join(known[:4])}"
    raise DataError(f"{path}: {where} has {said}, only {', '.join(keys)}; name it with `{setting}`", setting=setting)


def _listed(path: Path, file: str, text: str) -> Item:
    if not file.strip():
        raise DataError(f"{path}: a line names no file")
    file = readable(file)
    return Item(file, plain_text(text), path.parent / file)


def split_by_group(names: Sequence[str], pattern: str, fraction: float, seed: int) -> np.ndarray:
    """Return which items are held out, `[N]` bool: about that fraction, and of each group all or none.

    pattern: a regular expression whose first group, found in a name, is its group, such as the speaker; empty: each
        item is a group of its own.
    Raises ConfigurationError if it is not an expression with a group, or a name does not match it.
    """
    try:
        compiled = re.compile(pattern or "(.*)", re.DOTALL)
    except re.error as error:
        raise ConfigurationError(
            f"`group` {pattern!r} is not a regular expression ({error})", setting="group"
        ) from error
    if not compiled.groups:
        said = f"`group` {pattern!r} must have a part in parentheses, which is the group: '_(.*)_'"
        raise ConfigurationError(said, setting="group")
    groups = []
    for name in names:
        found = compiled.search(name)
        if found is None or found[1] is None:
            raise DataError(f"{name}: `group` {pattern!r} does not match this name", setting="group")
        groups.append(found[1])
    if pattern and fraction and len(set(groups)) == 1:
        raise DataError(f"all items are of one group, {groups[0]!r}, so none can be held out", setting="group")
    order = sorted(set(groups))
    np.random.default_rng([seed, 11]).shuffle(order)
    held, count = set[str](), 0
    for group in order[:-1]:
        if count >= fraction * len(names):
            break
        held.add(group)
        count += groups.count(group) if pattern else 1
    return np.array([group in held for group in groups], bool)


def as_features(item: Item) -> np.ndarray:
    """Return the features of an item, `[T, D]`; DataError if they are not a matrix of finite numbers."""
    values: Any = item.source
    if isinstance(values, Path):
        values = read_array(values)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "fiu":
        raise DataError(f"{item.name}: features must be numbers [T, D], got {values.dtype} {list(values.shape)}")
    if not np.isfinite(values).all():
        raise DataError(f"{item.name}: some features are not finite numbers")
    return np.asarray(values)
