"""Restarts of a view: their seeds, when they are compared, and which of them continue.

After Haensch 2022: networks that start from different random numbers are trained side by side, and after given numbers
of steps the better half by validation continues (successive halving).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from liverjax.checkpoint.restarts import Selection, read_selections, write_selections
from liverjax.errors import CheckpointError
from liverjax.options import Train
from liverjax.training.monitor import Progress


def restart_seed(seed: int, restart: int) -> int:
    """Returns the seed of a restart: to the bit, it is trained like a single network with that seed.

    Restart 0 has the run's own seed, the others 32 bits drawn from (seed, restart).
    """
    return int(np.random.SeedSequence((seed, restart)).generate_state(1)[0]) if restart else seed


def comparisons(options: Train) -> list[tuple[int, int, int]]:
    """Returns after how many steps restarts are compared, how many there are then, and how many are kept.

    After each number of steps in ``halving_steps`` half of them is kept, rounded up; at the end of training all.
    """
    found, left = [], options.restarts
    for step in options.halving_steps:
        if step <= options.steps and left > 1:
            found.append((step, left, (left + 1) // 2))
            left = (left + 1) // 2
    return found if found and found[-1][0] == options.steps else [*found, (options.steps, left, left)]


def ranked(dice: Mapping[int, float]) -> list[int]:
    """Returns the restarts by their validation Dice, the best first; of equal ones the lower number first."""
    return sorted(dice, key=lambda restart: (-dice[restart], restart))


def require_selections(folder: pathlib.Path, options: Train) -> list[Selection]:
    """Returns the comparisons so far of a view's restarts.

    Raises:
      CheckpointError: the record is damaged, or its comparisons are not the config's.
    """
    done, plan = read_selections(folder), comparisons(options)
    before = [(selection.step, len(selection.dice), len(selection.kept)) for selection in done]
    if before != plan[: len(before)]:
        raise CheckpointError(
            f"{folder}: its record of (steps, restarts compared, restarts kept) is {before}, the config's is {plan}"
        )
    return done


def train_restarts(
    folder: pathlib.Path,
    options: Train,
    train_one: Callable[[int, int], Progress],
    log: Callable[[str], None],
) -> Progress:
    """Trains the restarts of a view one after another, or continues where an earlier call stopped.

    Args:
      folder: of the view. Beside the restarts' folders ``restarts.json`` is written: which were kept when.
      options: of the config.
      train_one: trains a restart up to a step, continues it, or does nothing if that is done.
      log: takes a line on what is ahead, and one after each comparison.

    Returns:
      The progress of the best.

    Raises:
      CheckpointError: ``restarts.json`` is damaged, or records comparisons that are not the config's.
    """
    done, plan = require_selections(folder, options), comparisons(options)
    if len(done) < len(plan):
        ahead = ", ".join(f"after {step} steps {number} kept" for step, _, number in plan[len(done) :])
        log(f"{folder.name}: {options.restarts} restarts, {ahead}")
    kept = done[-1].kept if done else range(options.restarts)
    for step, _, number in plan[len(done) :]:
        dice = {restart: train_one(restart, step).best_dice for restart in sorted(kept)}
        kept = tuple(ranked(dice)[:number])
        done.append(Selection(step, dice, kept))
        if jax.process_index() == 0:
            write_selections(folder, done)
        names = ", ".join(f"{restart} ({dice[restart]:.3f})" for restart in kept)
        log(f"{folder.name}: after {step} steps {len(kept)} of {len(dice)} restarts kept: {names}")
    return train_one(kept[0], options.steps)
