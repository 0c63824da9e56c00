"""Devices and processes: one mesh with one axis, over which batches are sharded; several processes as one run."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from liverjax.errors import ConfigError, Interrupted, TrainingError, did_you_mean
from liverjax.signals import StopSignals

_LOG = logging.getLogger("liverjax")

_MODES = ("auto", "off")
#: Without a launcher that jax knows: host:port of the first process, the number of processes, and this one's index.
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
#: Variables by which launchers identify the processes of one job.
_LAUNCHERS = ("SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_HOSTNAMES", "JOB_COMPLETION_INDEX")

#: Seconds without a heartbeat after which a process counts as lost and jax ends the others.
_HEARTBEAT = 20
#: Seconds that a process waits for the others before it says so, and before it gives up.
_PATIENCE = 5
_WAIT = 300
#: Variables in which launchers give the number of processes.
_COUNTS = ("JAX_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


# --- the mesh ------------------------------------------------------------------------------------------


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
    """Returns the sharding of parameters: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of batches: rows divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def zero1_sharding(tree: Any, mesh: Mesh) -> Any:
    """Returns the shardings of an optimiser's state of which each device holds a shard.

    ZeRO stage 1 (Rajbhandari 2020). An array is sharded along its first axis whose length is a multiple of the number
    of devices; an array without such an axis is replicated.
    """

    def place(array: jax.Array) -> NamedSharding:
        axes = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
        return NamedSharding(mesh, PartitionSpec(*[None] * axes[0], "data")) if axes else replicated(mesh)

    return jax.tree.map(place, tree)


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns a process's rows of the global batch as global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def broadcast_from_first(value: int) -> int:
    """Returns the first process's value on all processes: clocks and disks differ, the next action must not."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_process(flag: bool, mesh: Mesh) -> jax.Array:
    """Returns whether any process passed True, as an array that can be read without waiting one step later.

    Every process must call this at the same place. All read the same answer, so that all stop at the same step.
    """
    flags = np.full(len(mesh.local_devices), flag)
    return _any(jax.make_array_from_process_local_data(batch_sharding(mesh), flags))


def barrier(mesh: Mesh) -> None:
    """Waits for all processes, and connects their devices.

    Call it before anything large is compiled: on CPUs gloo gives up if one process arrives 30 s after another.
    """
    if jax.process_count() > 1:
        jax.block_until_ready(any_process(False, mesh))


_any = jax.jit(lambda flags: flags.any())


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array whose rows are sharded over the devices."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def describe_devices() -> str:
    """Returns one line for the log: the devices in use and, without a GPU, the reason."""
    device = jax.devices()[0]
    line = f"{jax.device_count()} x {device.device_kind}" + (
        f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    )
    if device.platform != "cpu":
        return line
    forced = os.environ.get("JAX_PLATFORMS")
    reason = (
        f"JAX_PLATFORMS is {forced}" if forced else "this jax finds no GPU; jax[cuda13] supports NVIDIA's"
    )
    return f"{line} (no accelerator: {reason})"


# --- processes -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def initialize_distributed(mode: str = "auto", wait: float = _WAIT) -> Iterator[None]:
    """Makes this process one of the processes of a run. Enter it before anything else uses jax.

    jax finds the other processes by itself under SLURM, Open MPI, Kubernetes and on Cloud TPU; elsewhere the
    variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them. If nothing names other
    processes, this one runs alone, at no cost.

    An error inside ends this process at once, with exit status 1: the others wait for it in a collective, and it would
    wait for them at its exit. They end when that collective fails, as gloo's do, or when jax misses the heartbeat,
    within half a minute.

    Args:
      mode: "auto", or "off" to run alone whatever the environment says.
      wait: seconds after which processes that have not come are given up.

    Raises:
      ConfigError: the environment names other processes, and they cannot be joined, or do not come.
      Interrupted: SIGTERM or SIGINT was received while this process waited for the others.
      TrainingError: another process is lost.
    """
    if mode not in _MODES:
        raise ConfigError(f"distributed is {mode!r}{did_you_mean(mode, _MODES)}")
    if mode == "auto" and not jax.distributed.is_initialized():
        _join(wait)
    try:
        yield
    except Interrupted:
        raise  # On all processes alike.
    except BaseException as error:
        if jax.process_count() > 1:
            atexit.register(_leave)
            if "Connection" in str(error) and isinstance(error, jax.errors.JaxRuntimeError):
                reason = " ".join(str(error).split())
                raise TrainingError(
                    f"another process of this run is gone ({reason}); the last checkpoint is kept"
                ) from error
        raise


def is_first_process() -> bool:
    """Returns whether this is the process which writes and prints."""
    return jax.process_index() == 0


def _join(wait: float) -> None:
    named = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if not named and _is_alone():
        return
    counts = {name: _whole_number(name, named[name]) for name in _VARIABLES[1:] if name in named}
    # SIGTERM is handled by `StopSignals`: jax's own service would catch it earlier, and swallow it.
    # An older jax has no such switch; only several processes start the service.
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)
    try:
        _initialize(
            wait,
            num_processes=counts.get("JAX_NUM_PROCESSES"),
            process_id=counts.get("JAX_PROCESS_ID"),
            cluster_detection_method="deactivate" if len(named) == len(_VARIABLES) else None,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
        first = jax.process_index() == 0
    except (TimeoutError, Interrupted) as stopped:
        # The thread that waits cannot be ended, and jax would wait for it at the exit.
        atexit.register(_leave)
        if isinstance(stopped, Interrupted):
            raise
        raise ConfigError(
            f"{_awaited()} did not come within {wait:.0f} s; start as many processes, or train in this one alone with "
            "--distributed=off"
        ) from None
    except Exception as error:  # Whatever jax meets when it inspects the cluster: network, services, values.
        if not named and "coordinator_address should be defined" in str(error):
            return  # It found no cluster.
        # If jax is in use already, as in a notebook, it does not even search.
        if not named and "must be called before" in str(error) and not any(map(os.environ.get, _LAUNCHERS)):
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        found = ", ".join(f"{name}={value}" for name, value in named.items()) or "found by the launcher"
        raise ConfigError(
            f"the other processes of this run ({found}) cannot be joined: {reason}. Expected {', '.join(_VARIABLES)} "
            "or a launcher that jax knows; --distributed=off trains in this process alone"
        ) from None
    if not first:  # All would log the same.
        logging.getLogger("liverjax").setLevel(logging.ERROR)


def _initialize(wait: float, **arguments: Any) -> None:
    """Calls `jax.distributed.initialize` in a thread, since it waits in C++, where no signal of Python's is handled.

    When its own time is over jax ends the process with a stack of C++, so that ours has to be over first.

    Raises:
      TimeoutError: the other processes did not come.
      Interrupted: a signal came first.
      Exception: what jax raises.
    """
    errors: list[Exception] = []

    def call() -> None:
        try:
            jax.distributed.initialize(initialization_timeout=int(wait) + 86400, **arguments)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    start, told = time.monotonic(), False
    with StopSignals() as stop:
        while thread.is_alive():
            thread.join(0.1)
            seconds = time.monotonic() - start
            if stop.received:
                raise Interrupted(
                    f"{stop.received} while waiting for {_awaited()}; the same command starts again"
                )
            if seconds > wait and thread.is_alive():
                raise TimeoutError
            if seconds > _PATIENCE and not told:
                _LOG.warning("waiting for %s", _awaited())
                told = True
    if errors:
        raise errors[0]


def _awaited() -> str:
    """Returns how many processes this one waits for, and which variable says so."""
    for name in _COUNTS:
        if os.environ.get(name, "").isdecimal():
            others = int(os.environ[name]) - 1
            return f"{others} more process{'es' if others > 1 else ''} ({name}={os.environ[name]})"
    return "the other processes that the launcher names"


def _is_alone() -> bool:
    """Returns whether this is certainly the only process, although jax would take it for one of many.

    In a SLURM step of one task jax would use one GPU of the node instead of all; in the interactive step of salloc,
    where SLURM_NTASKS is the job's, it would wait for tasks that nobody starts; and in a pod outside an indexed job,
    such as a notebook's, it would fail.
    """
    if (os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS")) == "1":
        return True
    in_pod, indexed = "KUBERNETES_SERVICE_HOST" in os.environ, "JOB_COMPLETION_INDEX" in os.environ
    return in_pod and not indexed and "TPU_WORKER_HOSTNAMES" not in os.environ


def _whole_number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"{name} is {value!r}, expected a whole number")
    return int(value)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class StopAgreement:
    """Agrees on the step after which a signal or callback stops the run: the same on all processes, whichever asks."""

    def __init__(self, signals: StopSignals, mesh: Mesh, asks: Callable[[], bool] = lambda: False):
        """``asks``: whether something else than a signal asks this process to stop."""
        self._signals, self._asks = signals, asks
        self._mesh = mesh
        self._asked: jax.Array | None = None

    def reached(self) -> bool:
        """Returns whether to stop after the step in progress. Call it once per step."""
        wanted = bool(self._signals.received) or self._asks()
        if jax.process_count() == 1:
            return wanted
        # The answer to the previous step's question: it is available without waiting.
        before = self._asked
        self._asked = any_process(wanted, self._mesh)
        return before is not None and bool(before)

    @property
    def reason(self) -> str:
        """What stopped the run, for a message."""
        return self._signals.received or "a signal to another process"
