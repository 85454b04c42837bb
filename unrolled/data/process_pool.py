"""A pool of worker processes. Each is a new process that imports little and answers jobs line by line, in JSON.

The workers are not forks, because a process that has used PyTorch has threads, and a fork of it may hang. They do not
use `multiprocessing`, because it would import the caller's program again in each worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

from unrolled.errors import DataError, UnrolledError


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessPool:
    """A context manager that maps jobs over processes, which start when they are needed.

    module: its function `main` is what the processes run; it calls `answer_jobs`.
    count: the most processes, at most 32. what: what they do, for the message about a process that was killed.
    variables: variables of the environment of the processes.
    """

    def __init__(self, module: str, count: int, what: str, variables: Mapping[str, str]) -> None:
        self._module, self._count, self._what = module, min(32, count), what
        self._variables = variables

    def __enter__(self) -> Self:
        self._own = threading.local()
        self._processes: list[subprocess.Popen[str]] = []
        self._threads = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(OSError):  # closing flushes unsent jobs, which nobody needs any more
                    stream.close()

    def ask(self, setup: Mapping[str, Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield the answer to every job, in order. The setup is given once to each process; all of it is JSON.

        Raises DataError if a job fails or a process is killed.
        """
        written = json.dumps(setup)
        return self._threads.map(lambda job: self._ask(written, job), jobs)

    def _ask(self, setup: str, job: Any) -> Any:
        own = self._own.__dict__
        try:
            if own.get("setup") != setup:
                own["setup"], own["process"] = setup, self._start(setup)
            process = own["process"]
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            raise DataError(f"a process that {self._what} was killed; is there enough memory?")
        result, error = json.loads(answer)
        if error:
            raise DataError(error)
        return result

    def _start(self, setup: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {self._module} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self._variables},
            text=True,
        )
        self._processes.append(process)
        assert process.stdin is not None
        process.stdin.write(setup + "\n")
        return process


def answer_jobs(prepare: Callable[[Any], Callable[[Any], Any]]) -> None:
    """Answer the jobs on standard input, one per line after the setup, until it ends; see `ProcessPool`.

    prepare: turns the setup into a function that answers a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process receives it too, and ends this one
    try:
        work, failed = prepare(json.loads(sys.stdin.readline())), ""
    except UnrolledError as error:
        work, failed = None, str(error)
    for line in sys.stdin:
        try:
            answer = [None, failed] if work is None else [work(json.loads(line)), None]
        except (UnrolledError, OSError) as error:
            answer = [None, str(error)]
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # the main process was killed
            os._exit(1)
