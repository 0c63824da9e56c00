"""The models that come with the library: name -> shipped file; and which of them is for a scan."""

from __future__ import annotations

import collections
import contextlib
import importlib.resources
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from liverjax.datasets.case import Case
from liverjax.datasets.dataset_json import dataset_facts, modality
from liverjax.errors import CheckpointError, InputError, did_you_mean
from liverjax.pretrained.bundle import read_facts
from liverjax.scans.intensity import doubts

#: The shipped models, better ones first: without ``--model``, the first that is for a scan's modality segments it.
NAMES: tuple[str, ...] = ("ct_liver", "any_liver")
#: Where their files lie, ``<name>.safetensors``: package data, which may be in an archive.
FOLDER = importlib.resources.files("liverjax.pretrained") / "shipped"
_AGAIN = "install liverjax again"


@contextlib.contextmanager
def shipped_file(name: str) -> Iterator[pathlib.Path]:
    """Gives the file of a shipped model; of a package in an archive a temporary copy.

    Raises:
      CheckpointError: no shipped model has this name, or this installation lacks its file; and what reading it within
        the block raises, with a remedy.
    """
    if name not in NAMES:
        raise CheckpointError(
            f"no shipped model is called {name!r}{did_you_mean(name, NAMES)} (`liverjax models` lists them)"
        )
    place = FOLDER / f"{name}.safetensors"
    if not place.is_file():
        raise CheckpointError(
            f"{place} is missing: this installation lacks the shipped model {name}; {_AGAIN}"
        )
    with importlib.resources.as_file(place) as file:
        try:
            yield file
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {_AGAIN}, which brings the shipped model {name}") from None


@contextlib.contextmanager
def bundle_of(model: str | os.PathLike) -> Iterator[pathlib.Path | None]:
    """Gives the file that a model is in: a bundle, or a shipped model by its name; None for the folder of a run.

    What has that name in the working directory goes before the shipped model.

    Args:
      model: a path, or as text the name of a shipped model.

    Raises:
      CheckpointError: it is neither a path of something nor a name; and as `shipped_file`.
    """
    path = pathlib.Path(model)
    a_name = isinstance(model, str) and model in NAMES
    if os.path.lexists(path):
        try:
            yield path if path.is_file() else None
        except CheckpointError as error:
            if a_name:
                raise CheckpointError(
                    f"{error}; what is called {model} in the working directory goes before the shipped model: rename "
                    "it, or call this in another folder"
                ) from None
            raise
        return
    if a_name:
        with shipped_file(str(model)) as file:
            yield file
        return
    if not isinstance(model, str):
        raise CheckpointError(f"{path}: does not exist, expected the folder of a training run, or a bundle")
    raise CheckpointError(
        f"{model}: does not exist, expected the folder of a training run, a bundle, or the name of a shipped model"
        f"{did_you_mean(str(model), NAMES)} (`liverjax models` lists them)"
    )


def shipped_facts(name: str) -> tuple[dict[str, Any], int]:
    """Returns what a shipped model says of itself (`bundle.read_facts`), and its size in bytes.

    Raises:
      CheckpointError: as `shipped_file`.
    """
    with shipped_file(name) as file:
        return read_facts(file), file.stat().st_size


def best_for(modality: str) -> str:
    """Returns the shipped model that segments scans of a modality, "ct" or "mr".

    Raises:
      CheckpointError: there is none, or as `shipped_file`.
    """
    for name in NAMES:
        config = shipped_facts(name)[0]["config"]
        if config.target.region == "scan" and config.preprocess.modality in (modality, "any"):
            return name
    raise CheckpointError(
        f"no shipped model is for {modality.upper()} (`liverjax models` lists them); give one with --model"
    )


def for_cases(cases: Sequence[Case], source: str | os.PathLike) -> dict[str, list[Case]]:
    """Returns which shipped models segment which cases, by the modality of each.

    The modality is what the layout or the data set's `dataset.json` says, else what the values of the scan are. Scans
    are read for that only if it matters, and what cannot be read goes to the first model, which will report it.

    Args:
      cases: of `find_cases`.
      source: the data set or scan that they are of.

    Raises:
      InputError: a scan is neither CT nor MR by its values.
      CheckpointError: as `best_for`.
    """
    models = {kind: best_for(kind) for kind in ("ct", "mr")}
    if len(set(models.values())) == 1:
        return {models["ct"]: list(cases)}
    stated = modality(dataset_facts(pathlib.Path(source)))
    groups: dict[str, list[Case]] = collections.defaultdict(list)
    for case in cases:
        groups[models[case.modality or stated or _by_values(case)]].append(case)
    return {name: groups[name] for name in NAMES if name in groups}


def _by_values(case: Case) -> str:
    """Returns "ct" if a scan's values are Hounsfield units, else "mr"."""
    try:
        voxels = case.read_image().voxels
    except (InputError, OSError):
        return "ct"
    found = {kind: doubts(voxels, kind) for kind in ("ct", "mr")}
    fits = [kind for kind, doubted in found.items() if not doubted]
    if len(fits) != 1:
        raise InputError(
            f"{case.image}: neither CT nor MR by its values ({'; '.join(found['ct'])}); take it out, or give a model "
            "with --model (`liverjax models` lists them)"
        )
    return fits[0]
