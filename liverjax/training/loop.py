"""Training: one function from a config and a work folder to the trained networks of all views."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from liverjax.checkpoint.restarts import restart_folder
from liverjax.checkpoint.runs import Checkpoints
from liverjax.config import resolve
from liverjax.data.pipeline import train_batches
from liverjax.data.splits import Subsets, split_cases, usable_cases
from liverjax.data.store import open_store
from liverjax.errors import ConfigError, Interrupted, LiverjaxError, TrainingError
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.signals import StopSignals
from liverjax.training.logs import RunLog
from liverjax.training.looks import Monitor, Progress
from liverjax.training.mesh import barrier, data_mesh, describe_devices, replicated, to_devices
from liverjax.training.optim import build_optimizer, learning_rate
from liverjax.training.pace import peak_flops, step_flops
from liverjax.training.restarts import restart_seed, train_restarts
from liverjax.training.resume import start_or_resume
from liverjax.training.signals import StopAgreement
from liverjax.training.state import TrainState, init_state
from liverjax.training.step import jitted_train_step, step_options
from liverjax.training.validation import Validation


def train(
    config, workdir: str | os.PathLike, *, resume: str = "auto", quiet: bool = False
) -> dict[str, Progress]:
    """Trains the network of each view, or goes on where an earlier call stopped.

    On the same CPUs a resumed run ends with the same bits as one that was never stopped. With a time limit
    (``config.max_minutes``) the number of steps depends on the machine's speed, and so do the bits.

    Args:
      config: a `liverjax.options.Config`, or a ConfigDict as config files make it; ``config.store`` names the store.
      workdir: folder of the run. Written: ``run.json``, and for each view ``<view>/last`` and ``<view>/best``
        (checkpoints), ``<view>/log.jsonl``, ``<view>/tensorboard``; of a network for all views in ``shared/``. With
        several starts (``config.train.restarts``) these lie in ``<view>/start_<k>``, and ``<view>/starts.json`` says
        which were kept when.
      resume: "auto" refuses to go on with a run of another config or other scans; "force" goes on.
      quiet: print nothing and show no progress bars.

    Returns:
      The `Progress` of each view, or of the shared network; with several starts that of the best.

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
    with StopSignals() as stop:  # What comes before the first steps is obeyed after them.
        store = open_store(config.store, config.preprocess, config.target)
        parts = split_cases(usable_cases(store.cases, config.labels), config.split, config.seed)
        setup = _Setup(
            config=config,
            parts=parts,
            mesh=data_mesh(config.batch.size, config.train.accumulate),
            network=build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"),
            optimizer=build_optimizer(config.train),
        )
        barrier(setup.mesh)
        start_or_resume(workdir, config, store, parts, resume)
        if not quiet and jax.process_index() == 0:
            print(f"devices: {describe_devices()}")

        results: dict[str, Progress] = {}
        for index, view in enumerate(config.networks):
            limit = math.inf
            if config.max_minutes:
                spent = sum(progress.seconds for progress in results.values())
                limit = (config.max_minutes * 60 - spent) / (len(config.networks) - index)
            if config.train.restarts > 1:
                results[view] = _train_starts(setup, workdir / view, view, stop, quiet)
            else:
                results[view] = _train_view(
                    setup, workdir / view, view, config.train.steps, limit, stop, quiet
                )
    return results


@dataclasses.dataclass(frozen=True)
class _Setup:
    """What the views have in common."""

    config: Config
    parts: Subsets
    mesh: Mesh
    network: UNet
    optimizer: optax.GradientTransformation

    @property
    def optimizer_mesh(self) -> Mesh | None:
        """The devices that the optimiser's state is divided over, or None."""
        return self.mesh if self.config.train.shard_optimizer else None

    def first_state(self) -> TrainState:
        """Returns the state before the first step."""
        return init_state(
            self.network,
            self.optimizer,
            self.config.batch.patch,
            self.config.seed,
            replicated(self.mesh),
            averaged=bool(self.config.train.ema_decay),
            optimizer_mesh=self.optimizer_mesh,
        )

    def key(self) -> jax.Array:
        """Returns the run's key, on all devices."""
        return jax.jit(lambda: jax.random.key(self.config.seed), out_shardings=replicated(self.mesh))()


