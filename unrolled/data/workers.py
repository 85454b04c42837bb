"""What worker processes do with large texts: survey and encode them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unrolled.cache import is_own_file
from unrolled.data.levels import VOCABULARIES
from unrolled.data.pieces import Piece
from unrolled.data.process_pool import ProcessPool, answer_jobs
from unrolled.data.process_pool import processors as processors
from unrolled.data.vocabulary import ByteVocabulary, Vocabulary, code_points
from unrolled.data.words import split_words
from unrolled.errors import DataError

Job = Sequence[Piece]
Result = TypeVar("Result")


def characters(job: Job) -> list[str]:
    """Return the characters that occur."""
    seen = np.zeros(sys.maxunicode + 1, dtype=bool)
    for piece in job:
        seen[code_points(piece.text())] = True
    return [chr(point) for point in np.flatnonzero(seen)]


def words(job: Job) -> dict[str, int]:
    """Return how often each word occurs."""
    counts: Counter[str] = Counter()
    for piece in job:
        counts.update(split_words(piece.text()))
    return dict(counts)


def encode(job: Job, vocabulary: Vocabulary, dtype: str) -> bytes:
    """Return the tokens as bytes, one after another."""
    if isinstance(vocabulary, ByteVocabulary):
        tokens = [vocabulary.encode_bytes(piece.bytes()) for piece in job]
    else:
        tokens = [vocabulary.encode(piece.text()) for piece in job]
    return b"".join(part.astype(dtype).tobytes() for part in tokens)


#: The length of the digest at the start of a cached part, before its tokens.
DIGEST_BYTES = 32


def encode_to_cache(job: Job, vocabulary: Vocabulary, dtype: str, cache: str) -> str:
    """Encode a job into a file in `cache` and return the file's name.

    The file holds the tokens' digest and then the tokens. Its name is a digest of the job's text and the vocabulary, so
    that a job that is already cached is not encoded again.
    """
    source = hashlib.sha256(json.dumps([vocabulary.level, vocabulary.state(), dtype, len(job)]).encode())
    for piece in job:
        source.update(b"%d %d " % (piece.start == 0, piece.end - piece.start))
        source.update(piece.bytes())
    path = Path(cache, f"{source.hexdigest()}.tokens")
    if not _intact(path):
        tokens = encode(job, vocabulary, dtype)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)  # left by a killed process with the same number
            with open(temporary, "xb", opener=_privately) as file:
                file.write(hashlib.sha256(tokens).digest() + tokens)
            temporary.rename(path)
        except OSError as error:
            advice = "set UNROLLED_CACHE to a folder with more space"
            raise DataError(f"{cache}: cannot be written ({error.strerror}); {advice}") from error
        finally:
            temporary.unlink(missing_ok=True)
    return str(path)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _intact(path: Path) -> bool:
    """Return whether the file is complete and belongs to the user.

    While the cache was writable for others, another user may have put a file there.
    """
    try:
        if not is_own_file(os.lstat(path)):
            return False
        content = path.read_bytes()
        os.utime(path)  # marks the file as recently used
    except OSError:
        return False
    return hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]


class WorkerPool(ProcessPool):
    """A context manager that starts one process for each processor, at most 32, and maps jobs over them."""

    def __init__(self) -> None:
        # The pool already uses every processor.
        super().__init__(__name__, processors(), "encodes the text", {"TOKENIZERS_PARALLELISM": "false"})

    def map(
        self, what: Callable[..., Result], jobs: Sequence[Job], vocabulary: Vocabulary | None = None, **options: str
    ) -> Iterator[Result]:
        """Yield the result of `what(job, ...)` for every job, in order."""
        setup: dict[str, Any] = {"what": what.__name__, "options": options}
        if vocabulary is not None:
            setup["vocabulary"] = {"level": vocabulary.level, **vocabulary.state()}
        return self.ask(setup, [[(str(piece.path), piece.start, piece.end) for piece in job] for job in jobs])


def main() -> None:
    """Answer jobs; see `ProcessPool`."""
    answer_jobs(_prepare)


def _prepare(setup: Any) -> Callable[[Any], Any]:
    options = setup["options"]
    if stored := setup.get("vocabulary"):
        options["vocabulary"] = VOCABULARIES[stored["level"]].from_state(stored)
    work: Callable[..., Any] = {one.__name__: one for one in (characters, words, encode_to_cache)}[setup["what"]]
    return lambda job: work([Piece(Path(path), start, end) for path, start, end in job], **options)
