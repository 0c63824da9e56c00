"""One step of training and one look at validation slices, as pure functions.

`jitted_train_step` and `jitted_overlap_counts` are compiled once for all views: shapes and static arguments are the
same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from liverjax.data.augment import augment, normalise, step_keys
from liverjax.models import UNet
from liverjax.options import Augment, Config, Loss
from liverjax.training.losses import segmentation_loss
from liverjax.training.mesh import replicated, spread
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
    accumulate: int = 1,
    ema_decay: float = 0.0,
    skip_nonfinite: bool = False,
    optimizer_mesh: Mesh | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments the batch, and moves the parameters along the gradient of the loss.

    Augmentation and dropout are functions of (key, step, row of the global batch), whatever the devices are.

    Args:
      state: the state before the step.
      batch: "image" (N, H, W), voxels of any real type; "window" (N, 2) float32, the two values that become -1
        and 1; "label" (N, H, W) uint8.
      rate: learning rate of this step, float32 scalar.
      key: the run's typed key, the same for all steps.
      accumulate: number of parts that the batch is worked through in; loss and gradient are their means. Part a
        holds the rows a, a + accumulate, ..., so that each is spread over all devices.
      ema_decay: see `liverjax.options.Train`; the average starts with a shorter memory, as `_averaged` says.
      skip_nonfinite: whether a loss or gradient that is not finite leaves all but the step count as it was.
      optimizer_mesh: the devices that the optimiser's state is divided over, as by `init_state`: each updates the
        parameters that its part belongs to (ZeRO stage 1, Rajbhandari 2020), and all gather the others'.

    Returns:
      The state after the step, and the float32 scalars "loss" and "gradient_norm".
    """
    augment_key, dropout_key = step_keys(key, state.step)
    image, label = augment(
        augment_key, normalise(batch["image"], batch["window"]), batch["label"], augmentation
    )

    def loss_fn(params, batch_stats, image, label, key):
        logits, updates = network.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return segmentation_loss(logits, label, loss_weights), updates.get("batch_stats", {})

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, batch_stats), gradient = gradient_fn(
            state.params, state.batch_stats, image, label, dropout_key
        )
    else:

        def add_part(carry, part):
            loss, gradient, batch_stats = carry
            (part_loss, batch_stats), part_gradient = gradient_fn(state.params, batch_stats, *part)
            gradient = jax.tree.map(lambda sum_, g: sum_ + g / accumulate, gradient, part_gradient)
            return (loss + part_loss / accumulate, gradient, batch_stats), None

        parts = [jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0) for x in (image, label)]
        nothing = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
        keys = jax.random.split(dropout_key, accumulate)
        (loss, gradient, batch_stats), _ = jax.lax.scan(add_part, nothing, (*parts, keys))

    direction, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    new = TrainState(state.step + 1, params, batch_stats, opt_state)
    if ema_decay:
        new = new.replace(average=_averaged(state, new, ema_decay))
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
    if skip_nonfinite:
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        kept = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)
        new = kept.replace(step=new.step)
    if optimizer_mesh is not None:
        places = jax.tree.map(lambda _: replicated(optimizer_mesh), new)
        places = places.replace(opt_state=spread(new.opt_state, optimizer_mesh))
        new = jax.lax.with_sharding_constraint(new, places)
    return new, metrics


def _averaged(before: TrainState, after: TrainState, decay: float) -> dict:
    """Returns the moving average after a step.

    Step t keeps at most (1 + t) / (10 + t), so that the first random parameters are soon forgotten.
    """
    kept = jnp.minimum(decay, (1.0 + before.step) / (10.0 + before.step))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, before.average, after.variables)


def overlap_counts(
    variables: dict, batch: dict[str, jax.Array], *, network: UNet
) -> tuple[jax.Array, jax.Array]:
    """Returns what a Dice of the foreground classes needs, to be summed over batches, and the predicted labels.

    Args:
      variables: the network's parameters and running statistics.
      batch: "image", "window" and "label" as in `train_step`, and "weight" (N,) float32: 0 for rows that only pad.

    Returns:
      (classes - 1, 2) float32: pixels of overlap, and pixels of prediction plus pixels of reference; and
      (N, H, W) uint8.
    """
    logits = network.apply(variables, normalise(batch["image"], batch["window"]))
    weight = batch["weight"][:, None, None, None]
    labels = jnp.argmax(logits, -1)
    predicted = jax.nn.one_hot(labels, logits.shape[-1])[..., 1:] * weight
    reference = jax.nn.one_hot(batch["label"], logits.shape[-1])[..., 1:] * weight
    pixels = (0, 1, 2)
    counts = jnp.stack([(predicted * reference).sum(pixels), (predicted + reference).sum(pixels)], axis=-1)
    return counts, labels.astype(jnp.uint8)


jitted_train_step = jax.jit(
    train_step,
    static_argnames=(
        "network",
        "optimizer",
        "augmentation",
        "loss_weights",
        "accumulate",
        "ema_decay",
        "skip_nonfinite",
        "optimizer_mesh",
    ),
    donate_argnames="state",
)
jitted_overlap_counts = jax.jit(overlap_counts, static_argnames="network")


def step_options(
    config: Config,
    network: UNet,
    optimizer: optax.GradientTransformation,
    optimizer_mesh: Mesh | None = None,
) -> dict[str, object]:
    """Returns the static arguments of `jitted_train_step` by name."""
    options = config.train
    return {
        "network": network,
        "optimizer": optimizer,
        "augmentation": config.augment,
        "loss_weights": config.loss,
        "accumulate": options.accumulate,
        "ema_decay": options.ema_decay,
        "skip_nonfinite": options.on_nonfinite == "skip",
        "optimizer_mesh": optimizer_mesh,
    }
