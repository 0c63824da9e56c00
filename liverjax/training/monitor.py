"""What happens between the steps of a network's training: pace, checks, log, validation and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from liverjax.checkpoint.runs import Checkpoints
from liverjax.data.sampling import MinedSlice
from liverjax.errors import CheckpointError, TrainingError
from liverjax.options import Config, Train
from liverjax.training.distributed import broadcast_from_first
from liverjax.training.logs import RunLog
from liverjax.training.step import TrainState, all_finite
from liverjax.training.validation import Validation

_LOG = logging.getLogger("liverjax")

#: What a save takes at the end of training, as a time limit foresees it: seconds, and bytes in one of them.
_SAVE_SECONDS = 2.0
_SAVE_RATE = 50e6

#: Highest dense bfloat16 rate of one device in FLOP/s, as its maker states it; by jax's name of the device.
_PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


@dataclasses.dataclass
class Progress:
    """How far the training of a network is: what its checkpoint holds beside the arrays.

    Attributes:
      steps: ``train.steps`` of the config from which `end_step` follows.
      max_minutes: ``max_minutes`` of that config.
      end_step: number of steps in all; with a time limit, as predicted from the measured pace.
      step: number of steps done.
      seconds: wall-clock time spent on this network, over all calls.
      finished: whether nothing is left to do.
      best_dice: highest validation Dice so far, mean of the foreground classes; of tumours in boxes, the mean of that
        and of detection (`liverjax.training.validation.Validation`).
      best_step: the step at which it was reached.
      evaluations_without_improvement: evaluations since the validation Dice last rose by ``train.min_delta``.
      skipped: steps that changed nothing because their loss or gradient was not finite (``train.on_nonfinite``).
      mined: slices with false tumours that ``batch.mined_share`` draws from (`liverjax.training.mining`).
    """

    steps: int
    max_minutes: float
    end_step: int
    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    best_dice: float = -1.0
    best_step: int = 0
    evaluations_without_improvement: int = 0
    skipped: int = 0
    mined: list[MinedSlice] = dataclasses.field(default_factory=list, repr=False)

    @classmethod
    def of_checkpoint(cls, facts: dict[str, Any], folder: pathlib.Path) -> Progress:
        """Returns what the newest checkpoint of a folder says; raises `CheckpointError` if another version wrote it."""
        try:
            return cls(**facts)
        except TypeError as error:
            raise CheckpointError(
                f"{folder}: its checkpoint is that of another version of liverjax ({error})"
            ) from None

    @classmethod
    def at_start(cls, config: Config, progress: Progress | None = None) -> Progress:
        """Returns the progress of a new network, or that of a checkpoint under the config of this call.

        `end_step` and `finished` follow from the config: more steps or minutes than before continue a finished run,
        whose learning rate rises again.
        """
        options = config.train
        if progress is None:
            return cls(options.steps, config.max_minutes, options.steps)
        if (progress.steps, progress.max_minutes) != (options.steps, config.max_minutes):
            if progress.finished:
                _LOG.warning(
                    "training continues after its planned end, step %d: the learning rate rises again",
                    progress.end_step,
                )
            progress.steps, progress.max_minutes = options.steps, config.max_minutes
            progress.end_step = options.steps
        impatient = 0 < options.patience <= progress.evaluations_without_improvement
        progress.finished = progress.step >= progress.end_step or impatient
        return progress


class Monitor:
    """Follows the training of one network; the loop calls it after each step, to validate, and to save.

    Attributes:
      progress: how far the network is.
      clock: its time and pace.
      flops: floating point operations of a step; set it if the device's peak is known.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        options: Train,
        progress: Progress,
        validation: Validation,
        log: RunLog,
        last: Checkpoints,
        best: Checkpoints,
        *,
        left: tuple[float, int] = (math.inf, 1),
        start: float | None = None,
    ):
        """Starts the clock.

        Args:
          folder: of the network, for messages.
          options: when to log, and when to stop.
          progress: as the checkpoint left it.
          validation: evaluates the validation slices.
          log: takes numbers and pictures.
          last: checkpoints of the whole state.
          best: checkpoints of the best variables.
          left: seconds that are left to this network and the following ones, and their number. What it takes until
            its first step is done, above all to compile what all share, is nobody's share.
          start: `time.monotonic()` when the work on this network began; now by default.
        """
        self.progress = progress
        self.clock = Clock(progress.step, progress.seconds, start)
        self._folder, self._reserved = folder, 0.0
        self.flops: float | None = None
        self._options, self._left, self._first_step = options, left, progress.step
        self._limit = left[0]  # Seconds of this network over all calls; known after its first step.
        self._validation, self._log, self._last, self._best = validation, log, last, best
        self._guard = NonFiniteGuard(options.on_nonfinite == "skip", progress.skipped, self._not_finite)

    def before_steps(self, state: TrainState) -> None:
        """With a time limit, compiles the evaluation and measures it: time for the last one and a save is reserved."""
        if self._limit < math.inf:
            size = sum(leaf.nbytes for leaf in jax.tree.leaves((state.arrays(), state.chosen_variables)))
            self._reserved = (
                self._validation.seconds(state.chosen_variables) + _SAVE_SECONDS + size / _SAVE_RATE
            )

    def on_step(self, step: int, metrics: dict[str, jax.Array], rate: float) -> None:
        """Takes the metrics of a step that was just dispatched; decides whether it is the last one."""
        self._guard.check(step, metrics)
        self._last.poll()
        done = step - self._first_step
        if done == 1:
            jax.block_until_ready(metrics)  # It was compiled.
            self.clock.compiled(step)
            took, (seconds, networks) = self.clock.total() - self.progress.seconds, self._left
            self._limit = took + (seconds - took) / networks
        logs = step % self._options.log_every == 0
        # One process looks at the time after each step; several have to agree, after 1, 2, 4, 8, ... steps.
        if self._limit < math.inf and (logs or done & (done - 1) == 0 or jax.process_count() == 1):
            self._predict_end(step)
        if logs:
            self._log_pace(step, rate)
        self.progress.step = step
        self.progress.finished = step >= self.progress.end_step
        self._log.advance(step, self.progress.end_step)

    def _predict_end(self, step: int) -> None:
        left, pace = self._limit - self.clock.total() - self._reserved, self.clock.steps_per_second(step)
        if pace or left <= 0:
            more = max(0, int(left * pace) - 1)  # This step was only dispatched.
            self.progress.end_step = broadcast_from_first(min(self._options.steps, step + more))

    def _log_pace(self, step: int, rate: float) -> None:
        pace = self.clock.steps_per_second(step)
        values = {
            **self._guard.settle(),
            "learning_rate": rate,
            "slices_per_second": pace * self._validation.batch_size,
            **self.clock.interval(step),
            **device_memory(),
        }
        if self._options.on_nonfinite == "skip":
            values["skipped_steps"] = self._guard.skipped
        peak = peak_flops()
        if self.flops and pace and peak:
            values["peak_flops_share"] = self.flops * pace / peak
        self._log.write(step, **values)

    def on_validate(self, step: int, state: TrainState) -> None:
        """Evaluates the validation slices, keeps the variables if they are the best so far, and applies `patience`."""
        options, progress = self._options, self.progress
        self._require_finite(step, state)
        scores = self._validation(state.chosen_variables)
        detection = scores.pop("detection", None)
        dice = {name: d for name, d in scores.items() if not math.isnan(d)}
        mean = float(np.mean(list(dice.values()))) if dice else 0.0
        others = {} if detection is None else {"validation_detection": detection}
        self._log.write(
            step, validation_dice=mean, **{f"validation_dice_{name}": d for name, d in dice.items()}, **others
        )
        self._log.print_validation(mean, detection)
        if detection is not None:  # Large tumours decide Dice, small ones detection.
            mean = (mean + detection) / 2
            dice["detection"] = detection
        self._log.add_images(step, *self._validation.examples)
        improves = mean >= progress.best_dice + options.min_delta
        progress.evaluations_without_improvement = (
            0 if improves else progress.evaluations_without_improvement + 1
        )
        if mean > progress.best_dice:
            progress.best_dice, progress.best_step = mean, step
            self._best.save(step, state.chosen_variables, {"step": step, "validation_dice": dice})
        if 0 < options.patience <= progress.evaluations_without_improvement:
            progress.finished = True

    def on_save(self, step: int, state: TrainState) -> None:
        """Starts to write the whole state, after the best variables, to which its facts refer, are complete."""
        self._require_finite(step, state)
        self.progress.seconds, self.progress.skipped = self.clock.total(), self._guard.skipped
        self._best.finish()
        self._last.save(step, state.arrays(), dataclasses.asdict(self.progress))

    def _require_finite(self, step: int, state: TrainState) -> None:
        """Raises `TrainingError` rather than keep a state that training cannot go on from."""
        self._guard.settle()
        if not all_finite(state.arrays()):
            self._not_finite(f"parameters that are not finite after step {step}", step)

    def _not_finite(self, what: str, culprit: int) -> None:
        """Raises `TrainingError`, after removing the checkpoint that gave it: the run would fail there again.

        Args:
          what: what was found.
          culprit: the step after which the parameters were those that gave it.
        """
        removed = self._last.discard(culprit)
        kept = self._last.newest()
        raise TrainingError(
            f"{self._folder}: {what}, expected finite values; "
            + (f"the checkpoint of step {culprit} gave it and was removed, " if removed else "")
            + (
                f"that of step {kept} is kept"
                if kept is not None
                else "no checkpoint is left, training starts anew"
            )
            + ". A lower train.learning_rate or train.clip_norm with --resume=force may help; if single batches cause "
            "it, train.on_nonfinite=skip"
        )


