"""Loading a model: the folder of a training run, a bundle, or a shipped model by its name."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liverjax.checkpoint.manifest import read_manifest
from liverjax.checkpoint.restarts import kept_folders
from liverjax.checkpoint.runs import CHECKSUMS, restore_parameters
from liverjax.config import resolve
from liverjax.errors import ConfigError
from liverjax.files import local_path, sha256
from liverjax.inference.calibration import UNCALIBRATED, Checkpoint, read_calibration
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.options import Config
from liverjax.pretrained.bundle import read_bundle
from liverjax.pretrained.registry import bundle_of


def load_model(
    path: str | os.PathLike, *, views: Sequence[str] | None = None, calibrated: bool = True
) -> Segmenter:
    """Returns a model: a shipped one, that of a bundle, or of the folder of a training run the best checkpoints.

    Of a run with several restarts those that were kept last, each with its best checkpoint; while views are still
    being trained, as many of each as the view has that has the fewest.

    Args:
      path: the file, or the folder; or, as text, the name of a shipped model (`liverjax models` lists them). What has
        that name in the working directory goes before it.
      views: only the networks of these are restored, so that the others of a run need not be trained yet; by default
        those of all views.
      calibrated: of a run, whether its ``calibration.json`` is read; a new fit needs none, whatever state it is in.

    Raises:
      CheckpointError: it is none of these, is damaged, or a view has no sound checkpoint.
      ConfigError: the model has no such view.
      InputError: the path is an address, such as ``gs://bucket/run``.
    """
    folder = local_path(path, "the model")
    with bundle_of(path) as bundle:
        if bundle is None:
            return _of_run(folder, views, calibrated)
        config, networks, calibration, about = read_bundle(bundle, _template)
    chosen = _choose(config, views)
    return Segmenter(chosen, networks.select(chosen.views), None, calibration, about)


def _of_run(path: pathlib.Path, views: Sequence[str] | None, calibrated: bool) -> Segmenter:
    """Returns the model in the folder of a training run."""
    facts = read_manifest(path / "run.json")
    config = resolve(facts["config"])
    chosen = _choose(config, views)
    template = _template(config)
    network_of = {
        view: name for name in config.networks for view in config.views_of(name) if view in chosen.views
    }
    folders = {
        name: kept_folders(path / name, config.train.restarts) for name in dict.fromkeys(network_of.values())
    }
    members = min(map(len, folders.values()))  # Equally many, unless a view is still being trained.
    variables: dict[str, list[Any]] = {}
    checkpoints: dict[str, list[Checkpoint]] = {}
    for name, kept in folders.items():
        restored = [restore_parameters(folder / "best", template) for folder in kept[:members]]
        variables[name] = [tree for _, tree, _ in restored]
        checkpoints[name] = [
            {"step": step, "sha256": sha256(folder / "best" / str(step) / CHECKSUMS)}
            for folder, (step, _, _) in zip(kept, restored, strict=False)
        ]
    stacked = Networks.stack(variables)
    networks = Networks({view: stacked.variables[network_of[view]] for view in chosen.views}, members)
    subsets = {subset: facts["data"][subset] for subset in ("train", "validation", "test")}
    about = {
        "versions": facts["versions"],
        "data": facts["data"]["fingerprint"],
        "checkpoints": {view: checkpoints[network_of[view]] for view in chosen.views},
    }
    calibration = read_calibration(path, config, about["checkpoints"]) if calibrated else UNCALIBRATED
    return Segmenter(chosen, networks, subsets, calibration, about)


def _choose(config: Config, views: Sequence[str] | None) -> Config:
    """Returns the config with some of its views."""
    for view in views or ():
        if view not in config.views:
            raise ConfigError(f"views names {view!r}, but the model has only {', '.join(config.views)}")
    return config if views is None else dataclasses.replace(config, views=tuple(views))


def _template(config: Config) -> dict:
    """Returns shapes, types and placement (one device) of a view's parameters and statistics."""
    network = build_unet(config.model, len(config.labels), accelerator=False)
    size = 2 ** (len(config.model.features) - 1)
    slices = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), slices)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    arrays = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), variables)
    return {"params": arrays["params"], "batch_stats": arrays.get("batch_stats", {})}
