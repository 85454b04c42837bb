"""A Python that has imported PyTorch and the package, and forks a program of its own for each that a test starts.

To import PyTorch takes seconds, of every one of the many programs that tests start. A program is a process of its own,
with its own arguments, environment, folder, signals and standard streams; it begins after the imports.
Those that look at imports, at the locale or at Python's own switches are started afresh instead.

`python -m tests.preloaded SOCKET` is the server: each connection is a program. It sends its words, environment and
folder as JSON, with the descriptors to be 0, 1 and 2 and further ones to keep; it receives the process's number, and at
its end its status.
"""

import array
import atexit
import contextlib
import fcntl
import io
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

MOST_DESCRIPTORS = 16


class Program:
    """A program that a `Server` has started, to be used as a `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, streams: list) -> None:
        self.stdin, self.stdout, self.stderr = streams
        self._connection = connection
        self.pid: int = struct.unpack("i", _exactly(connection, 4))[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout or 1e-4 if timeout is not None else None)
            try:
                status = struct.unpack("i", _exactly(self._connection, 4))[0]
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a program", timeout or 0) from None
            self.returncode = os.waitstatus_to_exitcode(status)
            self._connection.close()
        return self.returncode

    def communicate(self, input=None, timeout: float | None = None):
        """Write `input`, read all that it says, and wait for its end."""
        found: dict[int, object] = {}

        def read(k: int, pipe) -> None:
            found[k] = pipe.read()

        pipes = [(k, pipe) for k, pipe in enumerate((self.stdout, self.stderr)) if pipe is not None]
        threads = [threading.Thread(target=read, args=each, daemon=True) for each in pipes]
        for thread in threads:
            thread.start()
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                if input:
                    self.stdin.write(input)
                self.stdin.close()
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait(timeout)
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired("a program", timeout or 0)
        return found.get(0), found.get(1)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The server of this process, started when the first program is."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = f"{self._folder.name}/socket"
        words = [sys.executable, "-m", "tests.preloaded", self._path]
        self._process = subprocess.Popen(words, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        atexit.register(self._process.kill)

    def start(self, words: list, *, stdin=None, stdout=None, stderr=None, env=None, cwd=None, pass_fds=(), text=False):
        """`python WORDS...`, with the options of `subprocess.Popen`."""
        theirs, ours, opened = [], [], []
        for k, given in enumerate((stdin, stdout, stderr)):
            if given == subprocess.PIPE:
                read, write = os.pipe()
                theirs.append(read if k == 0 else write)
                opened.append(theirs[-1])
                mine = open(write, "wb") if k == 0 else open(read, "rb")  # noqa: SIM115 - closed by the caller
                ours.append(io.TextIOWrapper(mine, "utf-8", write_through=True) if text else mine)
                continue
            if given == subprocess.DEVNULL:
                given = os.open(os.devnull, os.O_RDWR)
                opened.append(given)
            elif given == subprocess.STDOUT:
                given = theirs[1]
            theirs.append(k if given is None else given if isinstance(given, int) else given.fileno())
            ours.append(None)
        request = {
            "words": [os.fsdecode(word) for word in words],
            "env": dict(os.environ if env is None else env),
            "cwd": os.fsdecode(cwd or Path.cwd()),
            "kept": list(pass_fds),
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        descriptors = array.array("i", [*theirs, *pass_fds])
        content = json.dumps(request).encode()
        connection.sendmsg(
            [struct.pack("i", len(content))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())]
        )
        connection.sendall(content)
        for descriptor in opened:
            os.close(descriptor)
        return Program(connection, ours)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise RuntimeError("the process that starts programs has ended")
        content += part
    return content


# -- the server's side ---------------------------------------------------------------------------------------------


def _serve(path: str) -> None:
    import unrolled.cli.eval
    import unrolled.cli.runs
    import unrolled.cli.sample
    import unrolled.cli.train
    import unrolled.tasks.language
    import unrolled.training.curves  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who keep a program are not waited for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        if not os.fork():
            server.close()
            _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> None:
    """Start the program, and tell how it ends."""
    head, given, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(4 * MOST_DESCRIPTORS))
    descriptors = array.array("i")
    for _, _, content in given:
        descriptors.frombytes(content)
    request = json.loads(_exactly(connection, struct.unpack("i", head)[0]))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        connection.close()
        _become(request, list(descriptors))
    for descriptor in {0, 1, 2, *descriptors}:
        os.close(descriptor)
    connection.sendall(struct.pack("i", child))
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(OSError):  # nobody may want to know any more
        connection.sendall(struct.pack("i", status))
    os._exit(0)


def _moved(descriptor: int) -> int:
    """Under a number that no program asks for."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 200)
    os.close(descriptor)
    return moved


def _become(request: dict, descriptors: list[int]) -> None:
    """Run the program's words in this process, and end it."""
    for number, target in zip([_moved(each) for each in descriptors], [0, 1, 2, *request["kept"]], strict=True):
        os.dup2(number, target)
        os.close(number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[:0] = [request["cwd"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(k, mode), "utf-8", errors, line_buffering=k == 2)  # noqa: SIM115 - for all its life
        for k, mode, errors in ((0, "rb", "strict"), (1, "wb", "strict"), (2, "wb", "backslashreplace"))
    )
    code = 1
    try:
        kind, name, *rest = request["words"]
        sys.argv = [name if kind == "-m" else kind, *rest]
        if kind == "-m":
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            exec(compile(name, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
