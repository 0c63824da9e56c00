"""Signals that ask a run to stop: noted, and obeyed after the step in progress."""

from __future__ import annotations

import signal
import threading

import jax
from jax.sharding import Mesh

from liverjax.training.mesh import on_any_process

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


class StopAgreement:
    """At which step a signal stops the run: the same one on all processes, whichever of them was told."""

    def __init__(self, signals: StopSignals, mesh: Mesh):
        self._signals = signals
        self._mesh = mesh
        self._asked: jax.Array | None = None

    def reached(self) -> bool:
        """Returns whether to stop after the step in progress; to be called once in each step."""
        if jax.process_count() == 1:
            return bool(self._signals.received)
        # The answer to the question of the step before: it is there without a wait.
        before = self._asked
        self._asked = on_any_process(bool(self._signals.received), self._mesh)
        return before is not None and bool(before)

    @property
    def reason(self) -> str:
        """What stopped the run, in words."""
        return self._signals.received or "a signal to another process"
