"""Starting a run in its folder, or going on with the one that is there: what must be the same, and what is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib

import jax

from liverjax.checkpoint.manifest import environment, read_manifest, write_manifest
from liverjax.config import differences, resolve, to_dict
from liverjax.data.splits import Subsets
from liverjax.data.store import Store
from liverjax.errors import CheckpointError, ConfigError, did_you_mean
from liverjax.files import write_json
from liverjax.options import FIELDS_FREE_ON_RESUME, Config
from liverjax.training.mesh import broadcast_from_first
from liverjax.views import VIEWS

_LOG = logging.getLogger("liverjax")

_RESUME = ("auto", "force")


def start_or_resume(
    workdir: pathlib.Path, config: Config, store: Store, parts: Subsets, resume: str = "auto"
) -> None:
    """Writes ``run.json``, or compares with what the run was started with.

    Args:
      resume: "auto" refuses to go on with another config or other scans; "force" goes on, says what that means,
        and notes it in ``run.json`` under "forced".

    Raises:
      CheckpointError: the folder holds a run of another config or other data.
    """
    if resume not in _RESUME:
        raise ConfigError(f"resume is {resume!r}{did_you_mean(resume, _RESUME)}")
    manifest = workdir / "run.json"
    listing = json.dumps([(case.id, case.fingerprint) for case in store.cases])
    data = {
        "fingerprint": hashlib.sha256(listing.encode()).hexdigest(),
        **{
            field.name: [case.id for case in getattr(parts, field.name)]
            for field in dataclasses.fields(parts)
        },
    }
    first = jax.process_index() == 0
    starts = not broadcast_from_first(first and manifest.exists())
    if starts and first:
        write_manifest(manifest, config=to_dict(config), data=data)
    if starts:
        broadcast_from_first(0)  # Waits for the first, so that the others compare theirs with what it wrote.
    if starts and first:
        return
    if not manifest.exists():
        raise CheckpointError(
            f"{manifest}: the first process sees it and process {jax.process_index()} does not, expected a workdir "
            "on a file system that all hosts share"
        )
    before = read_manifest(manifest)
    _log_environment_changes(workdir, before)
    free = (
        FIELDS_FREE_ON_RESUME
        if config.train.restarts > 1
        else (*FIELDS_FREE_ON_RESUME, "train.halving_steps")
    )
    changed = [
        text
        for path, text in differences(resolve(before["config"]), config).items()
        if not path.startswith(free) or (path == "views" and config.model.shared)
    ]
    if before["data"]["fingerprint"] != data["fingerprint"]:
        changed.append(f"the scans and masks of the store {config.store}")
    if changed and resume != "force":
        raise CheckpointError(
            f"{workdir} holds a run that differs in: {', '.join(changed)}; choose another --workdir, "
            "the values of that run, or --resume=force"
        )
    # Views may be trained by separate calls: the run is that of all of them.
    views = tuple(view for view in VIEWS if view in {*before["config"]["views"], *config.views})
    after = {**before, "config": {**before["config"], "views": list(views)}}
    if changed:
        _LOG.warning(
            "%s goes on with %s: its result is that of no single config, and cannot be made again",
            workdir,
            ", ".join(changed),
        )
        after["config"] = {**to_dict(config), "views": list(views)}
        after["data"] = data
        after["forced"] = [*before.get("forced", []), *changed]
    if after != before and first:
        write_json(manifest, after)


def _log_environment_changes(workdir: pathlib.Path, before: dict) -> None:
    """Says in the log which versions, devices and CPUs are not those that the run was started with."""
    now = environment()
    changed = [
        f"{name} {before[group][name]}, now {value}"
        for group, facts in now.items()
        for name, value in facts.items()
        if name in before.get(group, {}) and before[group][name] != value
    ]
    if changed:
        _LOG.warning(
            "%s goes on elsewhere than it was started: %s. Batches, augmentation and dropout stay the same, but sums "
            "may round otherwise, so that the result is not the uninterrupted run's to the bit",
            workdir,
            "; ".join(changed),
        )
