"""Signals that ask a program to stop: recorded, and obeyed where the work can be saved."""

from __future__ import annotations

import signal
import threading
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While active, SIGTERM and SIGINT set `received` to their name. A second signal acts as usual.

    Python allows handlers in the main thread only; in other threads nothing is caught.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.received = signal.Signals(number).name
        for other, handler in self._before.items():
            signal.signal(other, handler)
