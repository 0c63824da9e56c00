"""The devices as a mesh with one axis, over which batches are divided."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from liverjax.errors import ConfigError


def data_mesh(batch_size: int, accumulate: int = 1) -> Mesh:
    """Returns a mesh of all devices with the axis "data".

    Raises:
      ConfigError: the global batch, or a part of it, cannot be divided evenly over the devices.
    """
    devices = jax.device_count()
    if batch_size % (devices * accumulate):
        if accumulate > 1:
            raise ConfigError(
                f"batch.size is {batch_size}, expected a multiple of {devices} devices times {accumulate} parts "
                "(train.accumulate)"
            )
        raise ConfigError(f"batch.size is {batch_size}, expected a multiple of the {devices} devices")
    # In the order of processes, whose rows of the batch are contiguous: jax.make_mesh may choose another one.
    ordered = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    # Flax's linen modules need automatic axes.
    return Mesh(np.array(ordered), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the placement of parameters: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """Returns the placement of batches: rows divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def spread(tree: object, mesh: Mesh) -> object:
    """Returns the placement of an optimiser's state of which each device holds a part.

    An array is divided along its first axis whose length is a multiple of the devices' number; one that has none
    has a whole copy on every device.
    """

    def place(array: jax.Array) -> NamedSharding:
        axes = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
        return NamedSharding(mesh, PartitionSpec(*[None] * axes[0], "data")) if axes else replicated(mesh)

    return jax.tree.map(place, tree)


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns a process's rows of the global batch as global arrays on the mesh."""
    sharding = divided(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def broadcast_from_first(value: int) -> int:
    """Returns the first process's value on all: their clocks and disks differ, what they do next must not."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_process(flag: bool, mesh: Mesh) -> jax.Array:
    """Returns whether any process called with True, as an array that is read without a wait a step later.

    Every process must call this at the same place. All read the same answer, so that all stop at the same step.
    """
    flags = np.full(len(mesh.local_devices), flag)
    return _any(jax.make_array_from_process_local_data(divided(mesh), flags))


def barrier(mesh: Mesh) -> None:
    """Waits for all processes, and has their devices connect.

    To be called before there is much to compile: on CPUs gloo gives up if one process comes 30 s after another.
    """
    if jax.process_count() > 1:
        jax.block_until_ready(any_process(False, mesh))


_any = jax.jit(lambda flags: flags.any())


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array whose rows are divided over the devices."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def describe_devices() -> str:
    """Returns one line for the log: which devices are used, and why not a GPU where there is none."""
    device = jax.devices()[0]
    line = f"{jax.device_count()} x {device.device_kind}" + (
        f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    )
    if device.platform != "cpu":
        return line
    forced = jax.config.jax_platforms
    reason = (
        f"JAX_PLATFORMS is {forced}" if forced else "this jax finds no GPU; jax[cuda13] supports NVIDIA's"
    )
    return f"{line} (no accelerator: {reason})"
