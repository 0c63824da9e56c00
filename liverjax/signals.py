"""Signals that ask a program to stop: recorded, and obeyed where the work can be saved."""

from __future__ import annotations

import signal
import threading
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: The outermost active object, which has the handlers.
_active: StopSignals | None = None


class StopSignals:
    """While active, SIGTERM and SIGINT set `received` to their name. A second signal acts as usual.

    A handler that raises, as Python's own of SIGINT does, is of no use while libraries are imported or programs
    compiled: where a library calls back into Python, the exception is printed and lost. Within another active object
    this one takes part in what that has received and will receive.

    Python allows handlers in the main thread only; in other threads nothing is caught.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._outer: StopSignals | None = None
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> str | None:
        """Name of the signal that was received, or None."""
        return self._outer.received if self._outer else self._name

    def __enter__(self) -> StopSignals:
        global _active
        if threading.current_thread() is threading.main_thread():
            self._outer = _active
            if _active is None:
                _active = self
                self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        if _active is self:
            _active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self._name = signal.Signals(number).name
        for other, handler in self._before.items():
            signal.signal(other, handler)
