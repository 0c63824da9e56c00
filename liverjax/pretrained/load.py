"""Loading a model: the folder of a training run, a bundle, a shipped model by its name; or several of them as one."""

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
from liverjax.errors import ConfigError, InputError
from liverjax.files import address_of, sha256
from liverjax.inference.calibration import UNCALIBRATED, Checkpoint, read_calibration
from liverjax.inference.cascade import Cascade
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.models import build_unet
from liverjax.objects.filter_file import read_filter
from liverjax.options import Config
from liverjax.pretrained.bundle import read_bundle
from liverjax.pretrained.cascade_bundle import is_cascade, read_cascade
from liverjax.pretrained.ensemble import ensemble, named
from liverjax.pretrained.registry import bundle_of
from liverjax.remote import local_copy

#: Of the folder of a run what prediction does not read.
_NO_MODEL = ("last", "tensorboard", "log.jsonl", ".lock")


def load_model(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    views: Sequence[str] | None = None,
    calibrated: bool = True,
) -> Segmenter | Cascade:
    """Returns a model: a shipped one, that of a bundle, or of the folder of a training run the best checkpoints.

    A bundle of a liver and a tumour model is a `Cascade`.

    Of a run with several restarts those that were kept last, each with its best checkpoint; while views are still
    being trained, as many of each as the view has that has the fewest.

    Several models, such as the folds of a cross-validation, predict together: `liverjax.pretrained.ensemble`.

    Args:
      path: the file, or the folder; or, as text, the name of a shipped model (`liverjax models` lists them). What has
        that name in the working directory goes before it. Or the address of a file or a folder, such as
        ``gs://bucket/run``, which is copied into the cache (`liverjax.remote`). Of several a list, or their text with
        commas between.
      views: only the networks of these are restored, so that the others of a run need not be trained yet; by default
        those of all views.
      calibrated: of a run, whether its ``calibration.json`` is read; a new fit needs none, whatever state it is in.

    Raises:
      CheckpointError: it is none of these, is damaged, or a view has no sound checkpoint.
      ConfigError: the model has no such view; or several do not go together.
      InputError: an address cannot be read; or one of several is named twice.
    """
    several = named(path)
    models = [_load(one, views, calibrated) for one in several]
    return models[0] if len(models) == 1 else ensemble(models, several)


def _load(path: str | os.PathLike, views: Sequence[str] | None, calibrated: bool) -> Segmenter | Cascade:
    folder = local_copy(path, "the model", without=_NO_MODEL)
    with bundle_of(folder if address_of(path) else path) as bundle:
        if bundle is None:
            return _of_run(folder, views, calibrated)
        if is_cascade(bundle):
            return read_cascade(bundle, _template).with_options(views)
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


def load_segmenter(path: str | os.PathLike, **options: Any) -> Segmenter:
    """Returns one model of one stage; takes and raises what `load_model` does.

    Raises:
      ConfigError: it is a cascade, or several models are given.
    """
    model = _one_stage(path, **options)
    if model.networks.runs > 1:
        raise ConfigError(f"{path}: are {model.networks.runs} models, expected one; give one of them")
    return model


def _one_stage(path: str | os.PathLike, **options: Any) -> Segmenter:
    model = load_model(path, **options)
    if isinstance(model, Cascade):
        raise ConfigError(
            f"{path}: holds a liver and a tumour model, expected one; give the run or the bundle of one of them"
        )
    return model


def with_tumors(
    model: Segmenter | Cascade,
    tumor_model: str | os.PathLike | None,
    lesion_filter: str | os.PathLike | None = None,
    lesion_probability: float | None = None,
    *,
    views: Sequence[str] | None = None,
) -> Segmenter | Cascade:
    """Returns the cascade of a liver model and what else is given; without any of it the model as it is.

    Args:
      model: a liver model; or a cascade, whose filter and operating point are replaced by those that are given.
      tumor_model: folder of a run, or a bundle; or several with commas between, as of `load_model`.
      lesion_filter: file of `liverjax train-filter`.
      lesion_probability: another operating point of the filter, 0 to 1; 0 keeps every candidate.
      views: as of `load_model`, of the tumour model.

    Raises:
      ConfigError: models or filter do not go together, or there is nothing to filter.
      InputError: a tumour model is given to a cascade.
      CheckpointError: as `load_model` and `read_filter`.
    """
    if tumor_model is not None:
        if isinstance(model, Cascade):
            raise InputError(
                f"--tumor_model={tumor_model}: the model has tumour networks of its own; leave it out, or give as "
                "--model the run or the bundle of the liver alone"
            )
        model = Cascade(model, _one_stage(tumor_model, views=views))
    if lesion_filter is None and lesion_probability is None:
        return model
    if not isinstance(model, Cascade):
        raise ConfigError(
            "a lesion filter needs tumour networks, but the model is of one stage; give --tumor_model too"
        )
    kept = model.lesion_filter if lesion_filter is None else read_filter(lesion_filter)
    if kept is None:
        raise ConfigError(
            f"lesion_probability is {lesion_probability}, but there is no lesion filter; give --lesion_filter too"
        )
    if lesion_probability is not None:
        kept = dataclasses.replace(kept, lesion_probability=lesion_probability)
    return Cascade(model.liver, model.tumor, kept)


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
