"""Files as pieces that are read apart from each other: stretches of bytes that end where a line ends.

Raw text stays as it is, line ends and all, but for a byte order mark at the start of a file, which is passed over.
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
        """As they are, with the mark; DataError if the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return file.read(self.end - self.start)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error

    def text(self) -> str:
        """Decoded as UTF-8; DataError, with file, position and line, where that is not what it is."""
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
        """A place in this piece as a place in the file."""
        line, left = 1, self.start + place
        with self.path.open("rb") as file:
            while block := file.read(min(left, BLOCK_BYTES)):
                line += block.count(b"\n")
                left -= len(block)
        return f"(byte {self.start + place:,}) in line {line:,}"


def cut(files: Sequence[Path], size: int) -> Iterator[Piece]:
    """The files as pieces of about `size` bytes, cut at line ends, so that no word is torn."""
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
    """Where the line ends that `position - 1` belongs to; a line longer than several pieces is hardly words, and is cut
    between two characters.
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
    """The files' text in blocks of about a megabyte; DataError if one is not UTF-8 text."""
    for piece in cut(files, BLOCK_BYTES):
        yield piece.text()
