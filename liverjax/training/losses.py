"""The training objective: soft Dice over the batch, and cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from liverjax.options import Loss
from liverjax.own import OwnFunction

#: Added to numerator and denominator, in pixels: the loss and its gradient stay finite without foreground.
_SMOOTH = 1.0


def soft_dice_loss(logits: jax.Array, labels: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Returns 1 - mean over the foreground classes of the soft Dice of the whole batch.

    For class c with probabilities p and one-hot reference t, summed over all pixels of all slices,
    ``dice = (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` with s = 1 pixel (after Milletari 2016, without the
    squares). Sums over the batch, not per slice: most slices of a scan hold no liver, and a Dice of their own
    would be noise. A class that is absent from the batch has dice ``s / (sum(p) + s)``: a gradient to less p.
    With weights w of the pixels, the sums are those of w p t, w p and w t.

    Args:
      logits: (N, H, W, C) float32.
      labels: (N, H, W) integers in [0, C).
      weight: (N, H, W) float32 of 0 or more, what each pixel counts; None for 1.
    """
    probabilities = jax.nn.softmax(logits)[..., 1:]
    reference = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)[..., 1:]
    pixels = (0, 1, 2)
    if weight is not None:
        probabilities = probabilities * weight[..., None]
        reference, weighted = reference * weight[..., None], reference
        overlap = (probabilities * weighted).sum(pixels)
    else:
        overlap = (probabilities * reference).sum(pixels)
    sizes = probabilities.sum(pixels) + reference.sum(pixels)
    return 1 - jnp.mean((2 * overlap + _SMOOTH) / (sizes + _SMOOTH))


def cross_entropy_loss(logits: jax.Array, labels: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Returns the mean over all pixels of -log p of the reference's class.

    With weights w of the pixels, it is the weighted mean, ``sum(-w log p) / sum(w)``; 0 if no pixel counts.

    Args:
      logits: (N, H, W, C) float32.
      labels: (N, H, W) integers in [0, C).
      weight: (N, H, W) float32 of 0 or more, what each pixel counts; None for 1.
    """
    # The one-hot form: indexing by class makes XLA fold constants for seconds at compile time.
    reference = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    log_likelihood = (jax.nn.log_softmax(logits) * reference).sum(-1)
    if weight is None:
        return -jnp.mean(log_likelihood)
    total = weight.sum()
    return -(weight * log_likelihood).sum() / jnp.where(total > 0, total, 1)


def segmentation_loss(
    logits: jax.Array,
    labels: jax.Array,
    weights: Loss,
    pixel_weight: jax.Array | None = None,
    own: OwnFunction | None = None,
) -> jax.Array:
    """Returns the weighted sum of `soft_dice_loss` and `cross_entropy_loss` and a user's own term, a float32 scalar.

    Args:
      logits: (N, H, W, C) float32.
      labels: (N, H, W) integers in [0, C).
      weights: of the two terms.
      pixel_weight: (N, H, W) float32, what each pixel counts in all terms; None for 1.
      own: the function that ``loss.own`` names, of logits, labels as int32, and the weights of the pixels.
    """
    loss = jnp.float32(0)
    if weights.dice:
        loss += weights.dice * soft_dice_loss(logits, labels, pixel_weight)
    if weights.cross_entropy:
        loss += weights.cross_entropy * cross_entropy_loss(logits, labels, pixel_weight)
    if own is not None:
        each = jnp.ones(labels.shape, jnp.float32) if pixel_weight is None else pixel_weight
        # Of uint8, as labels are stored, labels - 1 would be 255 in the background.
        loss += own(logits, labels.astype(jnp.int32), each)
    return loss
