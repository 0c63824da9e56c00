"""Several processes, on one host or many, as one run."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Iterator

import jax

from liverjax.errors import ConfigError, Interrupted, TrainingError, did_you_mean

_MODES = ("auto", "off")
#: Where no launcher is known to jax, these name the first process as host:port, and count and number the processes.
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
#: What launchers tell each of several processes, of which jax makes them one run.
_LAUNCHERS = ("SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_HOSTNAMES", "JOB_COMPLETION_INDEX")

#: After so many seconds without a sign of life a process counts as gone, and jax ends the others.
_HEARTBEAT = 20


@contextlib.contextmanager
def joined(mode: str = "auto") -> Iterator[None]:
    """Makes this process one of a run's; to be entered before anything else uses jax.

    jax finds the other processes by itself under SLURM, Open MPI, Kubernetes and on Cloud TPU; elsewhere the
    variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them. A process that nothing of
    this tells of others stays alone, at no cost.

    An error within ends this process at once, with exit status 1: the others wait for it in a sum, and it would
    wait for them at its exit. They end when that sum breaks off, as gloo's do, or else when jax misses its heartbeat,
    within half a minute.

    Args:
      mode: "auto", or "off" to stay alone whatever the environment says.

    Raises:
      ConfigError: the environment tells of other processes, and they cannot be joined.
      TrainingError: another process is gone.
    """
    if mode not in _MODES:
        raise ConfigError(f"distributed is {mode!r}{did_you_mean(mode, _MODES)}")
    if mode == "auto" and not jax.distributed.is_initialized():
        _join()
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
    """Returns whether this is the process that writes and prints."""
    return jax.process_index() == 0


def _join() -> None:
    named = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if not named and _is_alone():
        return
    counts = {name: _whole_number(name, named[name]) for name in _VARIABLES[1:] if name in named}
    # SIGTERM is ours: jax's own service would catch it before `StopSignals` is there, and tell nobody.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            num_processes=counts.get("JAX_NUM_PROCESSES"),
            process_id=counts.get("JAX_PROCESS_ID"),
            cluster_detection_method="deactivate" if len(named) == len(_VARIABLES) else None,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
        first = jax.process_index() == 0
    except Exception as error:  # Whatever jax's look at the cluster meets: its network, services and values.
        if not named and "coordinator_address should be defined" in str(error):
            return  # It found no cluster.
        # Where jax is in use already, as in a notebook, it does not even look.
        if not named and "must be called before" in str(error) and not any(map(os.environ.get, _LAUNCHERS)):
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        told = ", ".join(f"{name}={value}" for name, value in named.items()) or "found by the launcher"
        raise ConfigError(
            f"the other processes of this run ({told}) cannot be joined: {reason}. Expected {', '.join(_VARIABLES)} "
            "or a launcher that jax knows; --distributed=off trains in this process alone"
        ) from None
    if not first:  # All would say the same.
        logging.getLogger("liverjax").setLevel(logging.ERROR)


def _is_alone() -> bool:
    """Returns whether this is surely the only process, though jax's look at the cluster would take it for one of many.

    For a SLURM step of one task jax would use one GPU of the node, not all of them; and a pod that is not part of an
    indexed job, such as a notebook's, would fail for it.
    """
    if os.environ.get("SLURM_NTASKS") == "1":
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
