"""Pieces of files that can be read independently: stretches of bytes that end at a line end.

Text is returned unchanged, including its line ends. Only a byte order mark at the start of a file is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from unrolled.errors import DataError

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Bytes `start` to `end` of a file."""

    path: Path
    start: int
    end: int

    def bytes(self) -> bytes:
        """Return the bytes, including a byte order mark. Raises DataError if the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return file.read(self.end - self.start)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error

    def text(self) -> str:
        """Return the text. Raises DataError, with file, position and line, if it is not UTF-8 text."""
        content = self.bytes()
        advice = "read it at level byte, or convert it to UTF-8"
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not UTF-8 text {self._where(error.start)}: {advice}") from error
        if "\0" in text:
            raise DataError(f"{self.path}: a binary file, with a zero {self._where(content.index(0))}: {advice}")
        return text.removeprefix("\ufeff") if self.start == 0 else text

    def _where(self, place: int) -> str:
        """Describe a place in this piece by its byte and line in the file."""
        line, left = 1, self.start + place
        with self.path.open("rb") as file:
            while block := file.read(min(left, BLOCK_BYTES)):
                line += block.count(b"\n")
                left -= len(block)
        return f"(byte {self.start + place:,}) in line {line:,}"


def cut(files: Sequence[Path], size: int) -> Iterator[Piece]:
    """Yield the files as pieces of about `size` bytes, cut at line ends so that no word is split."""
    for path in files:
        try:
            with path.open("rb") as file:
                total, start = path.stat().st_size, 0
                while start < total:
                    end = _line_end(file, start + size, total, size)
                    yield Piece(path, start, end)
                    start = end
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error


def _line_end(file: IO[bytes], position: int, total: int, size: int) -> int:
    """Return the end of the line that holds the byte at `position - 1`.

    A line much longer than a piece is hardly made of words. It is cut between two characters.
    """
    if position >= total:
        return total
    file.seek(position - 1)
    for passed in range(9):
        block = file.read(size)
        found = block.find(b"\n")
        if found >= 0:
            return position + passed * size + found
        if not block:
            return total
    end = position + 8 * size
    file.seek(end)
    following = file.read(4)
    return min(total, end + next((k for k, byte in enumerate(following) if byte & 0xC0 != 0x80), len(following)))


def read_text(files: Sequence[Path]) -> Iterator[str]:
    """Yield the files' text in blocks of about a megabyte. Raises DataError if a file is not UTF-8 text."""
    for piece in cut(files, BLOCK_BYTES):
        yield piece.text()
