"""The optimiser and its learning rate."""

from __future__ import annotations

import functools

import optax

from liverjax.options import Train


@functools.cache  # The same object for the same norm, so that the jitted step knows it again.
def build_optimizer(clip_norm: float) -> optax.GradientTransformation:
    """Returns clipping by global norm (0: none) and Adam. The step multiplies the result by its rate."""
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optax.scale_by_adam())


def learning_rate(options: Train, step: int, end_step: int) -> float:
    """Returns the rate of a step: rises over the warm-up, stays, and falls to 0 over the last share.

    The rate is an argument of the jitted step and not part of the optimiser, because a run with a time limit
    learns its ``end_step`` only when it has measured how long a step takes.
    """
    warmup = min(1.0, (step + 1) / (options.warmup_steps + 1))
    cooldown_steps = options.cooldown_share * end_step
    cooldown = min(1.0, (end_step - step) / (cooldown_steps + 1))
    return options.learning_rate * min(warmup, max(0.0, cooldown))
