"""Word vectors in the text formats of word2vec and GloVe: reading and writing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unrolled.errors import DataError


@dataclass(frozen=True)
class WordVectors:
    """Words, each once, and their vectors `values [N, width]`, float32, in the same order."""

    words: tuple[str, ...]
    values: np.ndarray

    @property
    def width(self) -> int:
        return self.values.shape[1]


def read_vectors(path: str | Path, only: set[str] | None = None) -> WordVectors:
    """The vectors of a file, of all its words or of those in `only`.

    The text format of GloVe, a word and its numbers a line; that of word2vec, which has a first line with two counts,
    both by gzip too (`.gz`); or a JSON object of lists. DataError, with the line, where it is none of these. Of a word
    that comes twice the first counts.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    width = 0
    try:
        entries = _json_entries(path) if path.suffix == ".json" else _text_entries(path)
        for where, word, numbers in entries:
            width = width or len(numbers)
            if len(numbers) != width or not width:
                raise DataError(f"{path}:{where}: {len(numbers)} numbers, and {width} before")
            if word not in words and (only is None or word in only):
                row = np.array(numbers, dtype=np.float32)
                if not np.isfinite(row).all():
                    raise DataError(f"{path}:{where}: not all numbers are finite")
                words[word] = len(rows)
                rows.append(row)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8; of word2vec's binary form, write the text form first") from error
    except (EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not word vectors as text or JSON ({error})") from error
    if not rows:
        raise DataError(f"{path}: holds no vector" + (" of a word that is known here" if only is not None else ""))
    return WordVectors(tuple(words), np.stack(rows))


def _text_entries(path: Path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        width, told, number = 0, None, 0
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\r\n ").split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
                told, width = int(parts[0]), int(parts[1])
                continue
            width = width or len(parts) - 1
            if width < 1 or len(parts) <= width:
                raise DataError(f"{path}:{number}: {len(parts) - 1} numbers, and {width} are expected")
            # A word may hold spaces: its numbers are the last ones.
            yield str(number), " ".join(parts[:-width]), parts[-width:]
        if told not in (None, number - 1):
            raise DataError(f"{path}: its first line tells of {told:,} words, and {number - 1:,} are there")


def _json_entries(path: Path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise DataError(f"{path}: expected an object of lists of numbers by word")
    for word, numbers in stored.items():
        yield repr(word), word, numbers


def write_vectors(path: Path, words: Sequence[str], values: np.ndarray, header: bool = True) -> None:
    """Write as text: with `header` as word2vec does, without as GloVe does. White space in a word becomes `_`."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if header:
            file.write(f"{len(words)} {values.shape[1]}\n")
        for word, row in zip(words, values, strict=True):
            shown = "".join("_" if character.isspace() else character for character in word)
            file.write(f"{shown} {' '.join(f'{number:.6g}' for number in row)}\n")
