"""The optimiser and its learning rate."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import optax
import optax.contrib

from liverjax.options import Train


def build_optimizer(options: Train) -> optax.GradientTransformation:
    """Returns clipping by global norm and the optimiser of a config. The step multiplies the result by its rate."""
    return _build(options.optimizer, options.clip_norm, options.weight_decay, options.momentum)


@functools.cache  # The same object for the same values, so that the jitted step knows it again.
def _build(name: str, clip_norm: float, weight_decay: float, momentum: float) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    if name == "sgd":
        return optax.chain(clip, optax.trace(momentum, nesterov=True))
    if name == "adamw":
        return optax.chain(
            clip, optax.scale_by_adam(), optax.add_decayed_weights(weight_decay, mask=_kernels)
        )
    if name == "muon":  # Minus one, as its own rate turns the sign, and the step's does not.
        return optax.chain(
            clip, optax.contrib.muon(-1.0, consistent_rms=0.2, muon_weight_dimension_numbers=_matrices)
        )
    return optax.chain(clip, optax.scale_by_adam())


def _matrices(params: Any) -> Any:
    """Returns how Muon reads each array as a matrix; None, and Adam, for norms, biases, the stem and the head.

    A convolution (rows, columns, in, out) maps all it sees to its output channels (Bernstein 2024).
    """

    def matrix(path, array):
        if array.ndim < 2 or path[0].key in ("stem", "head"):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(array.ndim - 1)), array.ndim - 1)

    return jax.tree_util.tree_map_with_path(matrix, params)


def _kernels(params: dict) -> dict:
    return jax.tree.map(lambda array: array.ndim > 1, params)


def learning_rate(options: Train, step: int, end_step: int) -> float:
    """Returns the rate of a step: rises over the warm-up, then follows the schedule to 0 at ``end_step``.

    "constant" stays, and falls linearly over the last ``cooldown_share``; "cosine" is
    ``(1 + cos(pi step / end_step)) / 2`` (Loshchilov 2017, one period); "poly" is
    ``(1 - step / end_step) ** 0.9`` (as nnU-Net).

    The rate is an argument of the jitted step and not part of the optimiser, because a run with a time limit
    learns its ``end_step`` only when it has measured how long a step takes.
    """
    warmup = min(1.0, (step + 1) / (options.warmup_steps + 1))
    left = max(0.0, 1 - step / end_step)
    if options.schedule == "cosine":
        share = (1 - math.cos(math.pi * left)) / 2
    elif options.schedule == "poly":
        share = left**0.9
    else:
        share = max(0.0, min(1.0, (end_step - step) / (options.cooldown_share * end_step + 1)))
    return options.learning_rate * min(warmup, share)
