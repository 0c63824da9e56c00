"""Several starts of a view: which seeds they have, when they are compared, and which of them go on.

After Haensch 2022: networks that start from other random numbers are trained side by side, and after given numbers
of steps the better half by validation goes on.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from liverjax.checkpoint.restarts import Selection, read_selections, write_selections
from liverjax.errors import CheckpointError
from liverjax.options import Train
from liverjax.training.looks import Progress


def restart_seed(seed: int, start: int) -> int:
    """Returns the seed of a start: training it is, to the bit, training a single start with that seed.

    Start 0 has the run's own seed, the others 32 bits drawn from (seed, start).
    """
    return int(np.random.SeedSequence((seed, start)).generate_state(1)[0]) if start else seed


def comparisons(options: Train) -> list[tuple[int, int, int]]:
    """Returns after how many steps starts are compared, how many there are then, and how many are kept.

    After each number of steps in ``halving_steps`` half of them is kept, rounded up; at the end of training all.
    """
    found, left = [], options.restarts
    for step in options.halving_steps:
        if step <= options.steps and left > 1:
            found.append((step, left, (left + 1) // 2))
            left = (left + 1) // 2
    return found if found and found[-1][0] == options.steps else [*found, (options.steps, left, left)]


def ranked(dice: Mapping[int, float]) -> list[int]:
    """Returns the starts by their validation Dice, the best first; of equal ones the lower number first."""
    return sorted(dice, key=lambda start: (-dice[start], start))


def train_restarts(
    folder: pathlib.Path,
    options: Train,
    train_one: Callable[[int, int], Progress],
    tell: Callable[[str], None],
) -> Progress:
    """Trains the starts of a view one after another, or goes on where an earlier call stopped.

    Returns how far the best is.

    Args:
      folder: of the view. Beside the starts' folders ``starts.json`` is written: who was kept when.
      options: of the config.
      train_one: trains a start up to a step, goes on with it, or does nothing where that is done.
      tell: is given a line on what is ahead, and one after each comparison.

    Raises:
      CheckpointError: ``starts.json`` is damaged, or tells of comparisons that are not the config's.
    """
    done, plan = read_selections(folder), comparisons(options)
    before = [(selection.step, len(selection.dice), len(selection.kept)) for selection in done]
    if before != plan[: len(before)]:
        raise CheckpointError(
            f"{folder}: its record of (steps, starts compared, starts kept) is {before}, the config's is {plan}"
        )
    if len(done) < len(plan):
        ahead = ", ".join(f"after {step} steps {number} kept" for step, _, number in plan[len(done) :])
        tell(f"{folder.name}: {options.restarts} starts, {ahead}")
    kept = done[-1].kept if done else range(options.restarts)
    for step, _, number in plan[len(done) :]:
        dice = {start: train_one(start, step).best_dice for start in sorted(kept)}
        kept = tuple(ranked(dice)[:number])
        done.append(Selection(step, dice, kept))
        if jax.process_index() == 0:
            write_selections(folder, done)
        names = ", ".join(f"{start} ({dice[start]:.3f})" for start in kept)
        tell(f"{folder.name}: after {step} steps {len(kept)} of {len(dice)} starts kept: {names}")
    return train_one(kept[0], options.steps)
