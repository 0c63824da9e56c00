"""What is done between the steps of a view: its time is taken, it is logged, validated and saved."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import jax
import numpy as np

from liverjax.checkpoint.runs import Checkpoints
from liverjax.options import Config
from liverjax.training.health import NonFiniteGuard
from liverjax.training.logs import RunLog
from liverjax.training.mesh import broadcast_from_first
from liverjax.training.pace import Clock, device_memory, peak_flops
from liverjax.training.state import TrainState
from liverjax.training.validation import Validation


@dataclasses.dataclass
class Progress:
    """How far a view is: what its checkpoint holds beside the arrays.

    Attributes:
      end_step: number of steps in all; with a time limit, as the measured step time foretells it.
      seconds: wall-clock time spent on this view, over all starts.
      finished: whether nothing is left to do.
      best_dice: highest validation Dice so far, mean of the foreground classes.
      best_step: the step where it was.
      evaluations_without_improvement: looks since the validation Dice last rose by ``train.min_delta``.
      skipped: steps that changed nothing, for their loss or gradient was not finite (``train.on_nonfinite``).
    """

    end_step: int
    seconds: float = 0.0
    finished: bool = False
    best_dice: float = -1.0
    best_step: int = 0
    evaluations_without_improvement: int = 0
    skipped: int = 0


class Monitor:
    """The looks at one view; the loop says after which steps.

    Attributes:
      folder: the view's folder.
      progress: how far the view is.
      clock: its time and pace.
      flops: floating point operations of a step, to be set where the device's peak is known.
      log: where the looks are told.
      last: the checkpoints of the whole state.
    """

    def __init__(
        self,
        config: Config,
        folder: pathlib.Path,
        first_step: int,
        limit: float,
        progress: Progress,
        validation: Validation,
        log: RunLog,
        last: Checkpoints,
        best: Checkpoints,
    ):
        """``limit``: seconds that the view may take over all starts. ``best``: checkpoints of the best parameters."""
        self.folder, self.progress, self.log, self.last = folder, progress, log, last
        self.clock = Clock(first_step, progress.seconds)
        self.flops: float | None = None
        self._config, self._first_step, self._limit = config, first_step, limit
        self._validation, self._best = validation, best
        self._skips = config.train.on_nonfinite == "skip"
        self._watch = NonFiniteGuard(folder, skip=self._skips, skipped=progress.skipped)

    def note(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just started; the first one is waited for, as it is compiled."""
        self._watch.note(step, metrics)
        self.last.poll()
        if step == self._first_step + 1:
            jax.block_until_ready(metrics)
            self.clock.compiled(step)

    def log_pace(self, step: int, rate: float) -> None:
        """Logs loss, rate and pace; with a time limit, foretells the last step."""
        pace = self.clock.steps_per_second(step)
        values = {
            **self._watch.settle(),
            "learning_rate": rate,
            "slices_per_second": pace * self._config.batch.size,
            **self.clock.look(step),
            **device_memory(),
        }
        if self._skips:
            values["skipped_steps"] = self._watch.skipped
        if self.flops and pace:
            values["peak_flops_share"] = self.flops * pace / peak_flops()
        self.log.write(step, **values)
        if self._limit < math.inf and pace:
            left = max(0, int((self._limit - self.clock.total()) * pace))
            self.progress.end_step = broadcast_from_first(min(self._config.train.steps, step + left))

    def validate(self, step: int, state: TrainState) -> None:
        """Monitor at the validation slices: keeps parameters that are the best so far, ends a view without gain."""
        options, progress = self._config.train, self.progress
        self._watch.settle()
        dice = self._validation(state.chosen_variables)
        mean = float(np.mean(list(dice.values())))
        self.log.write(
            step, validation_dice=mean, **{f"validation_dice_{name}": value for name, value in dice.items()}
        )
        self.log.show(step, *self._validation.examples)
        gains = mean >= progress.best_dice + options.min_delta
        progress.evaluations_without_improvement = (
            0 if gains else progress.evaluations_without_improvement + 1
        )
        if mean > progress.best_dice:
            progress.best_dice, progress.best_step = mean, step
            facts = {"view": self._validation.view, "step": step, "validation_dice": dice}
            self._best.save(step, state.chosen_variables, facts)
        if options.patience and progress.evaluations_without_improvement >= options.patience:
            progress.finished = True

    def save(self, step: int, state: TrainState) -> None:
        """Starts to write the whole state; the best parameters are complete before it says that there are any."""
        self._watch.settle()
        self.progress.seconds, self.progress.skipped = self.clock.total(), self._watch.skipped
        self._best.finish()
        self.last.save(step, state.arrays(), dataclasses.asdict(self.progress))
