"""Functions of a user's own files, tried before anything is trained: what would fail or go wrong later is named now."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liverjax.errors import ConfigError
from liverjax.options import Config
from liverjax.own import OwnFunction

#: Slices that are tried: one of background alone, one with all classes.
_SLICES = 2


def require_sound(own: Mapping[str, OwnFunction], config: Config) -> None:
    """Calls the functions of `liverjax.own.own_functions` as the step will, on noise.

    Raises:
      ConfigError: a function takes other arguments, raises something under `jax.jit`, or returns what the step cannot
        use; in one line, with the file.
    """
    if "loss.own" in own:
        _try_loss(own["loss.own"], config)
    if "augment.own" in own:
        _try_augment(own["augment.own"], config)


def _try_loss(own: OwnFunction, config: Config) -> None:
    _require_arguments(own, ("logits", "labels", "weights"))
    labels, classes = _labels(config), len(config.labels)
    logits = jax.random.normal(jax.random.key(0), (*labels.shape, classes))
    weights = jnp.ones(labels.shape)
    found: Any = jax.eval_shape(own, logits, labels, weights)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ConfigError(f"{own}: returns {_described(found)}, expected a scalar of a float type")
    tried = {"slices with all classes": labels, "slices of background alone": jnp.zeros_like(labels)}
    gradient = jax.jit(jax.value_and_grad(lambda logits, labels: own(logits, labels, weights)))
    for what, given in tried.items():
        value, slope = gradient(logits, given)
        for name, part in (("loss", value), ("gradient", slope)):
            if not np.isfinite(part).all():
                raise ConfigError(f"{own}: its {name} is not finite for {what}, expected finite numbers")


def _try_augment(own: OwnFunction, config: Config) -> None:
    boxed = config.target.region != "scan"
    names = ("image", "labels", "weights") if boxed else ("image", "labels")
    _require_arguments(own, ("key", *names))
    image = jax.random.uniform(jax.random.key(0), config.batch.patch, minval=-1.0, maxval=1.0)
    maps = [_labels(config)[1], *([jnp.ones(config.batch.patch)] if boxed else [])]
    found: Any = jax.jit(own)(jax.random.key(1), image, *maps)
    if not isinstance(found, tuple) or len(found) != len(names):
        raise ConfigError(f"{own}: returns {_described(found)}, expected a tuple ({', '.join(names)})")
    for name, array in zip(names, found, strict=True):
        kind, wanted = (jnp.integer, "integers") if name == "labels" else (jnp.floating, "floats")
        if getattr(array, "shape", None) != image.shape or not jnp.issubdtype(array.dtype, kind):
            raise ConfigError(
                f"{own}: returns as {name} {_described(array)}, expected {wanted} of shape {image.shape}"
            )
        if not np.isfinite(array).all():
            raise ConfigError(f"{own}: returns {name} that are not finite, expected finite numbers")
    odd = sorted(set(np.unique(found[1]).tolist()) - set(range(len(config.labels))))
    if odd:
        raise ConfigError(f"{own}: returns the labels {odd[:5]}, expected 0 to {len(config.labels) - 1}")


def _require_arguments(own: OwnFunction, names: tuple[str, ...]) -> None:
    try:
        inspect.signature(own.function).bind(*names)
    except TypeError as error:
        raise ConfigError(f"{own}: {error}, expected a function of ({', '.join(names)})") from None


def _labels(config: Config) -> jax.Array:
    """Returns (2, H, W) int32: a slice of background, and one with all classes in stripes."""
    rows, columns = config.batch.patch
    stripes = np.broadcast_to(np.arange(columns) * len(config.labels) // columns, (rows, columns))
    return jnp.asarray(np.stack([np.zeros((rows, columns), int), stripes][:_SLICES]), jnp.int32)


def _described(found: Any) -> str:
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape is None:
        return f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
    return f"{dtype} of shape {tuple(shape)}"
