"""A function of one's own that follows a training, and may stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

#: Called with the step, the network (a view, or "shared") and the numbers that the log takes there.
Callback: TypeAlias = Callable[[int, str, dict[str, float]], object]


class StopTraining(Exception):
    """Raised by a callback of `train`: the training saves and returns, and the same call continues it."""


class Listener:
    """Hands the numbers of the log to a callback, and keeps what it raises until the state is saved.

    Attributes:
      raised: what ended the callback; it is not called again.
    """

    def __init__(self, callback: Callback | None):
        self._callback = callback
        self.raised: BaseException | None = None

    def __call__(self, network: str, step: int, values: Mapping[str, float]) -> None:
        """Calls the callback with a copy of the numbers: whatever it does with them, training goes on as it would."""
        if self._callback is None or self.raised is not None:
            return
        try:
            self._callback(step, network, dict(values))
        except BaseException as error:  # An exit or an interrupt as well: the state is saved first.
            self.raised = error

    def reraise(self, what: str) -> None:
        """Raises what ended the callback, if anything did; ``what`` was saved."""
        if self.raised is not None:
            self.raised.add_note(
                f"liverjax: raised by the callback of train; {what} is saved, the same call goes on"
            )
            raise self.raised
