"""The manifest of a run, ``run.json``: what was run, on what, with what."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform

import jax

from liverjax import __version__
from liverjax.errors import CheckpointError
from liverjax.files import write_json

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel")


def environment() -> dict[str, dict]:
    """Returns what a run's last bits may depend on beside its config: "versions" and "machine"."""
    versions = {name: _version(name) for name in _PACKAGES}
    versions |= {"liverjax": __version__, "python": platform.python_version()}
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    machine = {
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": len(cpus),
        "cpu_set": list(cpus),
    }
    return {"versions": versions, "machine": machine}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # The step can be timed without those that read files.
        return "not installed"


def write_manifest(path: pathlib.Path, **facts: object) -> None:
    """Writes ``run.json``: versions and machine, and the run's own facts."""
    write_json(path, {**environment(), **facts})


def read_manifest(path: pathlib.Path) -> dict:
    """Returns the facts of a ``run.json``, or raises `CheckpointError` if it is not one."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return {**facts, "config": dict(facts["config"]), "data": dict(facts["data"])}
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist, expected the folder of a training run") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not the manifest of a run ({error!r})") from None
