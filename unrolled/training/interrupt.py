"""Ctrl-C and SIGTERM as a polite request: the step in hand is finished and saved first; the second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Interrupt:
    """`with Interrupt() as interrupt:` - `interrupt.requested` turns true when somebody wants the run to stop.

    A signal that this process was started to ignore stays ignored, as SIGINT is in the background of a script.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in self._SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._request) for number in heard}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not _by_torchrun():  # which passes on a signal that may have come here already
            self._restore()  # the next signal acts as it would have without us

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # torchrun ends the processes that are left when one has failed: they must be able to say why they end.
        if kind is None or not _by_torchrun():
            self._restore()


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
