"""Memory-mapped files of token numbers, so that a text of any size needs a small, fixed amount of memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from unrolled.cache import cached_data
from unrolled.data.levels import LEVELS, VOCABULARIES
from unrolled.data.lines import read_json
from unrolled.data.pieces import Piece, cut, read_text
from unrolled.data.vocabulary import Blocks, BPEVocabulary, ByteVocabulary, CharacterVocabulary, Vocabulary
from unrolled.data.words import WordVocabulary
from unrolled.data.workers import DIGEST_BYTES, Job, Result, WorkerPool, characters, encode, encode_to_cache, words
from unrolled.errors import ConfigurationError, DataError, RunError

#: A function that is called with what is being done and with the share of it that is done.
Progress = Callable[[str, float], None]
DTYPES = ("uint8", "uint16", "uint32")
#: The size of the parts that a process encodes at a time. Up to `ALONE` parts need no other processes.
PART_BYTES, ALONE = 4 << 20, 4
#: The size limit of the cache of encoded parts. The least recently used parts are dropped first.
CACHE_BYTES = 20 << 30


def build_vocabulary(
    level: str,
    files: Sequence[Path],
    *,
    size: int | None = None,
    min_count: int = 2,
    progress: Progress = lambda what, share: None,
) -> Vocabulary:
    """Learn the vocabulary of `level` from the files.

    size: the most tokens of a word or BPE vocabulary. min_count: how often a word must occur to be in the vocabulary.
    """
    if level == "char":
        return CharacterVocabulary(chain.from_iterable(_surveyed(characters, files, progress)))
    if level == "word":
        counts: Counter[str] = Counter()
        for found in _surveyed(words, files, progress):
            counts.update(found)
        return WordVocabulary.from_counts(counts, min_count, size)
    return learn_vocabulary(level, partial(read_text, files), size=size)


def learn_vocabulary(level: str, blocks: Blocks, *, size: int | None = None, min_count: int = 2) -> Vocabulary:
    """Learn the vocabulary of `level` from blocks of text; see `build_vocabulary`."""
    if level == "char":
        return CharacterVocabulary.build(blocks)
    if level == "word":
        return WordVocabulary.build(blocks, min_count, size)
    if level == "byte":
        return ByteVocabulary()
    if level == "bpe":
        return BPEVocabulary.build(blocks, size or 2000)
    raise ConfigurationError(f"unknown level {level!r}: choose from {', '.join(LEVELS)}")


def _surveyed(what: Callable[[Job], Result], files: Sequence[Path], progress: Progress) -> Iterator[Result]:
    """Yield the result of `what` for every part of the files. Several processes compute it if there are many parts."""
    jobs = _jobs(files)
    if len(jobs) <= ALONE:
        yield from map(what, jobs)
        return
    with WorkerPool() as pool:
        for number, found in enumerate(pool.map(what, jobs), 1):
            yield found
            progress("reading the text", number / len(jobs))


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a file of `Vocabulary.save`. Raises RunError if it is missing or is not such a file."""
    try:
        state = read_json(path)
        return VOCABULARIES[state["level"]].from_state(state)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise RunError(f"{path}: not a vocabulary of this program ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class TokenFile:
    """An encoded text: `path` holds `count` numbers of `dtype`. A JSON file next to it holds its description."""

    path: Path
    dtype: str
    count: int
    sha256: str = ""

    @property
    def tokens(self) -> np.ndarray:
        """The numbers, `[count]`, mapped from disk."""
        if not self.count:  # an empty file cannot be mapped
            return np.empty(0, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.count,))

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Open an encoded text. Raises RunError if the file or its description is missing or damaged."""
        description = path.with_suffix(".json")
        try:
            stored = read_json(description)
            file = cls(path, stored["dtype"], stored["count"], stored.get("sha256", ""))
            size = path.stat().st_size
            if stored["dtype"] not in DTYPES or type(stored["count"]) is not int or not isinstance(file.sha256, str):
                raise ValueError("its description is damaged")
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise RunError(f"{path}: no encoded text here ({type(error).__name__}: {error})") from error
        if size != file.count * np.dtype(file.dtype).itemsize:
            raise RunError(f"{path}: {size:,} bytes, but {description.name} says {file.count:,} tokens of {file.dtype}")
        return file

    def verify(self) -> None:
        """Raise RunError if the file's content has changed since it was encoded."""
        if self.sha256:
            with self.path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                    raise RunError(f"{self.path}: damaged, its content is not what was encoded")


def encode_files(
    files: Sequence[Path], vocabulary: Vocabulary, path: Path, progress: Progress = lambda what, share: None
) -> TokenFile:
    """Encode the files, one after another, into `path`.

    Several processes encode a large text. Its encoded parts are cached by their content, so that an interrupted run
    resumes and no part is encoded twice. Raises RunError if `path` cannot be written.
    """
    limit = len(vocabulary)
    dtype = next(name for name in DTYPES if limit <= 1 << 8 * np.dtype(name).itemsize)
    count, digest = 0, hashlib.sha256()
    try:
        with path.open("wb") as out:
            for part in _encoded(files, vocabulary, dtype, progress):
                out.write(part)
                digest.update(part)
                count += len(part) // np.dtype(dtype).itemsize
        file = TokenFile(path, dtype, count, digest.hexdigest())
        description = {key: value for key, value in asdict(file).items() if key != "path"}
        path.with_suffix(".json").write_text(json.dumps(description), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    return file


def _encoded(files: Sequence[Path], vocabulary: Vocabulary, dtype: str, progress: Progress) -> Iterator[bytes]:
    jobs = _jobs(files)
    if len(jobs) <= ALONE:
        for job in jobs:
            yield encode(job, vocabulary, dtype)
        return
    cache = cache_folder()
    with WorkerPool() as pool:
        names = pool.map(encode_to_cache, jobs, vocabulary, dtype=dtype, cache=str(cache))
        for number, name in enumerate(names, 1):
            with open(name, "rb") as part:
                part.seek(DIGEST_BYTES)
                while block := part.read(1 << 20):
                    yield block
            progress("encoding the text", number / len(jobs))
    _limit_cache(cache)


def _jobs(files: Sequence[Path]) -> list[list[Piece]]:
    """Split the files into parts of about `PART_BYTES`. The parts depend on the files only."""
    jobs: list[list[Piece]] = []
    room = 0
    for piece in cut(files, PART_BYTES):
        if room <= 0:
            jobs.append([])
            room = PART_BYTES
        jobs[-1].append(piece)
        room -= piece.end - piece.start
    return jobs


def cache_folder() -> Path:
    """Return the folder of cached parts, and create it if necessary; see `cached_data`."""
    folder = cached_data("tokens")
    for old in folder.glob("*.tmp"):  # files of killed processes; files of running ones are younger
        with suppress(FileNotFoundError):  # another process has just renamed it
            if time.time() - old.stat().st_mtime > 3600:
                old.unlink()
    return folder


def _limit_cache(folder: Path) -> None:
    """Delete the least recently used parts until the cache holds at most `CACHE_BYTES`."""
    parts = []
    for path in folder.glob("*.tokens"):
        with suppress(FileNotFoundError):  # another process has just deleted it
            status = path.stat()
            parts.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in parts)
    for _, size, path in sorted(parts):
        if total <= CACHE_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
