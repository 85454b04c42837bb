"""Reading and writing of word vectors in the text formats of word2vec and GloVe.

A line is a word and its numbers, separated by spaces. So that any token can be such a word, some parts are escaped:
white space, control characters, U+FEFF and halves of surrogate pairs are written by their code points, like `<U+0020>`,
and the empty word is written as `<U+>`. If a word itself contains such a sequence, the sequence's `<` is written as
`<U+003C>`. All other words are written unchanged. Reading undoes exactly these escapes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data.lines import open_lines, read_json, split_blanks
from unrolled.errors import DataError

_ESCAPE = re.compile(r"<U\+([0-9A-F]{4,6})>")
_EMPTY = "<U+>"
_ADVICE = "; word2vec's binary form is not text in UTF-8: write the text form first"


@dataclass(frozen=True)
class WordVectors:
    """Distinct words and their vectors `values [N, width]`, float32, in the same order."""

    words: tuple[str, ...]
    values: np.ndarray

    @property
    def width(self) -> int:
        return int(self.values.shape[1])


def read_vectors(path: str | Path, only: Container[str] | None = None) -> WordVectors:
    """Read the vectors of a file: of all its words, or only of the words in `only`.

    The format is one of these, plain or gzip: GloVe's text format, with a word and its numbers in each line; word2vec's
    text format, which has an additional first line with two counts; or a JSON object of lists (`.json`). Numbers are
    separated by tabs or spaces. If a word occurs twice, its first vector counts.
    Raises DataError, with the line number, if the file has none of these formats.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    width = 0
    for where, word, numbers in _json_entries(path) if ".json" in path.suffixes[-2:] else _text_entries(path):
        width = width or len(numbers)
        if len(numbers) != width or not width:
            raise DataError(f"{path}:{where}: {len(numbers)} numbers, but {width} in the entries before")
        if word not in words and (only is None or word in only):
            words[word] = len(rows)
            rows.append(_row(numbers, f"{path}:{where}"))
    if not rows:
        raise DataError(f"{path}: holds no vector" + (" of a word in the vocabulary" if only is not None else ""))
    return WordVectors(tuple(words), np.stack(rows))


def _row(numbers: Sequence[Any], where: str) -> np.ndarray:
    try:
        row = np.array(numbers, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: not word vectors as text or JSON ({error})") from error
    if row.ndim != 1 or not np.isfinite(row).all():
        raise DataError(f"{where}: not all numbers are finite")
    return row


def _text_entries(path: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    width, stated, count = 0, None, 0
    for number, line in enumerate(open_lines(path, _ADVICE), 1):
        parts = split_blanks(line)
        if not parts:
            continue
        if not width:
            if len(parts) == 2 and all(part.isdecimal() for part in parts):
                stated, width = int(parts[0]), int(parts[1])
                continue
            # A line that begins with a space and holds only numbers is that of the empty word.
            width = len(parts) if line[0] in " \t" and _is_number(parts[0]) else len(parts) - 1
        word, numbers = _split(line, parts, width)
        if width < 1 or word is None:
            raise DataError(f"{path}:{number}: {len(parts) - 1} numbers, but {width} are expected")
        count += 1
        yield str(number), _unescaped(word), numbers
    if stated not in (None, count):
        raise DataError(f"{path}: its first line states {stated:,} words, but it has {count:,}")


def _split(line: str, parts: list[str], width: int) -> tuple[str | None, list[str]]:
    """Return the word, or None if there is none, and its numbers, which are the last `width` parts."""
    if len(parts) == width + 1:
        return parts[0], parts[1:]
    if len(parts) > width:  # a word may contain spaces
        return re.split(rf"(?:[ \t]+[^ \t]+){{{width}}}[ \t]*$", line)[0].lstrip(" \t"), parts[-width:]
    return ("" if len(parts) == width and line[0] in " \t" else None), parts[max(0, len(parts) - width) :]


def _is_number(part: str) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _json_entries(path: Path) -> Iterator[tuple[str, str, Sequence[Any]]]:
    stored = read_json(path, of_pairs=tuple)
    if not isinstance(stored, tuple):
        raise DataError(f"{path}: expected an object of lists of numbers by word")
    for word, numbers in stored:
        if not isinstance(numbers, list):
            raise DataError(f"{path}:{word!r}: not word vectors as text or JSON: expected a list of numbers")
        yield repr(word), word, numbers


def write_vectors(path: Path, words: Sequence[str], values: np.ndarray, header: bool = True) -> None:
    """Write vectors as text: in word2vec's format with a `header`, in GloVe's without.

    `read_vectors` returns the same words and the same float32 `values [N, width]`.
    Raises DataError if two words are equal or a value is not finite, because these could not be read back.
    """
    word, times = Counter(words).most_common(1)[0] if words else ("", 0)
    if times > 1:
        raise DataError(f"{path}: {times} vectors are of the same word, {word!r}")
    with np.errstate(over="ignore"):  # an overflow is reported below, with the word
        values = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(values).all(1)
    if not finite.all():
        raise DataError(f"{path}: the vector of {words[int(finite.argmin())]!r} is not all finite numbers")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if header:
            file.write(f"{len(words)} {values.shape[1]}\n")
        for word, row in zip(words, values, strict=True):
            # Numbers have a decimal point. Without it, a numeric word with one number would look like a header.
            file.write(f"{_escaped(word)} {' '.join(map(str, row))}\n")


def _must_escape(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cs") or character == "\ufeff"


def _escape_of(character: str) -> str:
    return f"<U+{ord(character):04X}>"


def _escaped(word: str) -> str:
    if not word:
        return _EMPTY
    if word == _EMPTY:
        return _escape_of("<") + word[1:]
    if "<U+" in word:
        word = _ESCAPE.sub(lambda found: found[0] if _meant(found[0]) is None else _escape_of("<") + found[0][1:], word)
    return "".join(_escape_of(one) if _must_escape(one) else one for one in word)


def _unescaped(word: str) -> str:
    if word == _EMPTY:
        return ""
    if "<U+" not in word:
        return word
    return _ESCAPE.sub(lambda found: found[0] if (meant := _meant(found[0])) is None else meant, word)


def _meant(escape: str) -> str | None:
    """Return the character that `escape` stands for, or None if `write_vectors` would not write this escape."""
    point = int(escape[3:-1], 16)
    character = chr(point) if point <= 0x10FFFF else ""
    fits = character and escape == _escape_of(character) and (character == "<" or _must_escape(character))
    return character if fits else None
