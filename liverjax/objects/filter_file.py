"""A lesion filter in one file: safetensors, with all but the arrays as JSON in its metadata. Nothing in it can run.

Reading trusts nothing: the header is bounded, types and shapes are those of a forest before any array is read, a
SHA-256 covers arrays and metadata, and the nodes are trees. A filter of other features, or of another version of them,
is refused: its columns would mean something else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from liverjax.errors import CheckpointError, ConfigError, shown
from liverjax.files import local_path, parse_json, replacing
from liverjax.objects import features, forest
from liverjax.objects.candidates import CandidateOptions
from liverjax.objects.filter import LesionFilter

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
_MAX_HEADER_BYTES = 16 * 2**20
_AGAIN = "train it again (`liverjax train-filter`)"


def write_filter(path: str | os.PathLike, lesion_filter: LesionFilter) -> None:
    """Writes a filter atomically; equal filters give equal files.

    Raises:
      InputError: the path is an address, such as ``gs://bucket/filter``.
    """
    path = local_path(path, "the lesion filter")
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
    arrays = {name: np.ascontiguousarray(getattr(grown, name)) for name in forest.ARRAYS}
    metadata = {name: json.dumps(value, allow_nan=False) for name, value in facts.items()}
    metadata["sha256"] = json.dumps(_digest(metadata, arrays))
    data = safetensors.numpy.save(arrays, metadata)
    # The library orders metadata differently in each process.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as temporary:
        temporary.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def read_filter(path: str | os.PathLike) -> LesionFilter:
    """Reads a filter.

    Raises:
      CheckpointError: there is none, it is damaged, or it is for other features than this version measures.
      InputError: the path is an address.
    """
    path = local_path(path, "the lesion filter")
    with _opened(path) as file:
        metadata = file.metadata() or {}
        facts = _facts(metadata, path)
        odd = sorted(set(forest.ARRAYS) ^ set(file.keys()))
        if odd:
            raise CheckpointError(
                f"{path}: array {odd[0]!r} is missing or unknown, expected those of a forest; {_AGAIN}"
            )
        for name, kind in forest.ARRAYS.items():
            found = file.get_slice(name).get_dtype()
            if found != _STORED[kind]:
                raise CheckpointError(f"{path}: {name} is {found}, expected {_STORED[kind]}; {_AGAIN}")
        arrays = {name: file.get_tensor(name) for name in forest.ARRAYS}
    if _digest(metadata, arrays) != facts["sha256"]:
        raise CheckpointError(f"{path}: not as it was written (checksum); copy it again, or {_AGAIN}")
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


@contextlib.contextmanager
def _opened(path: os.PathLike) -> Iterator[Any]:
    try:
        if not os.path.isfile(path):  # To open a named pipe is to wait for its writer.
            raise CheckpointError(f"{path}: no file, expected a lesion filter of `liverjax train-filter`")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: no lesion filter (a header of {length} bytes, at most {_MAX_HEADER_BYTES})"
            )
        with safe_open(os.fspath(path), framework="np") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or no lesion filter ({error}); {_AGAIN}") from None


def _facts(metadata: Mapping[str, str], path: os.PathLike) -> dict[str, Any]:
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


def _digest(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps({**metadata, "sha256": ""}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
