"""A lesion filter in one file: safetensors, with all but the arrays as JSON in its metadata. Nothing in it can run.

Reading trusts nothing: the header is bounded, types and shapes are those of a forest before any array is read, a
SHA-256 covers arrays and metadata, and the nodes are trees. A filter of other features, or of another version of them,
is refused: its columns would mean something else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from liverjax import sealed
from liverjax.errors import CheckpointError, ConfigError, shown
from liverjax.files import local_path, parse_json, replacing
from liverjax.objects import features, forest
from liverjax.objects.candidates import CandidateOptions
from liverjax.objects.filter import LesionFilter
from liverjax.remote import local_copy

_FORMAT, _VERSION = "liverjax lesion filter", 1
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "feature_version": int,
    "features": list,
    "views": list,
    "candidates": dict,
    "lesion_probability": (int, float),
    "facts": dict,
    "sha256": str,
}
# Names of the types of arrays in the file.
_STORED = {np.int32: "I32", np.float32: "F32", np.float64: "F64"}
_AGAIN = "train it again (`liverjax train-filter`)"


def write_filter(path: str | os.PathLike, lesion_filter: LesionFilter) -> None:
    """Writes a filter atomically; equal filters give equal files.

    Raises:
      InputError: the path is an address, such as ``gs://bucket/filter``.
    """
    path = local_path(path, "the lesion filter")
    arrays, facts = contents(lesion_filter)
    with replacing(path) as temporary:
        temporary.write_bytes(sealed.serialised(arrays, facts))


def contents(lesion_filter: LesionFilter) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays and the facts that a file of a filter holds."""
    grown = lesion_filter.forest
    facts = {
        "format": _FORMAT,
        "version": _VERSION,
        "feature_version": features.VERSION,
        "features": list(grown.names),
        "views": list(lesion_filter.views),
        "candidates": dataclasses.asdict(lesion_filter.candidates),
        "lesion_probability": lesion_filter.lesion_probability,
        "facts": dict(lesion_filter.facts),
    }
    return {name: np.ascontiguousarray(getattr(grown, name)) for name in forest.ARRAYS}, facts


def read_filter(path: str | os.PathLike) -> LesionFilter:
    """Reads a filter.

    Raises:
      CheckpointError: there is none, it is damaged, or it is for other features than this version measures.
      InputError: an address cannot be read.
    """
    path = local_copy(path, "the lesion filter")
    if not path.is_file():
        raise CheckpointError(f"{path}: no file, expected a lesion filter of `liverjax train-filter`")
    with sealed.opened(path, "lesion filter", f"; {_AGAIN}") as file:
        metadata = file.metadata() or {}
        facts = checked(metadata, path)
        arrays = read_arrays(file, path)
    if sealed.digest(metadata, arrays) != facts["sha256"]:
        raise CheckpointError(f"{path}: not as it was written (checksum); copy it again, or {_AGAIN}")
    return assembled(facts, arrays, path)


def read_arrays(file: Any, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of an opened file, all of which must be a forest's; types are checked before any is read."""
    odd = sorted(set(forest.ARRAYS) ^ set(file.keys()))
    if odd:
        raise CheckpointError(
            f"{path}: array {odd[0]!r} is missing or unknown, expected those of a forest; {_AGAIN}"
        )
    for name, kind in forest.ARRAYS.items():
        found = file.get_slice(name).get_dtype()
        if found != _STORED[kind]:
            raise CheckpointError(f"{path}: {name} is {found}, expected {_STORED[kind]}; {_AGAIN}")
    return {name: file.get_tensor(name) for name in forest.ARRAYS}


def assembled(
    facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: str | os.PathLike
) -> LesionFilter:
    """Returns the filter of facts that were `checked` and arrays; raises `CheckpointError` if they are no forest."""
    grown = forest.Forest(tuple(facts["features"]), **arrays)
    if wrong := forest.fault(grown):
        raise CheckpointError(f"{path}: holds no forest ({wrong}); {_AGAIN}")
    try:
        options = CandidateOptions(**facts["candidates"])
        return LesionFilter(
            grown, float(facts["lesion_probability"]), options, tuple(facts["views"]), facts["facts"]
        )
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: no lesion filter of this version ({error}); {_AGAIN}") from None


def checked(metadata: Mapping[str, str], path: str | os.PathLike) -> dict[str, Any]:
    """Returns the fields of a filter's metadata; raises `CheckpointError` if they are none of this version."""
    facts = {
        name: parse_json(text, f"{path}: {shown(name)} in its metadata", error=CheckpointError)
        for name, text in metadata.items()
    }
    kind, version = facts.get("format"), facts.get("version")
    if kind != _FORMAT:
        what = f"is {shown(kind)}" if kind else "its metadata states no format"
        raise CheckpointError(
            f"{path}: no lesion filter ({what}), expected {_FORMAT!r}; see `liverjax train-filter`"
        )
    if isinstance(version, int) and version > _VERSION:
        raise CheckpointError(
            f"{path}: written by a newer liverjax (format {version}, this one reads up to {_VERSION}); update liverjax"
        )
    for name in sorted(set(facts) ^ set(_FIELDS)):
        raise CheckpointError(f"{path}: field {shown(name)} of its metadata is missing or unknown; {_AGAIN}")
    for name, value in facts.items():
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise CheckpointError(f"{path}: {name} is {shown(value)}, which none can be; {_AGAIN}")
    if not all(isinstance(name, str) for name in facts["features"] + facts["views"]):
        raise CheckpointError(f"{path}: features or views without names; {_AGAIN}")
    if facts["feature_version"] != features.VERSION:
        raise CheckpointError(
            f"{path}: trained on version {facts['feature_version']} of the features, this liverjax measures version "
            f"{features.VERSION}; {_AGAIN}"
        )
    expected = features.feature_names(bool(facts["views"]))
    if tuple(facts["features"]) != expected:
        pairs = zip([*facts["features"], "no more"], [*expected, "no more"], strict=False)
        found, wanted = next((pair for pair in pairs if pair[0] != pair[1]), ("others", "these"))
        raise CheckpointError(
            f"{path}: trained on other features ({shown(found)} where this liverjax measures {wanted}); {_AGAIN}"
        )
    return facts
