"""Ctrl-C and SIGTERM as a polite request: the step in hand is finished and saved first; the second one ends at once."""

from __future__ import annotations

import os
import signal
import threading


class Interrupt:
    """`with Interrupt() as interrupt:` - `interrupt.requested` turns true when somebody wants the run to stop."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in self._SIGNALS}
        return self

    def _request(self, number, frame) -> None:
        self.requested = True
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun passes on a signal that may have come here already
            self.__exit__()  # the next signal acts as it would have without us

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
