"""A cascade in one file: models of liver and tumours, and lesion filter, as `bundle` and `filter_file` have them.

The names of arrays begin with ``liver/``, ``tumor/`` or ``filter/``; the metadata hold the facts of each under the same
names. Reading trusts nothing, by the same checks: of each stage names, types and shapes before any array is read, then
one SHA-256 of all arrays and metadata.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from liverjax import sealed
from liverjax.errors import CheckpointError, ConfigError
from liverjax.files import local_path, parse_json, replacing
from liverjax.inference.cascade import STAGES, Cascade
from liverjax.inference.segmenter import Segmenter
from liverjax.objects import filter_file
from liverjax.objects.filter import LesionFilter
from liverjax.options import Config
from liverjax.pretrained import bundle

_FORMAT, _VERSION = "liverjax cascade", 1
_FIELDS = {"format": str, "version": int, **dict.fromkeys(STAGES, dict), "filter": (dict, type(None))}
_FIELDS |= {"sha256": str}


def write_cascade(
    path: str | os.PathLike,
    model: Cascade,
    *,
    licence: str,
    credit: str = "",
    scores: dict | None = None,
    card: dict | None = None,
    dtype: str = "float16",
) -> None:
    """Writes a cascade to one file.

    Args:
      path: the file.
      model: the cascade; views and members of both stages are written as they are chosen.
      licence: of the weights. A stage from a bundle keeps its own, with its credit, scores and card.
      credit: whom users are to credit.
      scores: of `bundle.read_scores`, of the cascade.
      card: of `card.read_card`, of the cascade.
      dtype: type of the networks' arrays, one of `bundle.DTYPES`.

    Raises:
      ConfigError, CheckpointError, InputError: as `bundle.write_bundle`.
    """
    path = local_path(path, "the bundle")
    facts: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "filter": None}
    arrays: dict[str, np.ndarray] = {}
    for stage, own in zip(STAGES, (model.liver, model.tumor), strict=True):
        given: dict[str, Any] = {"licence": licence, "credit": credit, "scores": None, "card": None}
        given |= {name: own.about[name] for name in given if name in own.about}
        if stage == STAGES[-1]:
            given |= {
                name: value for name, value in (("scores", scores), ("card", card)) if value is not None
            }
        of_stage, facts[stage] = bundle.contents(path, own, dtype=dtype, **given)
        arrays |= {f"{stage}/{name}": array for name, array in of_stage.items()}
    if model.lesion_filter is not None:
        of_filter, facts["filter"] = filter_file.contents(model.lesion_filter)
        arrays |= {f"filter/{name}": array for name, array in of_filter.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(sealed.serialised(arrays, facts))


def is_cascade(path: str | os.PathLike) -> bool:
    """Returns whether a file states that it is a cascade; what is no sealed file at all is for `bundle` to refuse.

    Raises:
      CheckpointError: it is damaged.
    """
    with sealed.opened(path, "model bundle") as file:
        return (file.metadata() or {}).get("format") == json.dumps(_FORMAT)


def read_cascade(path: str | os.PathLike, template: Callable[[Config], dict]) -> Cascade:
    """Reads a cascade.

    Args:
      path: the file.
      template: as of `bundle.read_bundle`.

    Raises:
      CheckpointError: it is none, is damaged, or holds something that this version does not understand.
    """
    with sealed.opened(path, "model bundle") as file:
        metadata = file.metadata() or {}
        facts = _facts(metadata, path)
        stages = [*STAGES, *(["filter"] if facts["filter"] is not None else [])]
        odd = [name for name in [*file.keys()] if name.partition("/")[0] not in stages]
        if odd:
            raise CheckpointError(
                f"{path}: array {reprlib.repr(odd[0])} is unknown, expected those of its stages"
            )
        read = {
            stage: bundle.read_arrays(_Part(file, stage), facts[stage], template, path) for stage in STAGES
        }
        arrays = {
            f"{stage}/{name}": array for stage, own in read.items() for name, array in own.arrays.items()
        }
        lesion_filter = None
        if facts["filter"] is not None:
            of_filter = filter_file.read_arrays(_Part(file, "filter"), path)
            arrays |= {f"filter/{name}": array for name, array in of_filter.items()}
            lesion_filter = filter_file.assembled(facts["filter"], of_filter, path)
    if sealed.digest(metadata, arrays) != facts["sha256"]:
        raise CheckpointError(f"{path}: not as it was written (checksum)")
    liver, tumor = (
        Segmenter(facts[stage]["config"], read[stage].networks(), None, read[stage].calibration, facts[stage])
        for stage in STAGES
    )
    try:
        return Cascade(liver, tumor, lesion_filter)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def describe(path: str | os.PathLike) -> str:
    """Returns lines on a bundle of one model or of a cascade: what it finds in what, size, cases, scores, licence.

    Raises:
      CheckpointError: it is no bundle, or of a newer version.
    """
    if not is_cascade(path):
        return bundle.describe(path)
    with sealed.opened(path, "model bundle") as file:
        facts = _facts(file.metadata() or {}, path)
    lines = [line for stage in STAGES for line in bundle.described(facts[stage], path)]
    kept: LesionFilter | None = facts["filter"] and facts["filter"]["lesion_probability"]
    lines.append(
        f"lesion filter: keeps candidates of {kept:g} or more" if kept is not None else "no lesion filter"
    )
    return "\n".join(lines)


def _facts(metadata: Mapping[str, str], path: str | os.PathLike) -> dict[str, Any]:
    facts = {
        name: parse_json(
            text, f"{path}: no model bundle: {reprlib.repr(name)} in its metadata", error=CheckpointError
        )
        for name, text in metadata.items()
    }
    version = facts.get("version")
    if facts.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is {reprlib.repr(facts.get('format'))}, expected {_FORMAT!r}")
    if isinstance(version, int) and version > _VERSION:
        raise CheckpointError(
            f"{path}: written by a newer liverjax (format {version}, this one reads up to {_VERSION}); update liverjax"
        )
    for name in sorted(set(facts) ^ set(_FIELDS)):
        raise CheckpointError(f"{path}: field {reprlib.repr(name)} of its metadata is missing or unknown")
    sound = all(isinstance(facts[name], kinds) for name, kinds in _FIELDS.items())
    if not sound or version != _VERSION or isinstance(version, bool):
        raise CheckpointError(f"{path}: no model bundle (a field of its metadata has another type or value)")
    for stage in STAGES:
        facts[stage] = bundle.checked(_texts(facts[stage]), f"{path} ({stage})")
    if facts["filter"] is not None:
        facts["filter"] = filter_file.checked(_texts(facts["filter"]), f"{path} (lesion filter)")
    return facts


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the facts of a stage as the metadata of a file of its own have them; the checksum is the whole file's."""
    return {**{name: json.dumps(value) for name, value in facts.items()}, "sha256": '""'}


class _Part:
    """The arrays of an opened file whose names begin with a prefix, under their names without it."""

    def __init__(self, file: Any, prefix: str):
        self._file, self._prefix = file, f"{prefix}/"

    def keys(self) -> list[str]:
        return [name[len(self._prefix) :] for name in [*self._file.keys()] if name.startswith(self._prefix)]

    def get_slice(self, name: str) -> Any:
        return self._file.get_slice(self._prefix + name)

    def get_tensor(self, name: str) -> np.ndarray:
        return self._file.get_tensor(self._prefix + name)
