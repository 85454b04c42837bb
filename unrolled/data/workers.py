"""Work on a large text by several processes: each is newly started, imports little, and answers line by line.

They are not forks: a process that has used PyTorch has threads, with which a fork may hang. Nor are they
`multiprocessing`'s: that would import the caller's program again in each.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unrolled.cache import is_own_file
from unrolled.data.levels import VOCABULARIES
from unrolled.data.pieces import Piece
from unrolled.data.vocabulary import ByteVocabulary, Vocabulary, code_points
from unrolled.data.words import split_words
from unrolled.errors import DataError, UnrolledError

Job = Sequence[Piece]
Result = TypeVar("Result")


def characters(job: Job) -> list[str]:
    """The characters that occur."""
    seen = np.zeros(sys.maxunicode + 1, dtype=bool)
    for piece in job:
        seen[code_points(piece.text())] = True
    return [chr(point) for point in np.flatnonzero(seen)]


def words(job: Job) -> dict[str, int]:
    """How often each word occurs."""
    counts: Counter[str] = Counter()
    for piece in job:
        counts.update(split_words(piece.text()))
    return dict(counts)


def encode(job: Job, vocabulary: Vocabulary, dtype: str) -> bytes:
    """The tokens, one after the other."""
    if isinstance(vocabulary, ByteVocabulary):
        tokens = [vocabulary.encode_bytes(piece.bytes()) for piece in job]
    else:
        tokens = [vocabulary.encode(piece.text()) for piece in job]
    return b"".join(part.astype(dtype).tobytes() for part in tokens)


#: In front of the tokens in a cached part: their digest.
DIGEST_BYTES = 32


def encode_to_cache(job: Job, vocabulary: Vocabulary, dtype: str, cache: str) -> str:
    """The name of a file in `cache` with the tokens, after their digest; the name tells what they were made from."""
    source = hashlib.sha256(json.dumps([vocabulary.level, vocabulary.state(), dtype, len(job)]).encode())
    for piece in job:
        source.update(b"%d %d " % (piece.start == 0, piece.end - piece.start))
        source.update(piece.bytes())
    path = Path(cache, f"{source.hexdigest()}.tokens")
    if not _intact(path):
        tokens = encode(job, vocabulary, dtype)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)  # of a killed process that had this number
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
    """Whether the file is whole, and the user's own: others may have put theirs there while the cache was open."""
    try:
        if not is_own_file(os.lstat(path)):
            return False
        content = path.read_bytes()
        os.utime(path)  # what was used last stays longest
    except OSError:
        return False
    return hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """As many processes as there are processors, at most 32: `with` it, `map` jobs over them."""

    def __enter__(self) -> WorkerPool:
        self._own = threading.local()
        self._processes: list[subprocess.Popen[str]] = []
        self._threads = ThreadPoolExecutor(min(32, processors()))
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(OSError):  # what was not read yet is lost on nobody
                    stream.close()

    def map(
        self, what: Callable[..., Result], jobs: Sequence[Job], vocabulary: Vocabulary | None = None, **options: str
    ) -> Iterator[Result]:
        """`what(job, ...)` for every job, in order."""
        setup = {"what": what.__name__, "options": options}
        if vocabulary is not None:
            setup["vocabulary"] = {"level": vocabulary.level, **vocabulary.state()}
        return self._threads.map(lambda job: self._ask(json.dumps(setup), job), jobs)

    def _ask(self, setup: str, job: Job) -> Any:
        own = self._own.__dict__
        try:
            if own.get("setup") != setup:
                own["setup"], own["process"] = setup, self._start(setup)
            process = own["process"]
            process.stdin.write(json.dumps([(str(piece.path), piece.start, piece.end) for piece in job]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            raise DataError("a process that encodes the text was killed; is there enough memory?")
        result, error = json.loads(answer)
        if error:
            raise DataError(error)
        return result

    def _start(self, setup: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}  # there is a process for every processor
        process = subprocess.Popen(
            [sys.executable, "-c", "from unrolled.data.workers import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._processes.append(process)
        assert process.stdin is not None
        process.stdin.write(setup + "\n")
        return process


def main() -> None:
    """Answer the jobs on standard input, one a line, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks sees it too, and ends this
    setup = json.loads(sys.stdin.readline())
    options = setup["options"]
    if stored := setup.get("vocabulary"):
        options["vocabulary"] = VOCABULARIES[stored["level"]].from_state(stored)
    work = {one.__name__: one for one in (characters, words, encode_to_cache)}[setup["what"]]
    for line in sys.stdin:
        job = [Piece(Path(path), start, end) for path, start, end in json.loads(line)]
        try:
            answer = [work(job, **options), None]
        except (UnrolledError, OSError) as error:
            answer = [None, str(error)]
        print(json.dumps(answer), flush=True)
