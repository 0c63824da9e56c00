"""The manifest of a run, ``run.json``: what was run, on what, with what."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import jax

from liverjax import __version__
from liverjax.config import resolve
from liverjax.errors import CheckpointError, ConfigError, shown
from liverjax.files import write_json

#: Format of ``run.json``; a later one is refused.
FORMAT = 1

#: Lists of case ids that it holds under "data".
_SUBSETS = ("train", "validation", "test")

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


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """Returns the facts of a ``run.json``, its "config" as a `Config`.

    Raises:
      CheckpointError: it is no manifest of a run, or this version does not understand it.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found, versions = facts["format"], dict(facts["versions"])
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format is {found!r}, expected {FORMAT}")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist, expected the folder of a training run") from None
    except KeyError as error:
        raise CheckpointError(f"{path}: not the manifest of a run (it has no {error})") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the manifest of a run ({shown(error)})") from None
    if found > FORMAT:
        raise CheckpointError(
            f"{path}: format {found}, expected at most {FORMAT}: the run was written by a newer liverjax; update this "
            "one"
        )
    writer = shown(versions.get("liverjax", "of an unknown version")).strip("'")
    origin = f"{path} was written by liverjax {writer}, this is {__version__}"
    try:
        return {**facts, "data": _checked(facts.get("data")), "config": resolve(facts.get("config"))}
    except ConfigError as error:
        raise CheckpointError(f"{origin}: {error}") from None


def _checked(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"data is {shown(data)}, expected a group of fields")
    for subset in _SUBSETS:
        cases = data.get(subset)
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise ConfigError(f"data.{subset} is {shown(cases)}, expected a list of case ids")
    if not isinstance(data.get("fingerprint"), str):
        raise ConfigError(f"data.fingerprint is {shown(data.get('fingerprint'))}, expected text")
    return data
