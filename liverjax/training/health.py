"""Whether losses and gradients are finite, looked at for every step without a wait."""

from __future__ import annotations

import math
import pathlib

import jax

from liverjax.errors import TrainingError


class NonFiniteGuard:
    """Reads each step's metrics while the device works on the next one.

    Reading a value waits until it is computed. The values of the step before are there, or soon will be, when
    the next step has been handed to the device; so the device is never idle for the look.

    Attributes:
      skipped: number of steps so far whose loss or gradient was not finite, and which changed nothing.
    """

    def __init__(self, folder: pathlib.Path, *, skip: bool, skipped: int):
        """``skip``: whether the step itself leaves out what is not finite, so that it is only counted here."""
        self._folder = folder
        self._skip = skip
        self.skipped = skipped
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def note(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just started, and looks at those of the one before.

        Raises:
          TrainingError: the loss or the gradient of the step before was not finite.
        """
        self.settle()
        self._pending = (step, metrics)

    def settle(self) -> dict[str, float]:
        """Waits for the newest step and returns its finite metrics; raises like `note`. Empty if there is none."""
        if self._pending is None:
            return {}
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if finite == values:
            return values
        if not self._skip:
            raise TrainingError(
                f"{self._folder}: loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}, "
                "expected finite values; the last checkpoint is kept. A lower train.learning_rate or "
                "train.clip_norm may help, or train.on_nonfinite=skip"
            )
        self.skipped += 1
        return finite
