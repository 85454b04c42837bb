"""Reading of text in lines: UTF-8 with or without a byte order mark, plain or gzip.

A line ends at `\\n` or `\\r\\n` only, and not at U+2028, U+0085, a form feed or a lone `\\r`. So line numbers agree
with those of other tools. A byte order mark at the start of a file is skipped; elsewhere it is text.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from unrolled.errors import DataError

T = TypeVar("T")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_lines(name: str | Path, advice: str = "") -> Iterator[str]:
    """Yield the lines of a text file, or of standard input if `name` is "-", without their line ends.

    Raises DataError, with the line number, if the file cannot be read or is not UTF-8. `advice` is appended to the
    error about UTF-8.
    """
    number, source = 0, "standard input" if name == "-" else name
    try:
        with _open(name) as file:
            for line in _byte_lines(file, str(name)):
                number += 1
                yield line[: -2 if line.endswith(b"\r\n") else -1 if line.endswith(b"\n") else None].decode()
    except UnicodeDecodeError as error:
        where = f"(byte {error.start + 1:,} of the line)"
        raise DataError(f"{source}: line {number:,} is not UTF-8 text {where}{advice}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: cannot be read after line {number:,}: a damaged gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{source}: {error.strerror or error}") from error


def _open(name: str | Path) -> IO[bytes]:
    if name != "-":
        return Path(name).open("rb")
    if sys.stdin is None:
        raise DataError("standard input is closed: pipe text into it, or name a file")
    if sys.stdin.closed:
        raise DataError("standard input can be read only once: name a file for each further input")
    raw: IO[bytes] | None = getattr(sys.stdin, "buffer", None)
    if raw is not None:
        return raw
    with sys.stdin as replaced:  # a program has replaced standard input by a text stream
        return io.BytesIO(replaced.read().encode("utf-8", "surrogatepass"))


def _byte_lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Return the lines with their line ends, unpacked and without the byte order mark."""
    # Read a line, not a block: a user may be typing, and a pipe cannot be read twice.
    first = file.readline()
    if first.startswith(GZIP):  # UTF-8 text never begins with these bytes
        file = cast(IO[bytes], gzip.GzipFile(fileobj=cast(Any, _Rejoined(first, file))))
        first = file.readline()
    elif first and name.endswith(".gz"):
        raise DataError(f"{name}: cannot be read: it is called .gz, and is no gzip file; rename it")
    first = first.removeprefix(BYTE_ORDER_MARK)
    return chain([first], file) if first else iter(file)


class _Rejoined:
    """A stream that first returns the bytes `head`, which were already read from it."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        taken, self._head = (self._head[:size], self._head[size:]) if size >= 0 else (self._head, b"")
        return taken


def json_lines(name: str | Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the number, the text and the value of each line of JSON lines; blank lines are skipped.

    Raises DataError as `open_lines` does, and if a line is not JSON.
    """
    for number, line in enumerate(open_lines(name), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number:,} is not JSON ({error})") from error
        yield number, line, value


def split_lines(text: str) -> list[str]:
    """Return the lines of a text with their line ends, split at the same places as in `open_lines`."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def in_blocks(lines: Iterable[T], size: int) -> Iterator[list[T]]:
    """Iterate over the lines in lists of `size`; the last list may be shorter."""
    block: list[T] = []
    for line in lines:
        block.append(line)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def split_blanks(line: str) -> list[str]:
    """Split a line at tabs and runs of spaces. Other white space is part of a word."""
    return list(filter(None, line.replace("\t", " ").split(" ")))


def read_json(path: str | Path, of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the content of a JSON file. `of_pairs` builds the value of an object from its pairs, by default a dict.

    Raises DataError, with the line number, if the file cannot be read, is not JSON, or holds half a surrogate pair,
    which is not text.
    """
    text = "\n".join(open_lines(path))
    try:
        stored = json.loads(text, object_pairs_hook=of_pairs)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(stored, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: holds half a surrogate pair, {error.object[error.start]!r}, which is not text"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    return stored


def readable(text: str) -> str:
    """Return `text` with � for each part that is not a character: bytes outside UTF-8, halves of surrogate pairs."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
