"""The training state, one step of training, and one evaluation of validation slices, as pure functions.

`jitted_train_step` and `jitted_overlap_counts` are compiled once for all views: shapes and static arguments are the
same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, Sharding

from liverjax.data.augment import augment, normalise, step_keys
from liverjax.labels import decide
from liverjax.models import UNet, build_unet
from liverjax.options import Augment, Config, Loss
from liverjax.own import OwnFunction, own_functions
from liverjax.training.distributed import replicated, zero1_sharding
from liverjax.training.losses import segmentation_loss
from liverjax.training.optim import build_optimizer


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What a training step does, apart from its arrays; hashable, so that `jax.jit` compiles one program for each.

    Attributes:
      network: the architecture.
      optimizer: turns a gradient into a direction; the step multiplies it by the learning rate.
      augment: ranges of the augmentation.
      loss: weights of the loss terms.
      own: functions of a user's own files, of those that the config names: of the loss, and of the augmentation.
      accumulate: number of micro-batches whose gradients are averaged; see `liverjax.options.Train`.
      ema_decay: decay of the moving average; 0 is off.
      skip_nonfinite: whether a step whose loss or gradient is not finite changes nothing but the step count.
      optimizer_mesh: the devices over which the optimiser's state is sharded, or None.
    """

    network: UNet
    optimizer: optax.GradientTransformation
    augment: Augment
    loss: Loss
    own: tuple[OwnFunction | None, OwnFunction | None] = (None, None)
    accumulate: int = 1
    ema_decay: float = 0.0
    skip_nonfinite: bool = False
    optimizer_mesh: Mesh | None = None


def step_spec(
    config: Config, mesh: Mesh | None = None, own: Mapping[str, OwnFunction] | None = None
) -> StepSpec:
    """Returns the training step of a config: its network and optimiser, built for this machine's devices.

    Args:
      config: the system.
      mesh: the devices over which the optimiser's state is sharded if ``train.shard_optimizer`` asks for it.
      own: of `own_functions`; None reads the files anew.

    Raises:
      ConfigError: as `own_functions`.
    """
    options, own = config.train, own_functions(config) if own is None else own
    return StepSpec(
        build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"),
        build_optimizer(options),
        config.augment,
        config.loss,
        (own.get("loss.own"), own.get("augment.own")),
        options.accumulate,
        options.ema_decay,
        skip_nonfinite=options.on_nonfinite == "skip",
        optimizer_mesh=mesh if options.shard_optimizer else None,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes; resuming needs nothing more.

    Attributes:
      step: int32 scalar, number of steps done.
      params: float32 parameters of the network.
      batch_stats: float32 running statistics of its batch norms.
      opt_state: the optimiser's state.
      average: moving average of `variables`, or None if ``train.ema_decay`` is 0.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    average: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def chosen_variables(self) -> dict[str, Any]:
        """What validation evaluates and ``best`` keeps: the moving average if there is one."""
        return self.variables if self.average is None else self.average

    def arrays(self) -> dict[str, Any]:
        """Returns the content of a checkpoint: the fields by name; `average` only if it is used."""
        fields = {name: getattr(self, name) for name in ("step", "params", "batch_stats", "opt_state")}
        return fields if self.average is None else {**fields, "average": self.average}


def init_state(spec: StepSpec, patch: tuple[int, ...], seed: int, sharding: Sharding) -> TrainState:
    """Returns the state before the first step, created on the devices.

    Args:
      spec: network and optimiser, whether there is a moving average, and where the optimiser's state lies.
      patch: rows and columns of a patch.
      seed: seed of the initial parameters.
      sharding: of all other arrays.
    """

    def init() -> TrainState:
        variables = spec.network.init(jax.random.key(seed), jnp.zeros((1, *patch, 1)))
        params = variables["params"]
        state = TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=spec.optimizer.init(params),
        )
        return dataclasses.replace(state, average=state.variables) if spec.ema_decay else state

    if spec.optimizer_mesh is None:
        return jax.jit(init, out_shardings=sharding)()
    shapes = jax.eval_shape(init)
    shardings = jax.tree.map(lambda _: sharding, shapes)
    sharded = zero1_sharding(shapes.opt_state, spec.optimizer_mesh)
    shardings = dataclasses.replace(shardings, opt_state=sharded)
    return jax.jit(init, out_shardings=shardings)()


