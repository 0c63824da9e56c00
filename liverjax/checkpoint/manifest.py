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

#: Format of ``run.json``; a later one is refused.
FORMAT = 1

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel")


def environment() -> dict[str, dict]:
    """Returns what the last bits of a result may depend on beside the config: "versions" and "machine"."""
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
    """Writes a manifest: its format, versions and machine, and the given facts."""
    write_json(path, {"format": FORMAT, **environment(), **facts})


def read_manifest(path: pathlib.Path) -> dict:
    """Returns the facts of a ``run.json``, or raises `CheckpointError` if it is not one."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found = facts["format"]
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format is {found!r}, expected {FORMAT}")
        if found <= FORMAT:
            return {**facts, "config": dict(facts["config"]), "data": dict(facts["data"])}
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist, expected the folder of a training run") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not the manifest of a run ({error!r})") from None
    raise CheckpointError(
        f"{path}: format {found}, expected at most {FORMAT}: the run was written by a newer liverjax; update this one"
    )
