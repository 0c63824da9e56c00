"""Several models as one: the networks of the folds of a cross-validation, or of several seeds, by one OrthoMean."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Sequence

from liverjax.config import differences
from liverjax.errors import ConfigError, InputError
from liverjax.inference.calibration import UNCALIBRATED
from liverjax.inference.cascade import Cascade
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.options import Config

_LOG = logging.getLogger("liverjax")

#: What models have to agree on: groups and fields of the config that prediction depends on, and those within that
#: only training reads.
_COMMON = ("target.", "preprocess.", "model.", "predict.", "views")
_OF_TRAINING = ("target.synthetic", "model.norm_momentum", "model.shared")


def named(model: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str | os.PathLike]:
    """Returns the models that are meant: those of a list, or of a text with commas, unless that is itself a path.

    Raises:
      InputError: one is empty, or named twice.
    """
    if isinstance(model, str) and "," in model and not os.path.lexists(model):
        model = [part.strip() for part in model.split(",")]
    if isinstance(model, str | os.PathLike):
        return [model]
    names = list(model)
    places = [pathlib.Path(name).resolve() for name in names]
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        if not os.fspath(name):
            raise InputError(
                f"models are {','.join(map(str, names))!r}, expected a path or name between the commas"
            )
        if place in places[:index]:
            raise InputError(f"{name}: is given twice, so that it would count twice; give each model once")
    if not names:
        raise InputError("no model is given, expected one or more")
    return names


def ensemble(models: Sequence[Segmenter | Cascade], names: Sequence[str | os.PathLike]) -> Segmenter:
    """Returns models as one, whose softmax map of each view is the mean of theirs.

    Their networks become the members of one model. What was fitted to one of them by `liverjax calibrate` is not used.
    A case is held out if it is a test case of one and trained or validated none.

    Args:
      models: two or more, with equally many networks of each view.
      names: of the models, for messages.

    Raises:
      ConfigError: one is a cascade, or they differ in what they see, find, are, or do with their answers.
    """
    alone: list[Segmenter] = []
    for model, name in zip(models, names, strict=True):
        if isinstance(model, Cascade):
            raise ConfigError(
                f"{name}: holds a liver and a tumour model, expected models of one stage to predict together; give "
                "their runs: --model=LIVER1,LIVER2 --tumor_model=TUMOR1,TUMOR2"
            )
        alone.append(model)
    whole = [model.with_options(ensemble="all") for model in alone]
    first = whole[0]
    for given, model, name in zip(alone[1:], whole[1:], names[1:], strict=True):
        _require_alike(alone[0].config, given.config, f"{names[0]} and {name}")
        if model.networks.members != first.networks.members:
            raise ConfigError(
                f"{names[0]} and {name} have {first.networks.members} and {model.networks.members} networks of each "
                "view, expected equally many, so that each model counts the same"
            )
    if any(model.calibration != UNCALIBRATED for model in whole):
        _LOG.warning(
            "not calibrated: temperatures and weights were fitted to single ones of these models, not to all"
        )
    titles = dict.fromkeys(model.config.name for model in whole)
    config = dataclasses.replace(
        first.config,
        name=" + ".join(titles),
        predict=dataclasses.replace(first.config.predict, ensemble=alone[0].config.predict.ensemble),
    )
    networks = Networks.of_runs([model.networks for model in whole])
    return Segmenter(config, networks, _subsets(alone))


def _require_alike(first: Config, other: Config, names: str) -> None:
    for path in differences(first, other):
        if not path.startswith(_COMMON) or path.startswith(_OF_TRAINING):
            continue
        one, two = (functools.reduce(getattr, path.split("."), config) for config in (first, other))
        raise ConfigError(
            f"{names} cannot predict together: {path} is {one} and {two}, expected the same of both"
        )


def _subsets(models: Sequence[Segmenter]) -> dict[str, list[str]]:
    """Returns for each case the most that a model has seen of it; nothing if a model does not list its cases."""
    if not all(model.subsets for model in models):
        return {}
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for subset in ("train", "validation", "test"):
        ids = dict.fromkeys(id for model in models for id in model.subsets[subset])
        found[subset] = [id for id in ids if id not in seen]
        seen |= set(ids)
    return found
