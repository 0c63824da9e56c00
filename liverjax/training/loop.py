"""Training: one function from a config and a work folder to the trained networks of all views."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
import time

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from liverjax.checkpoint.manifest import read_manifest, write_manifest
from liverjax.checkpoint.runs import Checkpoints
from liverjax.config import differences, resolve, to_dict
from liverjax.data.pipeline import train_batches
from liverjax.data.splits import Parts, split_cases
from liverjax.data.store import Store, StoredCase, open_store
from liverjax.errors import CheckpointError, ConfigError, Interrupted, TrainingError
from liverjax.files import write_json
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.training.logs import RunLog
from liverjax.training.mesh import data_mesh, describe_devices, replicated, to_devices
from liverjax.training.optim import build_optimizer, learning_rate
from liverjax.training.signals import StopSignals
from liverjax.training.state import init_state
from liverjax.training.step import jitted_train_step
from liverjax.training.validation import Validation
from liverjax.views import VIEWS

_LOG = logging.getLogger("liverjax")

#: Config fields that may differ between a run and its resumption: none of them changes what a step computes.
_FREE_FIELDS = (
    "store",
    "max_minutes",
    "views",
    "batch.threads",
    "batch.workers",
    "batch.prefetch",
    "predict",
)


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
    """

    end_step: int
    seconds: float = 0.0
    finished: bool = False
    best_dice: float = -1.0
    best_step: int = 0
    looks_without_gain: int = 0


