"""OrthoMean: three 2D networks look at the slices of a volume along its axes, the mean of their softmax wins.

The triplanar idea is Prasoon 2013; the mean of the maps is that of Chlebus, Meine and colleagues.

Volumes are padded to a few shapes, so that few programs are compiled. How far has no influence on the result:
the network sees air up to the next multiple of what its poolings divide, and beyond it what it sees beyond any
array's end (see `network.apply_within`).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from liverjax.inference.network import apply_within
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
    multiple = 2 ** (len(network.features) - 1)
    extents = {view: _extent(voxels.shape, view, multiple) for view in variables}
    padding = [(0, -size % options.bucket) for size in voxels.shape]
    padded = np.pad(voxels, padding, constant_values=_AIR)
    fused = _fuse(variables, padded, extents, network=network, batch_size=options.batch_size)
    return np.asarray(fused)[tuple(slice(size) for size in voxels.shape)]


def _extent(shape: tuple[int, int, int], view: str, multiple: int) -> np.ndarray:
    """Returns how many slices, rows and columns of a view count, int32; rows and columns rounded up."""
    slices, *size = to_stack(np.broadcast_to(0, shape), view).shape
    return np.array([slices, *(-(-n // multiple) * multiple for n in size)], np.int32)


@functools.partial(jax.jit, static_argnames=("network", "batch_size"))
def _fuse(
    variables: dict[str, dict],
    volume: jax.Array,
    extents: dict[str, jax.Array],
    *,
    network: UNet,
    batch_size: int,
) -> jax.Array:
    """Returns the mean softmax (X, Y, Z, C) of all views of a padded volume (X, Y, Z)."""
    total = jnp.zeros((*volume.shape, network.classes), jnp.float32)
    for view, parameters in variables.items():
        axis = slice_axis(view)
        slices, *extent = extents[view]
        # The padded size is a multiple of the bucket, so that the slabs cover it without a rest.
        thickness = math.gcd(volume.shape[axis], batch_size)

        def add_slab(
            index, total, *, view=view, parameters=parameters, axis=axis, thickness=thickness, extent=extent
        ):
            start = index * thickness
            slab = to_stack(lax.dynamic_slice_in_dim(volume, start, thickness, axis), view)
            seen = from_stack(jax.nn.softmax(apply_within(network, parameters, slab, extent)), view)
            before = lax.dynamic_slice_in_dim(total, start, thickness, axis)
            return lax.dynamic_update_slice_in_dim(total, before + seen, start, axis)

        # One accumulator for all views, changed in place slab by slab; slabs of nothing but padding are left out.
        total = lax.fori_loop(0, (slices + thickness - 1) // thickness, add_slab, total)
    return total / len(variables)
