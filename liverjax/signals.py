"""Signals that ask a program to stop: noted, and obeyed where the work can be saved."""

from __future__ import annotations

import signal
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While active, SIGTERM and SIGINT set `received` to their name. A second one acts as usual.

    Outside the main thread Python allows no handlers; there nothing is caught.
    """

    def __init__(self):
        self.received: str | None = None

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.received = signal.Signals(number).name
        for other, handler in self._before.items():
            signal.signal(other, handler)
