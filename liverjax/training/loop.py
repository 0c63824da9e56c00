"""Training: one function from a config and a work folder to the trained networks of all views."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from liverjax.checkpoint.runs import Checkpoints
from liverjax.config import differences, resolve
from liverjax.data.pipeline import train_batches
from liverjax.data.splits import Parts, split_cases, usable_cases
from liverjax.data.store import open_store
from liverjax.errors import ConfigError, Interrupted, LiverjaxError, TrainingError
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.training.health import FiniteWatch
from liverjax.training.logs import RunLog
from liverjax.training.mesh import data_mesh, describe_devices, on_any_process, replicated, to_devices
from liverjax.training.optim import build_optimizer, learning_rate
from liverjax.training.pace import Clock, device_memory, peak_flops, step_flops
from liverjax.training.resume import start_or_resume
from liverjax.training.signals import StopSignals
from liverjax.training.state import TrainState, init_state
from liverjax.training.step import jitted_train_step
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
      looks_without_gain: looks since the validation Dice last rose by ``train.min_delta``.
      skipped: steps that changed nothing, for their loss or gradient was not finite (``train.on_nonfinite``).
    """

    end_step: int
    seconds: float = 0.0
    finished: bool = False
    best_dice: float = -1.0
    best_step: int = 0
    looks_without_gain: int = 0
    skipped: int = 0


def train(
    config, workdir: str | os.PathLike, *, resume: str = "auto", quiet: bool = False
) -> dict[str, Progress]:
    """Trains the network of each view, or goes on where an earlier call stopped.

    On the same CPUs a resumed run ends with the same bits as one that was never stopped. With a time limit
    (``config.max_minutes``) the number of steps depends on the machine's speed, and so do the bits.

    Args:
      config: a `liverjax.options.Config`, or a ConfigDict as config files make it; ``config.store`` names the store.
      workdir: folder of the run. Written: ``run.json``, and for each view ``<view>/last`` and ``<view>/best``
        (checkpoints), ``<view>/log.jsonl``, ``<view>/tensorboard``; of a network for all views in ``shared/``.
      resume: "auto" refuses to go on with a run of another config or other scans; "force" goes on.
      quiet: print nothing and show no progress bars.

    Returns:
      The `Progress` of each view, or of the shared network.

    Raises:
      ConfigError: a value that does not fit the store or the machine.
      CheckpointError: the folder holds a run of another config or other data.
      InputError: a case of the store cannot be read.
      TrainingError: a loss or gradient that is not finite, or a data worker that ended. The last checkpoint is kept.
      Interrupted: SIGTERM or SIGINT came; the state was saved.
    """
    config = resolve(config)
    workdir = pathlib.Path(workdir)
    if not config.store:
        raise ConfigError("store is empty, expected the folder that `liverjax prepare` wrote")
    store = open_store(config.store)
    if store.preprocess != config.preprocess:
        changed = ", ".join(differences(store.preprocess, config.preprocess, "preprocess.").values())
        raise ConfigError(f"store {config.store} was prepared with other values of the config: {changed}")
    parts = split_cases(usable_cases(store.cases, config.labels), config.split, config.seed)
    setup = _Setup(
        config=config,
        parts=parts,
        mesh=data_mesh(config.batch.size, config.train.accumulate),
        network=build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"),
        optimizer=build_optimizer(config.train),
    )
    start_or_resume(workdir, config, store, parts, resume)
    if not quiet and jax.process_index() == 0:
        print(f"devices: {describe_devices()}")

    results: dict[str, Progress] = {}
    with StopSignals() as stop:
        for index, view in enumerate(config.networks):
            limit = math.inf
            if config.max_minutes:
                spent = sum(progress.seconds for progress in results.values())
                limit = (config.max_minutes * 60 - spent) / (len(config.networks) - index)
            results[view] = _train_view(setup, workdir / view, view, limit, stop, quiet)
    return results


@dataclasses.dataclass(frozen=True)
class _Setup:
    """What the views have in common."""

    config: Config
    parts: Parts
    mesh: Mesh
    network: UNet
    optimizer: optax.GradientTransformation


