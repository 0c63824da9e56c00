"""Training, from a config and a work folder to the trained networks of all views: one file, to be read top to bottom.

A network's variables come from, in this order: the newest sound checkpoint of the run, the network that the caller
starts from (``init``), random numbers of the config's seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from liverjax.checkpoint.restarts import restart_folder
from liverjax.checkpoint.runs import Checkpoints, MisfitError
from liverjax.config import resolve
from liverjax.data.pipeline import train_batches, validation_batches
from liverjax.data.sampling import Sampler
from liverjax.data.splits import Subsets, require_tumors, split_cases, usable_cases, validated_on_real
from liverjax.data.store import StoredCase, open_store
from liverjax.errors import CheckpointError, ConfigError, Interrupted, LiverjaxError, TrainingError
from liverjax.files import local_path
from liverjax.options import Config
from liverjax.own import OwnFunction, own_functions
from liverjax.signals import StopSignals
from liverjax.training.callback import Callback, Listener, StopTraining
from liverjax.training.distributed import (
    StopAgreement,
    barrier,
    data_mesh,
    describe_devices,
    is_first_process,
    replicated,
    to_devices,
)
from liverjax.training.logs import RunLog
from liverjax.training.mining import mine
from liverjax.training.monitor import Monitor, Progress, peak_flops, step_flops
from liverjax.training.optim import learning_rate
from liverjax.training.own import require_sound
from liverjax.training.restarts import require_selections, restart_seed, train_restarts
from liverjax.training.resume import locked_run, start_or_resume
from liverjax.training.run_report import RunReport
from liverjax.training.step import TrainState, init_state, jitted_train_step, start_from, step_spec
from liverjax.training.validation import Validation

_LOG = logging.getLogger("liverjax")


def train(
    config: Config | ConfigDict,
    workdir: str | os.PathLike,
    *,
    init: Mapping[str, Any] | None = None,
    resume: str = "auto",
    quiet: bool = False,
    callback: Callback | None = None,
) -> dict[str, Progress]:
    """Trains the network of each view, or continues where an earlier call stopped.

    On the same CPUs a resumed run ends with the same bits as one that was never stopped. With a time limit
    (``config.max_minutes``) the number of steps depends on the machine's speed, and so do the bits.

    Args:
      config: a `liverjax.options.Config`, or a ConfigDict as config files make it; ``config.store`` names the store.
      workdir: folder of the run. Written: ``run.json``, ``report.html``, and for each view ``<view>/last`` and
        ``<view>/best`` (checkpoints), ``<view>/log.jsonl``, ``<view>/tensorboard``; of a network for all views in
        ``shared/``. If ``config.train.restarts`` is above 1, these lie in ``<view>/restart_<k>``, and
        ``<view>/restarts.json`` records which were kept when.
      init: for each network (view, or "shared") the variables of a trained one, "params" and "batch_stats", from which
        it starts; arrays that do not fit by name and shape start at random, and are listed in the log.
      resume: "auto" refuses to continue a run of another config or other scans; "force" continues it.
      quiet: print nothing and show no progress bars.
      callback: called as ``callback(step, view, metrics)`` whenever the log takes numbers, which they are: every
        ``train.log_every`` steps ("loss", "learning_rate", ...) and after each validation ("validation_dice", ...). It
        has no influence on the result. `StopTraining` raised in it saves and ends the training, which returns; whatever
        else it raises is raised here, once the state is saved. Of several processes only the first calls it.

    Returns:
      The `Progress` of each view, or of the shared network; of the best if there are restarts. If the callback stopped
      the training, of those that were finished.

    Raises:
      ConfigError: a value that does not fit the store or the machine, or a function of an own file that fails.
      CheckpointError: the folder holds a run of another config or other data.
      LockedError: another process trains in this folder.
      InputError: a case of the store cannot be read.
      TrainingError: a loss or gradient that is not finite, or a data worker that ended. The last checkpoint is kept.
      Interrupted: SIGTERM or SIGINT was received (in a notebook: its kernel was interrupted), or another process was
        stopped; the state was saved.
    """
    began = time.monotonic()
    config, workdir = resolve(config), local_path(workdir, "workdir")
    if not config.store:
        raise ConfigError("store is empty, expected the folder that `liverjax prepare` wrote")
    with StopSignals() as stop:
        store = open_store(config.store, config.preprocess, config.target)
        if doubtful := [case for case in store.cases if case.doubts]:
            first = doubtful[0]
            _LOG.warning(
                "%d of the store's %d cases are doubtful, the first %s: %s",
                len(doubtful),
                len(store.cases),
                first.id,
                first.doubts[0],
            )
        subsets = split_cases(usable_cases(store.cases, config.labels), config.split, config.seed)
        subsets = validated_on_real(subsets)
        require_tumors(subsets, config)
        own = own_functions(config)  # Once: a file that changes while this runs changes nothing.
        require_sound(own, config)
        mesh = data_mesh(config.batch.size, config.train.accumulate)
        listener, report = Listener(callback), RunReport(workdir)
        jobs = [
            _Job(
                config,
                name,
                workdir / name,
                subsets,
                mesh,
                (init or {}).get(name),
                quiet,
                report,
                listener,
                own,
            )
            for name in config.networks
        ]
        for job in jobs:  # Before anything is written: a run that cannot start would refuse a better config.
            Sampler(subsets.train, config.views_of(job.name), config.batch, config.seed)
        barrier(mesh)
        with locked_run(workdir):
            fit = functools.partial(_require_fit, workdir=workdir, mesh=mesh)
            start_or_resume(workdir, config, store, subsets, init, resume, fit, own)
            if is_first_process() and not quiet:
                print(f"devices: {describe_devices()}", flush=True)
            results: dict[str, Progress] = {}
            spent = time.monotonic() - began
            with contextlib.suppress(StopTraining):
                for index, job in enumerate(jobs):
                    start = time.monotonic()
                    if config.max_minutes:
                        job = dataclasses.replace(
                            job, left=(config.max_minutes * 60 - spent, len(jobs) - index)
                        )
                    progress = _train_restarts(job, stop) if config.train.restarts > 1 else _train(job, stop)
                    results[job.name] = progress
                    # That of earlier calls as well; and what this one took to open and to save.
                    spent += max(progress.seconds, time.monotonic() - start)
                listener.reraise(str(workdir))  # Of several processes, after the last step of all.
            report.finish()
    return results


@dataclasses.dataclass(frozen=True)
class _Job:
    """The training of one network: all that does not change from step to step."""

    config: Config
    name: str  # a view, or "shared"
    folder: pathlib.Path
    subsets: Subsets[StoredCase]
    mesh: Mesh
    init: Any
    quiet: bool
    report: RunReport
    listener: Listener
    own: Mapping[str, OwnFunction]
    left: tuple[float, int] = (math.inf, 1)  # seconds, and the networks that share them

    @property
    def label(self) -> str:
        return self.name if self.folder.name == self.name else f"{self.name}/{self.folder.name}"


def _require_fit(config: Config, workdir: pathlib.Path, mesh: Mesh) -> None:
    """Restores all checkpoints of a run, so that it is refused in another config if one of them does not fit.

    Raises:
      CheckpointError: a checkpoint, or the record of the restarts, does not fit the config.
    """
    state = init_state(step_spec(config, mesh, {}), config.batch.patch, config.seed, replicated(mesh))
    folders = [workdir / name for name in config.networks]
    if config.train.restarts > 1:
        for folder in folders:
            require_selections(folder, config.train)
        folders = [restart_folder(folder, k) for folder in folders for k in range(config.train.restarts)]
    for folder, (kind, template) in itertools.product(
        folders, {"last": state.arrays(), "best": state.chosen_variables}.items()
    ):
        if not (folder / kind).is_dir():
            continue
        try:
            with Checkpoints(folder / kind, keep=2) as checkpoints:
                restored = checkpoints.restore(template)
        except MisfitError as error:
            raise CheckpointError(
                f"{error}; nothing was changed. A run in another --workdir with --init={workdir} starts from what fits"
            ) from None
        if restored and kind == "last":
            Progress.of_checkpoint(restored[2], folder / kind)


def _train_restarts(job: _Job, stop: StopSignals) -> Progress:
    """Trains several networks of a view, each with its own seed; returns the progress of the best."""

    def train_one(restart: int, until: int) -> Progress:
        config = dataclasses.replace(job.config, seed=restart_seed(job.config.seed, restart))
        own = dataclasses.replace(job, config=config, folder=restart_folder(job.folder, restart))
        return _train(own, stop, until)

    log = print if is_first_process() and not job.quiet else lambda line: None
    return train_restarts(job.folder, job.config.train, train_one, log=log)


def _train(job: _Job, stop: StopSignals, until: int | None = None) -> Progress:
    """Trains one network to its end, or to step ``until``, where it is saved.

    What is stopped before its end and continued later ends with the bits of what was never stopped.
    """
    start = time.monotonic()
    config, options = job.config, job.config.train
    until = options.steps if until is None else until

    # --- the step
    spec = step_spec(config, job.mesh, job.own)
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=replicated(job.mesh))()

    with Checkpoints(job.folder / "last", keep=2) as last, Checkpoints(job.folder / "best", keep=1) as best:
        # --- the state: from the checkpoint, from another network, or at random
        state = init_state(spec, config.batch.patch, config.seed, replicated(job.mesh))
        if restored := last.restore(state.arrays()):
            _, arrays, facts = restored
            before = Progress.of_checkpoint(facts, job.folder / "last")
            state, progress = TrainState(**arrays), Progress.at_start(config, before)
        else:
            progress = Progress.at_start(config)
            if job.init is not None:
                state, missing = start_from(state, job.init)
                if missing:
                    _LOG.warning(
                        "%s: starts at random, for want of a match: %s", job.folder, "; ".join(missing)
                    )
        if progress.finished or progress.step >= until:
            return progress

        # --- the data
        validation = Validation(
            validation_batches(job.subsets.validation, job.name, config),
            config.labels[1:],
            spec.network,
            job.mesh,
            decision=config.predict.decision,
        )
        read = functools.partial(
            train_batches,
            job.subsets.train,
            job.name,
            config,
            last_step=min(until, options.steps),
            process=jax.process_index(),
            processes=jax.process_count(),
        )
        batches = read(first_step=progress.step, mined=progress.mined)

        # --- the loop
        agreement = StopAgreement(stop, job.mesh, asks=lambda: job.listener.raised is not None)
        step = progress.step
        log = RunLog(
            job.folder,
            job.label,
            first_step=step,
            steps=progress.end_step,
            quiet=job.quiet,
            listener=functools.partial(job.listener, job.name),
        )
        times = {"left": job.left, "start": start}
        monitor = Monitor(job.folder, options, progress, validation, log, last, best, **times)
        with log:
            monitor.before_steps(state)
            if (
                stop.received and jax.process_count() == 1
            ):  # Of several, all have to stop after the same step.
                raise Interrupted(f"{stop.received} before a step of {job.label}; the same command goes on")
            while step < until and not progress.finished:
                with monitor.clock.waiting():
                    batch = to_devices(_next_batch(batches, job.folder), job.mesh)
                rate = learning_rate(options, step, progress.end_step)
                arguments = (state, batch, np.float32(rate), key, spec)
                if monitor.flops is None and peak_flops():
                    monitor.flops = step_flops(jitted_train_step, *arguments)
                state, metrics = jitted_train_step(*arguments)
                step += 1
                monitor.on_step(step, metrics, rate)
                if step % options.validate_every == 0 or progress.finished:
                    monitor.on_validate(step, state)
                    job.report.refresh()
                    if config.batch.mined_share and not progress.finished:
                        progress.mined = mine(
                            state.chosen_variables, job.subsets.train, job.name, config, job.mesh, step
                        )
                        batches.close()  # What was read ahead was drawn from the slices mined before.
                        batches = read(first_step=step, mined=progress.mined)
                stops = agreement.reached()  # After this step: it is saved below, and the run ends.
                if step % options.save_every == 0 or step == until or progress.finished or stops:
                    monitor.on_save(step, state)
                if stops:
                    last.finish()
                    job.listener.reraise(f"step {step} of {job.label}")
                if stops and not progress.finished:
                    raise Interrupted(
                        f"{agreement.reason} after step {step} of {job.label}; saved, the same command goes on"
                    )
    return progress


def _next_batch(batches: Iterator[dict[str, np.ndarray]], folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the next batch; whatever ends a thread or worker of the pipeline becomes an error that names it."""
    try:
        return next(batches)
    except LiverjaxError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{folder}: reading batches failed: {' '.join(str(error).split())}; the last checkpoint is kept"
        ) from error