def _train_starts(setup: _Setup, folder: pathlib.Path, view: str, stop: StopSignals, quiet: bool) -> Progress:
    """Trains several networks of a view, each with its own seed; returns how far the best is."""
    config = setup.config
    tells = not quiet and jax.process_index() == 0

    def train_one(start: int, until: int) -> Progress:
        seeded = dataclasses.replace(config, seed=restart_seed(config.seed, start))
        own = dataclasses.replace(setup, config=seeded)
        return _train_view(own, restart_folder(folder, start), view, until, math.inf, stop, quiet)

    return train_restarts(folder, config.train, train_one, tell=print if tells else lambda line: None)


def _train_view(
    setup: _Setup,
    folder: pathlib.Path,
    view: str,
    until: int,
    limit: float,
    stop: StopSignals,
    quiet: bool,
) -> Progress:
    """Trains one network up to step ``until``, saved there, for at most ``limit`` seconds over all calls.

    What is stopped at a step before the last, and goes on later, ends with the bits of what never stopped.
    """
    config = setup.config
    name = view if folder.name == view else f"{view}/{folder.name}"
    with Checkpoints(folder / "last", keep=2) as last, Checkpoints(folder / "best", keep=1) as best:
        state, progress = setup.first_state(), Progress(end_step=config.train.steps)
        if restored := last.restore(state.arrays()):
            _, arrays, facts = restored
            state, progress = TrainState(**arrays), Progress(**facts)
        if progress.finished or int(state.step) >= until:
            return progress
        validation = Validation(setup.parts.validation, view, config, setup.network, setup.mesh)
        with RunLog(folder, name, first_step=int(state.step), steps=progress.end_step, quiet=quiet) as log:
            looks = Monitor(config, folder, int(state.step), limit, progress, validation, log, last, best)
            _take_steps(setup, view, state, until, looks, StopAgreement(stop, setup.mesh), name)
    return progress


def _take_steps(
    setup: _Setup,
    view: str,
    state: TrainState,
    until: int,
    looks: Monitor,
    stop: StopAgreement,
    name: str,
) -> None:
    """Takes steps up to ``until`` or the end; raises `Interrupted` where a signal ends them before, saved."""
    options, progress = setup.config.train, looks.progress
    key = setup.key()
    static = step_options(setup.config, setup.network, setup.optimizer, setup.optimizer_mesh)
    step = first_step = int(state.step)
    rows = {"process": jax.process_index(), "processes": jax.process_count()}
    batches = train_batches(
        setup.parts.train, view, setup.config, first_step=step, last_step=min(until, options.steps), **rows
    )
    while step < until and not progress.finished:
        with looks.clock.waiting():
            batch = to_devices(_next_batch(batches, looks.folder), setup.mesh)
        rate = learning_rate(options, step, progress.end_step)
        arguments = (state, batch, np.float32(rate), key)
        if step == first_step and peak_flops():
            looks.flops = step_flops(jitted_train_step, arguments, static)
        state, metrics = jitted_train_step(*arguments, **static)
        step += 1
        stops = stop.reached()  # After this step: it is saved below, and the run ends.
        looks.note(step, metrics)
        if step % options.log_every == 0:
            looks.log_pace(step, rate)
        progress.finished = step >= progress.end_step
        if step % options.validate_every == 0 or progress.finished:
            looks.validate(step, state)
        looks.log.advance(step, progress.end_step)
        if step % options.save_every == 0 or step == until or progress.finished or stops:
            looks.save(step, state)
        if stops and not progress.finished:
            looks.last.finish()
            raise Interrupted(f"{stop.reason} after step {step} of {name}; saved, the same command goes on")


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
