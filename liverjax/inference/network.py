"""The slice network at prediction: batch norm folded away, padding without influence, dropout on request."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from liverjax.models import UNet

#: What flax's batch norm adds to the variance.
_EPSILON = 1e-5


def fold_batch_norm(network: UNet, variables: dict) -> tuple[UNet, dict]:
    """Returns a network without norms, and its variables, that maps slices to the same logits.

    At prediction a batch norm is an affine map per channel, so with s = scale / sqrt(var + epsilon)::

        norm(K * x) = s (K * x - mean) + bias = (s K) * x + (bias - s mean)

    A network with another norm is returned as it is.
    """
    if network.norm != "batch":
        return network, {"params": variables["params"]}
    return network.clone(norm="none"), {"params": _folded(variables["params"], variables["batch_stats"])}


def _folded(params: dict, statistics: dict) -> dict:
    if "norm" in params:
        scale = params["norm"]["scale"] / jnp.sqrt(statistics["norm"]["var"] + _EPSILON)
        kernel = params["conv"]["kernel"] * scale[None, None, None]
        return {
            "conv": {"kernel": kernel, "bias": params["norm"]["bias"] - scale * statistics["norm"]["mean"]}
        }
    return {
        name: _folded(value, statistics[name]) if name in statistics else value
        for name, value in params.items()
    }


def apply_within(
    network: UNet, variables: dict, slices: jax.Array, extent: jax.Array, dropout: jax.Array | None = None
) -> jax.Array:
    """Returns the logits of padded slices, as they are without the padding.

    Before each 3x3 convolution what lies beyond the extent is set to zero, which is what the convolution pads
    an array with that ends there; group norms leave it out of their statistics.

    Args:
      network: the architecture.
      variables: its variables.
      slices: (N, H, W) float32.
      extent: (2,) int32, how many rows and columns count; multiples of 2**(levels - 1). May be traced.
      dropout: key of one draw of the decoder's spatial dropout, the same feature maps in all slices; None: no
        dropout.

    Returns:
      (N, H, W, C) float32; beyond the extent without meaning.
    """

    def changed(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, nn.Conv) and module.kernel_size == (3, 3):
            return call(jnp.where(_inside(args[0], slices, extent), args[0], 0))
        if isinstance(module, nn.GroupNorm):
            return call(args[0], mask=jnp.broadcast_to(_inside(args[0], slices, extent), args[0].shape))
        if isinstance(module, nn.Dropout) and dropout is not None and module.rate > 0:
            kept = jax.random.bernoulli(
                module.make_rng("dropout"), 1 - module.rate, (1, 1, 1, args[0].shape[-1])
            )
            return args[0] * kept.astype(args[0].dtype) / (1 - module.rate)
        return call(*args, **kwargs)

    rngs = {} if dropout is None else {"dropout": dropout}
    with nn.intercept_methods(changed):
        return network.apply(variables, slices[..., None], rngs=rngs)


def _inside(features: jax.Array, slices: jax.Array, extent: jax.Array) -> jax.Array:
    """Returns (1, h, w, 1), whether a pixel of feature maps (N, h, w, C) of any level lies within the extent."""
    _, rows, columns, _ = features.shape
    inside_rows = jnp.arange(rows) * (slices.shape[1] // rows) < extent[0]
    inside_columns = jnp.arange(columns) * (slices.shape[2] // columns) < extent[1]
    return inside_rows[None, :, None, None] & inside_columns[None, None, :, None]
