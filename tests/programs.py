"""Programs that tests start: they find signals as at a terminal, and neither they nor those who wait stay forever.

A shell that starts the tests in the background has them ignore SIGINT, and so would all that they start.
"""

import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.preloaded import Program, Server

#: In the place of `sys.executable`: a Python that has imported PyTorch and the package already (tests/preloaded.py).
PRELOADED = "preloaded python"
#: Seconds that a program may take, many times what the slowest takes.
PATIENCE = 600


@contextmanager
def usual_signals() -> Iterator[None]:
    """SIGINT and SIGTERM act as in a program at a terminal: in this process, and in what it starts within."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.cache
def _server() -> Server:
    return Server()


def _start(command: list, **options) -> subprocess.Popen | Program:
    if command[0] == PRELOADED:
        return _server().start(command[1:], **options)
    with usual_signals():
        return subprocess.Popen(command, **options)


@contextmanager
def started(command: list, **options) -> Iterator[subprocess.Popen | Program]:
    """A program that has ended, or is ended, when the block is left; its output goes into pipes."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    process = _start(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:  # politely first: `torchrun` ends those that it started
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait(timeout=10)
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            pipe.close()


def completed(command: list, patience: float = PATIENCE, **options) -> subprocess.CompletedProcess:
    """A program that has ended, with what it said as text; `options` are those of `subprocess.run`."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    check, given = options.pop("check", False), options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with started(command, **options) as process:
        out, err = process.communicate(given, timeout=patience)
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def as_torchrun(words: list, count: int = 2) -> list[subprocess.CompletedProcess]:
    """`python WORDS...` in processes that are told of each other as `torchrun` tells those it starts.

    `torchrun` itself takes seconds to import, in processes that begin with nothing imported.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environments = [
        {**os.environ, **{name: str(value) for name, value in {**job, "RANK": rank, "LOCAL_RANK": rank}.items()}}
        for rank in range(count)
    ]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda each: completed([PRELOADED, *words], env=each, check=True), environments))


def wait_until(condition: Callable[[], object], *processes: subprocess.Popen, patience: float = PATIENCE) -> None:
    """Until the condition is met; a failure where one of the processes ends before, or it takes too long."""
    deadline = time.monotonic() + patience
    while not condition():
        ended = [process for process in processes if process.poll() is not None]
        if condition():
            return
        if ended:
            pytest.fail(f"ended with {ended[0].returncode} before its time: {ended[0].communicate(timeout=10)}")
        if time.monotonic() > deadline:
            pytest.fail(f"it took more than {patience} seconds")
        time.sleep(0.02)
