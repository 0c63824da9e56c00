"""OrthoMean: three 2D networks look at the slices of a volume along its axes, the mean of their softmax wins.

The triplanar idea is Prasoon 2013; the mean of the maps is that of Chlebus, Meine and colleagues.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from liverjax.models import UNet
from liverjax.options import Predict
from liverjax.views import from_stack, slice_axis, to_stack

#: What a volume is padded with: air, the low end of the window.
_AIR = -1.0

def orthomean(variables: dict[str, dict], voxels: np.ndarray, network: UNet, options: Predict) -> np.ndarray:
    """Returns the mean over the views of the class probabilities of a volume.

    One jitted program does all views; it is compiled once for each padded shape.

    Args:
      variables: for each view the parameters and statistics of its network.
      voxels: (X, Y, Z) float32 in [-1, 1], canonical axes.
      network: the architecture of all views.
      options: the padding and the number of slices at once.

    Returns:
      (X, Y, Z, C) float32, summing to 1 over the classes.
    """
    padding = [(0, -size % options.bucket) for size in voxels.shape]
    padded = np.pad(voxels, padding, constant_values=_AIR)
    fused = _fuse(variables, padded, network=network, batch_size=options.batch_size)
    return np.asarray(fused)[tuple(slice(size) for size in voxels.shape)]


@functools.partial(jax.jit, static_argnames=("network", "batch_size"))
def _fuse(variables: dict[str, dict], volume: jax.Array, *, network: UNet, batch_size: int) -> jax.Array:
    """Returns the mean softmax (X, Y, Z, C) of all views of a padded volume (X, Y, Z)."""
    total = jnp.zeros((*volume.shape, network.classes), jnp.float32)
    for view, parameters in variables.items():
        axis = slice_axis(view)
        # The padded size is a multiple of the bucket, so that the slabs cover it without a rest.
        thickness = math.gcd(volume.shape[axis], batch_size)

        def add_slab(index, total, *, view=view, parameters=parameters, axis=axis, thickness=thickness):
            start = index * thickness
            slices = to_stack(lax.dynamic_slice_in_dim(volume, start, thickness, axis), view)
            seen = from_stack(jax.nn.softmax(network.apply(parameters, slices[..., None])), view)
            before = lax.dynamic_slice_in_dim(total, start, thickness, axis)
            return lax.dynamic_update_slice_in_dim(total, before + seen, start, axis)

        # One accumulator for all views, changed in place slab by slab.
        total = lax.fori_loop(0, volume.shape[axis] // thickness, add_slab, total)
    return total / len(variables)
