"""A network with one of its feature maps in hand: its values, and what would change if something were added to it."""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
from flax import linen as nn

from liverjax.errors import ConfigError, did_you_mean
from liverjax.models import UNet


def check_tap(network: UNet, tap: str) -> int:
    """Returns the stride of a tap.

    Raises:
      ConfigError: the network has none of that name.
    """
    if tap not in network.taps:
        raise ConfigError(f"tap is {tap!r}{did_you_mean(tap, network.taps)}")
    return network.taps[tap]


def apply_with_tap(
    network: UNet, variables: dict, slices: jax.Array, tap: str = "", added: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the logits and the feature maps at a tap; may be traced.

    Args:
      network: the architecture, as it was trained.
      variables: its variables.
      slices: (N, H, W), in [-1, 1]; H and W are multiples of what the poolings divide by.
      tap: one of ``network.taps``; "": none, and the feature maps are the slices themselves.
      added: (N, h, w, C) is added to the feature maps, so that a derivative by it is one by them; None: nothing.

    Returns:
      (N, H, W, classes) logits, and (N, h, w, C) feature maps.
    """
    found = [slices[..., None]]

    def tapped(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.name == tap:
            y = y if added is None else y + added
            found.append(y)
        return y

    with nn.intercept_methods(tapped):
        logits = network.apply(variables, jnp.asarray(slices)[..., None])
    return typing.cast(jax.Array, logits), found[-1]


def untrained(network: UNet, seed: int = 0) -> dict:
    """Returns variables as training starts from them: new parameters, and norm statistics of 0 and 1."""
    side = 2 ** (len(network.features) - 1)
    return dict(network.init(jax.random.key(seed), jnp.zeros((1, side, side, 1))))
