"""One step of training and one look at validation slices, as pure functions.

`jitted_train_step` and `jitted_overlap_counts` are compiled once for all views: shapes and static arguments are the
same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from liverjax.data.augment import augment
from liverjax.models import UNet
from liverjax.options import Augment, Loss
from liverjax.training.losses import segmentation_loss
from liverjax.training.state import TrainState


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    rate: jax.Array,
    key: jax.Array,
    *,
    network: UNet,
    optimizer: optax.GradientTransformation,
    augmentation: Augment,
    loss_weights: Loss,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments the batch, and moves the parameters along the gradient of the loss.

    Augmentation and dropout are functions of (key, step, row of the global batch), whatever the devices are.

    Args:
      state: the state before the step.
      batch: "image" (N, H, W, 1) float32 in [-1, 1] and "label" (N, H, W) uint8.
      rate: learning rate of this step, float32 scalar.
      key: the run's typed key, the same for all steps.

    Returns:
      The state after the step, and the float32 scalars "loss" and "gradient_norm".
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    image, label = augment(augment_key, batch["image"], batch["label"], augmentation)

    def loss_fn(params):
        logits, updates = network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        return segmentation_loss(logits, label, loss_weights), updates.get("batch_stats", {})

    (loss, batch_stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    direction, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def overlap_counts(variables: dict, batch: dict[str, jax.Array], *, network: UNet) -> jax.Array:
    """Returns what a Dice of the foreground classes needs, to be summed over batches.

    Args:
      variables: the network's parameters and running statistics.
      batch: "image" and "label" as in `train_step`, and "weight" (N,) float32: 0 for rows that only pad.

    Returns:
      (classes - 1, 2) float32: pixels of overlap, and pixels of prediction plus pixels of reference.
    """
    logits = network.apply(variables, batch["image"])
    weight = batch["weight"][:, None, None, None]
    predicted = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])[..., 1:] * weight
    reference = jax.nn.one_hot(batch["label"], logits.shape[-1])[..., 1:] * weight
    pixels = (0, 1, 2)
    return jnp.stack([(predicted * reference).sum(pixels), (predicted + reference).sum(pixels)], axis=-1)


jitted_train_step = jax.jit(
    train_step,
    static_argnames=("network", "optimizer", "augmentation", "loss_weights"),
    donate_argnames="state",
)
jitted_overlap_counts = jax.jit(overlap_counts, static_argnames="network")