class NonFiniteGuard:
    """Checks that losses and gradients are finite, without waiting for the device.

    Reading a value waits until it is computed. The values of the previous step are available, or nearly so, once the
    next step has been dispatched; so the device never idles for the check.

    Attributes:
      skipped: number of steps so far whose loss or gradient was not finite, and which changed nothing.
    """

    def __init__(self, skip: bool, skipped: int, fail: Callable[[str, int], None]):
        """Starts to count.

        Args:
          skip: the step itself ignores what is not finite, so that it is only counted here.
          skipped: the count so far.
          fail: raises an error of what was found, and of the step after which the parameters were those that gave it.
        """
        self._skip = skip
        self.skipped = skipped
        self._fail = fail
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def check(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just dispatched, and checks those of the previous one.

        Raises:
          TrainingError: the loss or the gradient of the previous step was not finite.
        """
        self.settle()
        self._pending = (step, metrics)

    def settle(self) -> dict[str, float]:
        """Waits for the newest step and returns its finite metrics; raises like `check`. Empty if there is none."""
        if self._pending is None:
            return {}
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if finite == values:
            return values
        if not self._skip:
            found = f"loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}"
            self._fail(found, step - 1)
        self.skipped += 1
        return finite


# --- time and pace ------------------------------------------------------------------------------------------


class Clock:
    """Wall-clock time of a network's training, and its pace without the compilation in the first step."""

    def __init__(self, first_step: int, seconds_before: float, start: float | None = None):
        """``seconds_before``: time that earlier calls took; ``start``: when this one began, by default now."""
        self._start = time.monotonic() if start is None else start
        self._before = seconds_before
        self._first_step = first_step
        self._pace_start = self._start
        self._waited = 0.0
        self._interval = (first_step, self._start)

    def total(self) -> float:
        """Returns the seconds spent on the network over all calls."""
        return self._before + time.monotonic() - self._start

    def compiled(self, step: int) -> None:
        """Marks the end of the first step of this call."""
        self._first_step, self._pace_start = step, time.monotonic()
        self._interval, self._waited = (step, self._pace_start), 0.0

    def steps_per_second(self, step: int) -> float:
        """Returns the pace since the first step, or 0 if it is not known yet."""
        return (step - self._first_step) / max(time.monotonic() - self._pace_start, 1e-9)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within as waiting for data."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    def interval(self, step: int) -> dict[str, float]:
        """Returns the seconds per step since the last call, and the share of them spent waiting for data.

        Time of validation and of saving in between counts as well. Empty if no step was done since.
        """
        now = time.monotonic()
        (before, start), waited = self._interval, self._waited
        self._interval, self._waited = (step, now), 0.0
        if step == before:
            return {}
        return {"step_seconds": (now - start) / (step - before), "data_wait_share": waited / (now - start)}


def device_memory() -> dict[str, float]:
    """Returns the peak memory of the first local device in bytes, if the backend reports it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"device_memory_bytes": float(stats["peak_bytes_in_use"])} if "peak_bytes_in_use" in stats else {}


def peak_flops() -> float | None:
    """Returns the bfloat16 peak of all devices together in FLOP/s, or None if it is not known."""
    one = _PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return one and one * jax.device_count()


def step_flops(step_fn: jax.stages.Wrapped, *arguments: object) -> float | None:
    """Returns the floating point operations of a step as XLA counts them before optimising, or None.

    Nothing is compiled or run. ``arguments`` are those of the jitted step.
    """
    analysis = step_fn.lower(*arguments).cost_analysis()
    return float(analysis["flops"]) if analysis and "flops" in analysis else None
