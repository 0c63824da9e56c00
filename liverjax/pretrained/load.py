"""Loading a model: the folder of a training run, or a bundle."""

from __future__ import annotations

import os
import pathlib

import jax
import jax.numpy as jnp

from liverjax.checkpoint.manifest import read_manifest
from liverjax.checkpoint.restarts import kept_folders
from liverjax.checkpoint.runs import restore_parameters
from liverjax.config import resolve
from liverjax.inference.calibration import read_calibration
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.options import Config
from liverjax.pretrained.bundle import read_bundle


def load_model(path: str | os.PathLike) -> Segmenter:
    """Returns the model in a bundle, or in the folder of a training run: there the best checkpoint of each view.

    Of a run with several restarts those that were kept last, each with its best checkpoint; while views are still
    being trained, as many of each as the view has that has the fewest.

    Raises:
      CheckpointError: it is neither, is damaged, or a view has no sound checkpoint.
    """
    path = pathlib.Path(path)
    if path.is_file():
        config, networks, calibration, about = read_bundle(path, _template)
        return Segmenter(config, networks, about["cases"], calibration, about)
    facts = read_manifest(path / "run.json")
    config = resolve(facts["config"])
    template = _template(config)
    folders = {name: kept_folders(path / name, config.train.restarts) for name in config.networks}
    members = min(map(len, folders.values()))  # Equally many, else a view is still being trained.
    trained = Networks.stack(
        {
            name: [restore_parameters(folder / "best", template)[1] for folder in kept[:members]]
            for name, kept in folders.items()
        }
    )
    of_view = {view: name for name in config.networks for view in config.views_of(name)}
    networks = Networks({view: trained.variables[name] for view, name in of_view.items()}, members)
    subsets = {subset: facts["data"][subset] for subset in ("train", "validation", "test")}
    about = {"versions": facts["versions"], "data": facts["data"]["fingerprint"], "cases": subsets}
    return Segmenter(config, networks, subsets, read_calibration(path, config), about)


def _template(config: Config) -> dict:
    """Returns shapes, types and placement (one device) of a view's parameters and statistics."""
    slices = jnp.zeros((1, *config.batch.patch, 1))
    network = build_unet(config.model, len(config.labels), accelerator=False)
    variables = jax.eval_shape(network.init, jax.random.key(0), slices)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    arrays = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), variables)
    return {"params": arrays["params"], "batch_stats": arrays.get("batch_stats", {})}
