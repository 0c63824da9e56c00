"""Random changes of training slices, on the device, inside the jitted step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from liverjax.options import Augment

#: What lies outside a slice: air, the low end of the window.
AIR = -1.0


def augment(
    key: jax.Array, images: jax.Array, labels: jax.Array, options: Augment
) -> tuple[jax.Array, jax.Array]:
    """Returns slices and their labels after one random affine map each, and slices of changed intensity.

    Each row has a key of its own, made from ``key`` and its place in the global batch.

    Args:
      key: a typed key of this step.
      images: (N, H, W, 1) float32 in [-1, 1].
      labels: (N, H, W) integers.
      options: the ranges; what has range 0 is not computed at all.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(images.shape[0]))

    def one(key, image, label):
        affine_key, intensity_key = jax.random.split(key)
        if options.rotation or options.scale or options.shift:
            coordinates = _affine_coordinates(affine_key, image.shape, options)
            image = map_coordinates(image, coordinates, order=1, mode="constant", cval=AIR)
            label = map_coordinates(label, coordinates, order=0, mode="constant", cval=0)
        return _change_intensity(intensity_key, image, options), label

    images, labels = jax.vmap(one)(keys, images[..., 0], labels)
    return images[..., None], labels


def _symmetric(key: jax.Array, limit: float, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def _affine_coordinates(
    key: jax.Array, shape: tuple[int, int], options: Augment
) -> tuple[jax.Array, jax.Array]:
    """Returns for each pixel of the result the row and column that it is taken from, (H, W) each."""
    rotation_key, scale_key, shift_key = jax.random.split(key, 3)
    angle = jnp.deg2rad(_symmetric(rotation_key, options.rotation))
    # Drawn on a logarithmic scale: halving is as likely as doubling.
    scale = jnp.exp(_symmetric(scale_key, jnp.log1p(options.scale)))
    shift = _symmetric(shift_key, options.shift, (2,))
    center = [(size - 1) / 2 for size in shape]
    rows = (jnp.arange(shape[0]) - center[0] - shift[0])[:, None] / scale
    columns = (jnp.arange(shape[1]) - center[1] - shift[1])[None, :] / scale
    return (
        jnp.cos(angle) * rows - jnp.sin(angle) * columns + center[0],
        jnp.sin(angle) * rows + jnp.cos(angle) * columns + center[1],
    )


def _change_intensity(key: jax.Array, image: jax.Array, options: Augment) -> jax.Array:
    contrast_key, brightness_key, gamma_key, level_key, noise_key = jax.random.split(key, 5)
    if options.gamma:
        exponent = jnp.exp2(_symmetric(gamma_key, options.gamma))
        # Away from 0 the power has a finite slope, which keeps float32 rounding alike on all devices.
        image = 2 * jnp.clip((image + 1) / 2, 1e-6, 1) ** exponent - 1
    if options.contrast:
        image = image * (1 + _symmetric(contrast_key, options.contrast))
    if options.brightness:
        image = image + _symmetric(brightness_key, options.brightness)
    if options.noise:
        level = jax.random.uniform(level_key, (), maxval=options.noise)
        image = image + level * jax.random.normal(noise_key, image.shape)
    return jnp.clip(image, -1, 1)
