"""Starting a run in its folder, or continuing the one that is there: what must be the same, and what is logged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from liverjax.checkpoint.manifest import environment, read_manifest, write_manifest
from liverjax.config import differences, to_dict
from liverjax.data.splits import Subsets
from liverjax.data.store import Store, StoredCase
from liverjax.errors import CheckpointError, ConfigError, did_you_mean
from liverjax.files import locked, write_json
from liverjax.options import FIELDS_FREE_ON_RESUME, Config
from liverjax.own import OwnFunction
from liverjax.training.distributed import broadcast_from_first, is_first_process
from liverjax.views import VIEWS

_LOG = logging.getLogger("liverjax")

_RESUME = ("auto", "force")


@contextlib.contextmanager
def locked_run(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in the same folder; of several processes of a run the first holds the lock.

    Raises:
      LockedError: another process trains there.
    """
    with locked(workdir / ".lock") if is_first_process() else contextlib.nullcontext():
        yield


def start_or_resume(
    workdir: pathlib.Path,
    config: Config,
    store: Store,
    subsets: Subsets[StoredCase],
    init: Mapping[str, Any] | None = None,
    resume: str = "auto",
    require_fit: Callable[[Config], None] = lambda config: None,
    own: Mapping[str, OwnFunction] | None = None,
) -> None:
    """Writes ``run.json``, or compares with what the run was started with.

    Args:
      workdir: folder of the run.
      config: of this call.
      store: where the cases come from.
      subsets: the cases that train, validate and test.
      init: the networks that training starts from.
      resume: "auto" refuses to continue with another config or other scans; "force" continues, logs what that means,
        and records it in ``run.json`` under "forced".
      require_fit: raises an error if the run cannot go on with another config, that of all its views; called before
        anything is changed.
      own: the functions of own files that the config names: not their paths tell them apart, but name and content.

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
            field.name: [case.id for case in getattr(subsets, field.name)]
            for field in dataclasses.fields(subsets)
        },
    }
    origin = {name: _digest(variables) for name, variables in (init or {}).items()}
    code = {field: {"function": one.name, "sha256": one.sha256} for field, one in (own or {}).items()}
    first = is_first_process()
    starts = not broadcast_from_first(first and manifest.exists())
    if starts and first:
        write_manifest(manifest, config=to_dict(config), data=data, init=origin, own=code)
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
    known = before.get("own", {})
    same = [field for field in code if known.get(field) == code[field]]
    changed = [
        text
        for path, text in differences(before["config"], config).items()
        if (not _is_free(path, free) or (path == "views" and config.model.shared)) and path not in same
    ]
    changed += [f"the code of {own[field]}" for field in code if own and field in known and field not in same]
    if before["data"]["fingerprint"] != data["fingerprint"]:
        changed.append(f"the scans and masks of the store {config.store}")
    if origin and before.get("init", {}) != origin:
        changed.append("the networks that it started from (init)")
    if changed and resume != "force":
        raise CheckpointError(
            f"{workdir} holds a run that differs in: {', '.join(changed)}; choose another --workdir, "
            "the values of that run, or --resume=force"
        )
    # Views may be trained by separate calls: the run is that of all of them.
    views = tuple(view for view in VIEWS if view in {*before["config"].views, *config.views})
    after = {**before, "config": dataclasses.replace(before["config"], views=views)}
    if changed:
        require_fit(dataclasses.replace(config, views=views))
        _LOG.warning(
            "%s continues with %s: its result belongs to no single config, and cannot be reproduced",
            workdir,
            ", ".join(changed),
        )
        after["config"] = dataclasses.replace(config, views=views)
        after["data"], after["own"] = data, code
        after["forced"] = [*before.get("forced", []), *changed]
    if after != before and first:
        write_json(manifest, {**after, "config": to_dict(after["config"])})


def _is_free(path: str, free: tuple[str, ...]) -> bool:
    # Validation decides as prediction does: the choice of the best checkpoint depends on it.
    return path != "predict.decision" and path.startswith(free)


def _digest(variables: Any) -> str:
    """Returns the SHA-256 of a network's arrays in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _log_environment_changes(workdir: pathlib.Path, before: dict) -> None:
    """Logs which versions, devices and CPUs are not those with which the run was started."""
    changed = [
        f"{name} {before[group][name]}, now {value}"
        for group, facts in environment().items()
        for name, value in facts.items()
        if name in before.get(group, {}) and before[group][name] != value
    ]
    if changed:
        _LOG.warning(
            "%s continues in another environment: %s. Batches, augmentation and dropout stay the same, but sums may "
            "round differently, so that the result is not the uninterrupted run's to the bit",
            workdir,
            "; ".join(changed),
        )
