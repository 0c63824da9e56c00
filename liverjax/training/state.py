"""What training changes from step to step."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, Sharding

from liverjax.models import UNet
from liverjax.training.mesh import spread


@flax.struct.dataclass
class TrainState:
    """Parameters and all else that a step reads and writes; resuming needs nothing more.

    Attributes:
      step: int32 scalar, number of steps done.
      params: float32 parameters of the network.
      batch_stats: float32 running statistics of its batch norms.
      opt_state: the optimiser's state.
      average: moving average of `variables`, or None where ``train.ema_decay`` is 0.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    average: dict | None = None

    @property
    def variables(self) -> dict:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def chosen_variables(self) -> dict:
        """What validation looks at and ``best`` keeps: the average where there is one."""
        return self.variables if self.average is None else self.average

    def arrays(self) -> dict:
        """Returns what a checkpoint holds: the fields by name, without an average that there is not."""
        fields = {name: getattr(self, name) for name in ("step", "params", "batch_stats", "opt_state")}
        return fields if self.average is None else {**fields, "average": self.average}


def init_state(
    network: UNet,
    optimizer: optax.GradientTransformation,
    patch: tuple[int, int],
    seed: int,
    sharding: Sharding,
    *,
    averaged: bool = False,
    optimizer_mesh: Mesh | None = None,
) -> TrainState:
    """Returns the state before the first step, made on the devices.

    Args:
      network: the network, and ``optimizer`` what trains it.
      patch: rows and columns of a patch.
      seed: what the first parameters are drawn from.
      sharding: where the arrays are.
      averaged: whether there is a moving average.
      optimizer_mesh: the devices that the optimiser's state is divided over; None has it where the rest is.
    """

    def init() -> TrainState:
        variables = network.init(jax.random.key(seed), jnp.zeros((1, *patch, 1)))
        params = variables["params"]
        state = TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )
        return state.replace(average=state.variables) if averaged else state

    if optimizer_mesh is None:
        return jax.jit(init, out_shardings=sharding)()
    shapes = jax.eval_shape(init)
    places = jax.tree.map(lambda _: sharding, shapes)
    places = places.replace(opt_state=spread(shapes.opt_state, optimizer_mesh))
    return jax.jit(init, out_shardings=places)()
