"""Handles Ctrl-C and SIGTERM: the first one ends training after the current step is saved, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Interrupt:
    """A context manager whose `requested` becomes true when the user interrupts the run.

    A signal that is ignored when the process starts stays ignored, like SIGINT for a background job of a script.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in self._SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._request) for number in handled}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not _by_torchrun():  # torchrun forwards a signal that this process may have received already
            self._restore()  # the next signal has its usual effect

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # When one process fails, torchrun terminates the others. They must still be able to report their errors.
        if kind is None or not _by_torchrun():
            self._restore()


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
