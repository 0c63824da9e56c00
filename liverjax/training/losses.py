"""The training objective: soft Dice over the batch, and cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from liverjax.options import Loss

#: Added to numerator and denominator, in pixels: the loss and its gradient stay finite without foreground.
_SMOOTH = 1.0


def soft_dice_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns 1 - mean over the foreground classes of the soft Dice of the whole batch.

    For class c with probabilities p and one-hot reference t, summed over all pixels of all slices,
    ``dice = (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` with s = 1 pixel (after Milletari 2016, without the
    squares). Sums over the batch, not per slice: most slices of a scan hold no liver, and a Dice of their own
    would be noise. A class that is absent from the batch has dice ``s / (sum(p) + s)``: a gradient to less p.

    Args:
      logits: (N, H, W, C) float32.
      labels: (N, H, W) integers in [0, C).
    """
    probabilities = jax.nn.softmax(logits)[..., 1:]
    reference = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)[..., 1:]
    pixels = (0, 1, 2)
    overlap = (probabilities * reference).sum(pixels)
    sizes = probabilities.sum(pixels) + reference.sum(pixels)
    return 1 - jnp.mean((2 * overlap + _SMOOTH) / (sizes + _SMOOTH))


def cross_entropy_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean over all pixels of -log p of the reference's class.

    Args:
      logits: (N, H, W, C) float32.
      labels: (N, H, W) integers in [0, C).
    """
    # The one-hot form: indexing by class makes XLA fold constants for seconds at compile time.
    reference = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.mean((jax.nn.log_softmax(logits) * reference).sum(-1))


def segmentation_loss(logits: jax.Array, labels: jax.Array, weights: Loss) -> jax.Array:
    """Returns the weighted sum of `soft_dice_loss` and `cross_entropy_loss`, a float32 scalar."""
    loss = jnp.float32(0)
    if weights.dice:
        loss += weights.dice * soft_dice_loss(logits, labels)
    if weights.cross_entropy:
        loss += weights.cross_entropy * cross_entropy_loss(logits, labels)
    return loss