def train(config, workdir: str | os.PathLike, *, quiet: bool = False) -> dict[str, Progress]:
    """Trains the network of each view, or goes on where an earlier call stopped.

    On the same CPUs a resumed run ends with the same bits as one that was never stopped. With a time limit
    (``config.max_minutes``) the number of steps depends on the machine's speed, and so do the bits.

    Args:
      config: a `liverjax.options.Config`, or a ConfigDict as config files make it; ``config.store`` names the store.
      workdir: folder of the run. Written: ``run.json``, and for each view ``<view>/last`` and ``<view>/best``
        (checkpoints), ``<view>/log.jsonl``, ``<view>/tensorboard``.
      quiet: print nothing and show no progress bars.

    Returns:
      The `Progress` of each view.

    Raises:
      ConfigError: a value that does not fit the store or the machine.
      CheckpointError: the folder holds a run of another config or other data.
      TrainingError: a loss that is not finite. The last checkpoint is kept.
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
    parts = split_cases(_with_wanted_labels(store, config), config.split)
    setup = _Setup(
        config=config,
        parts=parts,
        mesh=data_mesh(config.batch.size),
        network=build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"),
        optimizer=build_optimizer(config.train.clip_norm),
    )
    _start_or_resume(workdir, config, store, parts)
    if not quiet:
        print(f"devices: {describe_devices()}")

    results: dict[str, Progress] = {}
    with StopSignals() as stop:
        for index, view in enumerate(config.views):
            limit = math.inf
            if config.max_minutes:
                spent = sum(progress.seconds for progress in results.values())
                limit = (config.max_minutes * 60 - spent) / (len(config.views) - index)
            results[view] = _train_view(setup, workdir / view, view, limit, stop, quiet)
    return results


def _with_wanted_labels(store: Store, config: Config) -> list[StoredCase]:
    """Returns the cases whose masks tell all classes apart; the others would teach that tumour is liver."""
    left_out = [case.id for case in store.cases if case.liver_only and "tumor" in config.labels]
    if left_out:
        _LOG.warning("not used, for their masks do not tell tumours from the liver: %s", ", ".join(left_out))
    return [case for case in store.cases if case.id not in left_out]


def _start_or_resume(workdir: pathlib.Path, config: Config, store: Store, parts: Parts) -> None:
    """Writes ``run.json``, or refuses to go on with a run that was started with something else."""
    manifest = workdir / "run.json"
    fingerprint = hashlib.sha256(
        json.dumps([(c.id, c.fingerprint) for c in store.cases]).encode()
    ).hexdigest()
    if manifest.exists():
        before = read_manifest(manifest)
        changed = [
            text
            for path, text in differences(resolve(before["config"]), config).items()
            if not path.startswith(_FREE_FIELDS)
        ]
        if before["data"]["fingerprint"] != fingerprint:
            changed.append(f"the scans and masks of the store {config.store}")
        if changed:
            raise CheckpointError(
                f"{workdir} holds a run that differs in: {', '.join(changed)}; choose another --workdir, "
                "or the values of that run"
            )
        # Views may be trained by separate calls: the run is that of all of them.
        views = tuple(view for view in VIEWS if view in {*before["config"]["views"], *config.views})
        if list(views) != list(before["config"]["views"]) and jax.process_index() == 0:
            write_json(manifest, {**before, "config": {**before["config"], "views": views}})
        return
    data = {
        "fingerprint": fingerprint,
        **{f.name: [case.id for case in getattr(parts, f.name)] for f in dataclasses.fields(parts)},
    }
    if jax.process_index() == 0:
        write_manifest(manifest, config=to_dict(config), data=data)


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
    )
    key = jax.random.key(config.seed)
    state = init_state(network, optimizer, config.batch.patch, config.seed, replicated(mesh))
    progress = Progress(end_step=options.steps)

    with Checkpoints(folder / "last", keep=2) as last, Checkpoints(folder / "best", keep=1) as best:
        if restored := last.restore(state):
            _, state, facts = restored
            progress = Progress(**facts)
        if progress.finished:
            return progress
        step = first_step = int(state.step)
        clock = _Clock(step, progress.seconds)
        validate = Validation(setup.parts.validation, view, config, network, mesh)
        rows = {"process": jax.process_index(), "processes": jax.process_count()}
        batches = train_batches(
            setup.parts.train, view, config, first_step=step, last_step=options.steps, **rows
        )

        with RunLog(folder, view, first_step=step, steps=progress.end_step, quiet=quiet) as log:
            while not progress.finished:
                batch = to_devices(next(batches), mesh)
                rate = learning_rate(options, step, progress.end_step)
                state, metrics = step_fn(state, batch, np.float32(rate), key)
                step += 1
                last.poll()
                if step == first_step + 1:
                    jax.block_until_ready(metrics)
                    clock.compiled(step)
                if step % options.log_every == 0:
                    loss, norm = _finite(metrics, step, folder)
                    pace = clock.steps_per_second(step)
                    slices_per_second = pace * config.batch.size
                    log.write(
                        step,
                        loss=loss,
                        gradient_norm=norm,
                        learning_rate=rate,
                        slices_per_second=slices_per_second,
                    )
                    if limit < math.inf and pace:
                        left = int((limit - clock.total()) * pace)
                        progress.end_step = min(options.steps, step + max(0, left))
                progress.finished = step >= progress.end_step
                if step % options.validate_every == 0 or progress.finished:
                    _finite(metrics, step, folder)
                    dice = validate(state.variables)
                    log.write(step, validation_dice=float(np.mean(list(dice.values()))), **_prefixed(dice))
                    if _note_look(progress, float(np.mean(list(dice.values()))), step, options.min_delta):
                        best.save(
                            step, state.variables, {"view": view, "step": step, "validation_dice": dice}
                        )
                    if options.patience and progress.looks_without_gain >= options.patience:
                        progress.finished = True
                log.advance(step, progress.end_step)
                if step % options.save_every == 0 or progress.finished or stop.received:
                    _finite(metrics, step, folder)
                    progress.seconds = clock.total()
                    best.finish()  # Before the last says that there is one.
                    last.save(step, state, dataclasses.asdict(progress))
                if stop.received and not progress.finished:
                    last.finish()
                    raise Interrupted(
                        f"{stop.received} after step {step} of {view}; saved, the same command goes on"
                    )
    return progress


def _finite(metrics: dict[str, jax.Array], step: int, folder: pathlib.Path) -> tuple[float, float]:
    """Returns loss and gradient norm, or raises `TrainingError` if one of them is not finite."""
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"{folder}: loss {loss} and gradient norm {norm} at step {step}, expected finite values; the last "
            "checkpoint is kept. A lower train.learning_rate or train.clip_norm may help"
        )
    return loss, norm


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


class _Clock:
    """Wall-clock time of a view, and its pace without the compilation that the first step waits for."""

    def __init__(self, first_step: int, seconds_before: float):
        self._start = time.monotonic()
        self._before = seconds_before
        self._first_step = first_step
        self._pace_start = self._start

    def total(self) -> float:
        """Returns the seconds spent on the view over all starts."""
        return self._before + time.monotonic() - self._start

    def compiled(self, step: int) -> None:
        """Tells that the first step of this start is done."""
        self._first_step, self._pace_start = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        """Returns the pace, or 0 where it is not known yet."""
        return (step - self._first_step) / max(time.monotonic() - self._pace_start, 1e-9)