def start_from(state: TrainState, variables: Mapping[str, Any]) -> tuple[TrainState, list[str]]:
    """Returns the first state with the arrays of a trained network that fit by name and shape.

    Args:
      state: as `init_state` returns it.
      variables: "params" and "batch_stats" of the trained network.

    Returns:
      The state, and a line for each array of the network that was not taken: its name, and its shape in both.
    """
    given = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    missing = []

    def take(path, own: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        found = given.get(name)
        if found is not None and found.shape == own.shape:
            # A copy: the first step gives its state's memory away.
            return jax.device_put(jnp.array(found, own.dtype, copy=True), own.sharding)
        readable = "/".join(str(key.key) for key in path)
        missing.append(f"{readable} {own.shape}, given {'none' if found is None else found.shape}")
        return own

    taken = jax.tree_util.tree_map_with_path(take, state.variables)
    average = None if state.average is None else jax.tree.map(jnp.copy, taken)
    return dataclasses.replace(
        state, params=taken["params"], batch_stats=taken["batch_stats"], average=average
    ), missing


def train_step(
    state: TrainState, batch: dict[str, jax.Array], rate: jax.Array, key: jax.Array, spec: StepSpec
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments the batch, and moves the parameters along the gradient of the loss.

    Augmentation and dropout are functions of (key, step, row of the global batch), whatever the devices are.

    Args:
      state: the state before the step.
      batch: "image" (N, H, W), voxels of any real type; "window" (N, 3) float32, the two values that become -1
        and 1, and gamma; "label" (N, H, W) uint8; of boxes "pixel_weight" (N, H, W) float32, what each pixel counts in
        the loss.
      rate: learning rate of this step, float32 scalar.
      key: the run's typed key, the same for all steps.
      spec: what the step does.

    Returns:
      The state after the step, and the float32 scalars "loss" and "gradient_norm".
    """
    augment_key, dropout_key = step_keys(key, state.step)
    maps = {name: batch[name] for name in ("label", "pixel_weight") if name in batch}
    own_loss, own_augment = spec.own
    normalised = normalise(batch["image"], batch["window"])
    image, maps = augment(augment_key, normalised, maps, spec.augment, own_augment)

    def loss_fn(params, batch_stats, image, maps, key):
        logits, updates = spec.network.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss = segmentation_loss(logits, maps["label"], spec.loss, maps.get("pixel_weight"), own_loss)
        return loss, updates.get("batch_stats", {})

    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if spec.accumulate == 1:
        (loss, batch_stats), gradient = gradient_fn(state.params, state.batch_stats, image, maps, dropout_key)
    else:
        count = spec.accumulate

        def add_micro_batch(carry, micro_batch):
            loss, gradient, batch_stats = carry
            (own_loss, batch_stats), own_gradient = gradient_fn(state.params, batch_stats, *micro_batch)
            gradient = jax.tree.map(lambda sum_, g: sum_ + g / count, gradient, own_gradient)
            return (loss + own_loss / count, gradient, batch_stats), None

        # Micro-batch a holds the rows a, a + count, ..., so that each is sharded over all devices.
        stacked = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), (image, maps)
        )
        zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
        keys = jax.random.split(dropout_key, count)
        (loss, gradient, batch_stats), _ = jax.lax.scan(add_micro_batch, zero, (*stacked, keys))

    direction, opt_state = spec.optimizer.update(gradient, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    new = TrainState(state.step + 1, params, batch_stats, opt_state)
    if spec.ema_decay:
        new = dataclasses.replace(new, average=_moving_average(state, new, spec.ema_decay))
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
    if spec.skip_nonfinite:
        finite = (
            jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"]) & _all_finite(new.arrays())
        )
        metrics["gradient_norm"] = jnp.where(
            finite, metrics["gradient_norm"], jnp.nan
        )  # By which it is counted.
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        new = dataclasses.replace(kept, step=new.step)
    if spec.optimizer_mesh is not None:
        # Each device updates the parameters of its shard of the optimiser's state, and all gather the others'.
        mesh = spec.optimizer_mesh
        shardings = jax.tree.map(lambda _: replicated(mesh), new)
        shardings = dataclasses.replace(shardings, opt_state=zero1_sharding(new.opt_state, mesh))
        new = jax.lax.with_sharding_constraint(new, shardings)
    return new, metrics


def _moving_average(before: TrainState, after: TrainState, decay: float) -> Any:
    """Returns the moving average of parameters and statistics after a step.

    Step t keeps at most (1 + t) / (10 + t) of the old average, so that the random initial parameters fade quickly.
    """
    kept = jnp.minimum(decay, (1.0 + before.step) / (10.0 + before.step))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, before.average, after.variables)


def _all_finite(tree: Any) -> jax.Array:
    """Returns whether all numbers of a tree of arrays are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def overlap_counts(
    variables: dict[str, Any],
    batch: dict[str, jax.Array],
    *,
    network: UNet,
    decision: str = "nested",
    cases: int = 1,
    lesions: int | None = None,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the counts from which Dice and detection of a batch follow, and the predicted labels.

    Args:
      variables: the network's parameters and running statistics.
      batch: "image", "window" and "label" as in `train_step`, and "weight" (N,) float32: 0 for rows of padding. Of
        boxes "pixel_weight": where it is 0, nothing counts. With ``lesions``, "case" and "lesion" as
        `liverjax.data.pipeline.validation_batches` gives them; the last class is then that of the tumours.
      network: the architecture.
      decision: the rule of `liverjax.labels.decide`.
      cases: number of cases; 1 for a batch without "case", whose rows are counted together.
      lesions: number of lesions of all cases; None counts none.

    Returns:
      - (cases, classes - 1, 3) float32: pixels of overlap, of prediction, and of reference;
      - (N, H, W) uint8, the labels, background where nothing counts;
      - (lesions + 1, 2) float32, for each lesion the pixels that are predicted as tumour, and all of them (id 0 stands
        for what is no lesion); and (2,) float32, the slices with predicted tumour, and those of them with a tumour.
        Both empty without ``lesions``.

      All but the labels are to be summed over batches.
    """
    logits: Any = network.apply(variables, normalise(batch["image"], batch["window"]))
    weight = batch["weight"][:, None, None, None]
    labels = decide(list(jnp.moveaxis(jax.nn.softmax(logits), -1, 0)), decision)
    if "pixel_weight" in batch:
        counting = batch["pixel_weight"] > 0
        weight, labels = weight * counting[..., None], labels * counting
    predicted = jax.nn.one_hot(labels, logits.shape[-1])[..., 1:] * weight
    reference = jax.nn.one_hot(batch["label"], logits.shape[-1])[..., 1:] * weight
    each = (predicted * reference, predicted, reference)
    rows = jnp.stack([pixels.sum((1, 2)) for pixels in each], axis=-1)  # (N, classes - 1, 3)
    if lesions is None:
        return rows.sum(0)[None], labels, (jnp.zeros((0, 2)), jnp.zeros(0))
    of_case = jax.nn.one_hot(batch["case"], cases)
    counts = jnp.einsum("nk,ncs->kcs", of_case, rows, precision="highest")
    tumor = predicted[..., -1]
    each = jnp.stack([tumor, weight[..., 0]], axis=-1).reshape(-1, 2)
    found = jnp.zeros((lesions + 1, 2)).at[batch["lesion"].reshape(-1)].add(each)
    alarms = tumor.any((1, 2))
    right = alarms & reference[..., -1].any((1, 2))
    return counts, labels, (found, jnp.stack([alarms.sum(), right.sum()]).astype(jnp.float32))


all_finite = jax.jit(_all_finite)
jitted_train_step = jax.jit(train_step, static_argnames="spec", donate_argnames="state")
jitted_overlap_counts = jax.jit(overlap_counts, static_argnames=("network", "decision", "cases", "lesions"))