def _train_view(
    setup: _Setup, folder: pathlib.Path, view: str, limit: float, stop: StopSignals, quiet: bool
) -> Progress:
    """Trains one view, for at most ``limit`` seconds over all starts."""
    config, options, mesh = setup.config, setup.config.train, setup.mesh
    network, optimizer = setup.network, setup.optimizer
    step_fn = functools.partial(
        jitted_train_step,
        network=network,
        optimizer=optimizer,
        augmentation=config.augment,
        loss_weights=config.loss,
        accumulate=options.accumulate,
        ema_decay=options.ema_decay,
        skip_nonfinite=options.on_nonfinite == "skip",
    )
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=replicated(mesh))()
    averaged = bool(options.ema_decay)
    state = init_state(
        network, optimizer, config.batch.patch, config.seed, replicated(mesh), averaged=averaged
    )
    progress = Progress(end_step=options.steps)

    with Checkpoints(folder / "last", keep=2) as last, Checkpoints(folder / "best", keep=1) as best:
        if restored := last.restore(state.arrays()):
            _, arrays, facts = restored
            state, progress = TrainState(**arrays), Progress(**facts)
        if progress.finished:
            return progress
        step = first_step = int(state.step)
        clock = Clock(step, progress.seconds)
        watch = FiniteWatch(folder, skip=options.on_nonfinite == "skip", skipped=progress.skipped)
        validate = Validation(setup.parts.validation, view, config, network, mesh)
        rows = {"process": jax.process_index(), "processes": jax.process_count()}
        batches = train_batches(
            setup.parts.train, view, config, first_step=step, last_step=options.steps, **rows
        )
        flops, asked = None, None

        with RunLog(folder, view, first_step=step, steps=progress.end_step, quiet=quiet) as log:
            while not progress.finished:
                with clock.waiting():
                    batch = to_devices(_next_batch(batches, folder), mesh)
                rate = learning_rate(options, step, progress.end_step)
                arguments = (state, batch, np.float32(rate), key)
                if step == first_step and peak_flops():
                    flops = step_flops(jitted_train_step, arguments, step_fn.keywords)
                state, metrics = step_fn(*arguments)
                if jax.process_count() == 1:
                    stops = bool(stop.received)
                else:  # The answer to the question of the step before: it is there without a wait.
                    stops = asked is not None and bool(asked)
                    asked = on_any_process(bool(stop.received), mesh)
                step += 1
                watch.note(step, metrics)
                last.poll()
                if step == first_step + 1:
                    jax.block_until_ready(metrics)
                    clock.compiled(step)
                if step % options.log_every == 0:
                    pace = clock.steps_per_second(step)
                    values = {
                        **watch.settle(),
                        "learning_rate": rate,
                        "slices_per_second": pace * config.batch.size,
                        **clock.look(step),
                        **device_memory(),
                    }
                    if options.on_nonfinite == "skip":
                        values["skipped_steps"] = watch.skipped
                    if flops and pace:
                        values["peak_flops_share"] = flops * pace / peak_flops()
                    log.write(step, **values)
                    if limit < math.inf and pace:
                        left = int((limit - clock.total()) * pace)
                        progress.end_step = _of_first_process(min(options.steps, step + max(0, left)))
                progress.finished = step >= progress.end_step
                if step % options.validate_every == 0 or progress.finished:
                    watch.settle()
                    dice = validate(state.chosen_variables)
                    mean = float(np.mean(list(dice.values())))
                    log.write(step, validation_dice=mean, **_prefixed(dice))
                    log.show(step, *validate.examples)
                    if _note_look(progress, mean, step, options.min_delta):
                        facts = {"view": view, "step": step, "validation_dice": dice}
                        best.save(step, state.chosen_variables, facts)
                    if options.patience and progress.looks_without_gain >= options.patience:
                        progress.finished = True
                log.advance(step, progress.end_step)
                if step % options.save_every == 0 or progress.finished or stops:
                    watch.settle()
                    progress.seconds, progress.skipped = clock.total(), watch.skipped
                    best.finish()  # Before the last says that there is one.
                    last.save(step, state.arrays(), dataclasses.asdict(progress))
                if stops and not progress.finished:
                    last.finish()
                    reason = stop.received or "a signal to another process"
                    raise Interrupted(
                        f"{reason} after step {step} of {view}; saved, the same command goes on"
                    )
    return progress


def _next_batch(batches: Iterator[dict[str, np.ndarray]], folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the next batch; whatever ends a thread or worker of the pipeline becomes an error that says so."""
    try:
        return next(batches)
    except LiverjaxError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{folder}: reading batches failed: {error}; the last checkpoint is kept"
        ) from error


def _of_first_process(value: int) -> int:
    """Returns the first process's value on all: their clocks differ, their last step must not."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _prefixed(dice: dict[str, float]) -> dict[str, float]:
    return {f"validation_dice_{name}": value for name, value in dice.items()}


def _note_look(progress: Progress, dice: float, step: int, min_delta: float) -> bool:
    """Takes a look's Dice into the progress; returns whether it is the best so far."""
    progress.looks_without_gain = (
        0 if dice >= progress.best_dice + min_delta else progress.looks_without_gain + 1
    )
    if dice <= progress.best_dice:
        return False
    progress.best_dice, progress.best_step = dice, step
    return True
