"""At which step a signal stops a run of many processes."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from liverjax.signals import StopSignals
from liverjax.training.mesh import any_process


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
        self._asked = any_process(bool(self._signals.received), self._mesh)
        return before is not None and bool(before)

    @property
    def reason(self) -> str:
        """What stopped the run, in words."""
        return self._signals.received or "a signal to another process"
