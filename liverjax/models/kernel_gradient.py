"""A 3x3 convolution whose kernel's gradient is fast on CPUs.

XLA computes this gradient as a convolution whose channels are the slices of the batch, which is slow on CPUs: 15 to 73
GFLOP/s with 16 slices, where products of matrices reach 49 to 85 (`docs/performance.md`). Without
`conv_general_dilated` in `blocks.ConvNorm`, XLA computes the gradient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

#: With fewer channels on either side the matrices are too thin for a gain; with fewer pixels in the batch XLA is fast.
_LEAST_CHANNELS, _LEAST_PIXELS = 64, 2**14


def conv_general_dilated(x: jax.Array, kernel: jax.Array, *arguments, **settings) -> jax.Array:
    """`jax.lax.conv_general_dilated` of 3x3 kernels with stride 1 and padding by one pixel, for `flax.linen.Conv`.

    Args:
      x: (N, H, W, C).
      kernel: (3, 3, C, F).
    """

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, *arguments, **settings)

    if min(kernel.shape[2:]) < _LEAST_CHANNELS or math.prod(x.shape[:3]) < _LEAST_PIXELS:
        return plain(x, kernel)

    def forward(x, kernel):
        return plain(x, kernel), (x, kernel)

    def backward(operands, dy):
        x, kernel = operands

        def by_xla(x, dy):
            return jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](dy)[0]

        (dx,) = jax.vjp(lambda x: plain(x, kernel), x)[1](dy)
        return dx, lax.platform_dependent(x, dy, cpu=kernel_gradient, default=by_xla)

    convolve = jax.custom_vjp(plain)
    convolve.defvjp(forward, backward)
    return convolve(x, kernel)


def kernel_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Returns the gradient (3, 3, C, F) of the kernel of the convolution y of x, from the gradient of y.

    The gradient of tap (i, j) is the sum over pixels (r, c) of x[r + i - 1, c + j - 1] dy[r, c].

    Args:
      x: (N, H, W, C).
      dy: (N, H, W, F).
    """
    # One slice of each device at a time, so that the shifted copies stay small; each device sums its own slices.
    shards = math.gcd(x.shape[0], jax.device_count())
    slices = [jnp.moveaxis(a.reshape(shards, -1, *a.shape[1:]), 1, 0) for a in (x, dy)]

    def add(total, slice_of_each):
        return total + jax.vmap(_of_slice)(*slice_of_each), None

    zeros = jnp.zeros((shards, 3, 3, x.shape[-1], dy.shape[-1]), _sum_type(x))
    return lax.scan(add, zeros, slices)[0].sum(axis=0).astype(x.dtype)


def _of_slice(x: jax.Array, dy: jax.Array) -> jax.Array:
    rows, columns, channels = x.shape
    # dy is shifted along the columns, so that one product gives a row of taps.
    dy = jnp.pad(dy, ((0, 0), (1, 1), (0, 0)))
    shifted = jnp.concatenate([dy[:, 2 - j : 2 - j + columns] for j in range(3)], axis=-1)
    shifted = shifted.reshape(rows * columns, -1)
    x = jnp.pad(x, ((1, 1), (0, 0), (0, 0)))
    taps = [
        jnp.dot(x[i : i + rows].reshape(-1, channels).T, shifted, preferred_element_type=_sum_type(x))
        for i in range(3)
    ]
    return jnp.stack(taps).reshape(3, channels, 3, -1).transpose(0, 2, 1, 3)


def _sum_type(x: jax.Array) -> jnp.dtype:
    """Returns the type of the sums: in bfloat16, sums over a batch would lose small terms."""
    return jnp.promote_types(x.dtype, jnp.float32)
