"""The process of a command: its standard streams, and the signals that end it."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

#: Seconds that a command has after a signal to remove what is half-written, before its process ends in any case.
GRACE = 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM, as an exception of the main thread; ``status`` is the exit status."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__()
        self.status = 128 + number
        self.message = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


class StopOnSignals:
    """Turns the first signal into `Stopped`; `GRACE` seconds later, or at the second one, the process ends."""

    def __init__(self, report: Callable[[str], object]):
        self.stopped: Stopped | None = None
        self.ended = False  # Whether the command's status is known, and its line printed.
        self._report = report
        self._waiting, self._signalled = os.pipe()
        threading.Thread(target=self._watch, daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # As shells ignore SIGINT for background jobs.
                signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: object) -> None:
        again, self.stopped = self.stopped is not None, self.stopped or Stopped(number)
        if again or self.ended:
            self._leave()
        # No thread is started here: what was interrupted may be starting one.
        os.write(self._signalled, b"!")
        raise self.stopped

    def _watch(self) -> None:
        os.read(self._waiting, 1)
        time.sleep(GRACE)  # A library may have swallowed the exception, or wait for a thread that computes.
        self._leave()

    def _leave(self) -> NoReturn:
        stopped = self.stopped or Stopped()
        if not self.ended:
            self.ended = True
            print(end="\n" if "tqdm" in sys.modules and sys.stderr.isatty() else "", file=sys.stderr)
            self._report(stopped.message)
        for child in getattr(sys.modules.get("multiprocessing"), "active_children", list)():
            child.kill()
        os._exit(stopped.status)


def open_streams() -> None:
    """Opens standard streams that are closed, and lets them print what their encoding lacks, as ``\\xfc``."""
    # The number of a closed one goes to the next file, which would get the errors: in a shell, to its script.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            if number and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                os.close(number)
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # Gets the lowest number that is free.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
