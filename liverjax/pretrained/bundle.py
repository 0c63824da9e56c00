"""One file that holds a model: a zip of arrays (`.npy`) and `bundle.json`, for passing on.

No part of it is code and nothing is unpacked to disk. Reading trusts no number of the file: sizes are bounded
before memory is taken, every entry is checked against its SHA-256, and its shape and type against the network that
the config describes. What is not understood is refused: another format, a field or entry that is not known.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable

import jax
import numpy as np

from liverjax.config import resolve, to_dict
from liverjax.errors import CheckpointError, ConfigError
from liverjax.files import replacing
from liverjax.inference.calibration import UNCALIBRATED, Calibration, from_json, to_json
from liverjax.inference.network import Networks
from liverjax.options import Config

#: Customary ending of a bundle's name.
SUFFIX = ".liverjax"
_FORMAT = "liverjax bundle"
_VERSION = 3
_FACTS = "bundle.json"
_MAX_FACTS_BYTES = 16 * 2**20
# Of an .npy file of these arrays; the header is padded to a multiple of 64 bytes.
_MAX_NPY_HEADER = 1024
# The same for every entry, so that equal models give equal files.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_bundle(
    path: str | os.PathLike,
    config: Config,
    networks: Networks,
    calibration: Calibration = UNCALIBRATED,
    **facts: object,
) -> None:
    """Writes a model to one file.

    Args:
      path: the file.
      config: of the run.
      networks: as trained, of all views.
      calibration: temperatures and fusion weights.
      facts: what else is to be known of it, as JSON takes it: licence, cases, versions, scores.
    """
    entries = {}
    for view in config.views:
        for name, array in _named(networks.variables[view]).items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array), allow_pickle=False)
            entries[f"{view}/{name}.npy"] = buffer.getvalue()
    checksums = {
        name: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for name, b in entries.items()
    }
    content = {"format": _FORMAT, "version": _VERSION, **facts, "members": networks.members}
    content |= {"config": to_dict(config), "calibration": to_json(calibration), "arrays": checksums}
    text = json.dumps(content, indent=1, allow_nan=False).encode()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in {_FACTS: text, **entries}.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), data)


def read_bundle(
    path: str | os.PathLike, template: Callable[[Config], dict]
) -> tuple[Config, Networks, Calibration, dict]:
    """Reads a model.

    Args:
      path: the file.
      template: function of the config that returns the tree of shapes and types of a network's variables.

    Returns:
      Config, networks as NumPy arrays, calibration, and the facts that it was written with; see `write_bundle`.

    Raises:
      CheckpointError: it is no bundle, is damaged, or holds something that this version does not understand.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path, template)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: damaged, or no model bundle ({error})") from None


def _read(
    archive: zipfile.ZipFile, path: pathlib.Path, template: Callable[[Config], dict]
) -> tuple[Config, Networks, Calibration, dict]:
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise CheckpointError(f"{path}: an entry occurs twice, expected each once")
    if _FACTS not in entries:
        raise CheckpointError(f"{path}: no model bundle (it holds no {_FACTS})")
    facts = _facts(_bytes(archive, entries.pop(_FACTS), _MAX_FACTS_BYTES, path), path)
    try:
        config = resolve(facts.pop("config"))
    except ConfigError as error:
        raise CheckpointError(f"{path}: written by another version ({error})") from None
    members = facts.pop("members")
    if not 1 <= members <= config.train.restarts:
        raise CheckpointError(
            f"{path}: holds {members} members, expected 1 to {config.train.restarts} (train.restarts)"
        )
    stacked = jax.tree.map(
        lambda like: jax.ShapeDtypeStruct((members, *like.shape), like.dtype), template(config)
    )
    expected = {f"{view}/{name}.npy": like for view in config.views for name, like in _named(stacked).items()}
    calibration = from_json(facts.pop("calibration"), config, path)
    checksums = facts.pop("arrays")
    odd = sorted(set(expected) ^ set(entries)) or sorted(set(expected) ^ set(checksums))
    if odd:
        raise CheckpointError(f"{path}: entry {odd[0]!r} is missing or unknown, expected those of its config")
    arrays = {}
    for name, like in expected.items():
        data = _bytes(archive, entries[name], like.size * like.dtype.itemsize + _MAX_NPY_HEADER, path)
        if checksums[name] != {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}:
            raise CheckpointError(f"{path}: {name} is not as it was written (checksum)")
        arrays[name] = _array(data, like, f"{path}: {name}")
    variables = {
        view: jax.tree_util.tree_map_with_path(
            lambda keys, _, view=view: arrays[f"{view}/{_name(keys)}.npy"], stacked
        )
        for view in config.views
    }
    return config, Networks(variables, members), calibration, facts


def _facts(data: bytes, path: pathlib.Path) -> dict:
    try:
        facts = json.loads(data)
        kind, version = facts.pop("format"), facts.pop("version")
        if kind != _FORMAT or version != _VERSION:
            raise CheckpointError(
                f"{path}: is {kind!r} of version {version!r}, expected {_FORMAT!r} of version {_VERSION}"
            )
        facts["calibration"]
        return {
            **facts,
            "members": int(facts["members"]),
            "config": dict(facts["config"]),
            "arrays": dict(facts["arrays"]),
            "cases": dict(facts["cases"]),
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: no model bundle ({_FACTS}: {error!r})") from None


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, path: pathlib.Path) -> bytes:
    """Reads an entry of at most `limit` bytes; reading to its end also checks the zip's CRC."""
    if info.file_size > limit:
        raise CheckpointError(f"{path}: {info.filename} has {info.file_size} bytes, expected at most {limit}")
    with archive.open(info) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CheckpointError(f"{path}: {info.filename} has more bytes than it declares")
    return data


def _array(data: bytes, like, name: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CheckpointError(f"{name}: no array ({error})") from None
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (like.shape, like.dtype):
        raise CheckpointError(f"{name}: is no {like.dtype} array of shape {like.shape}")
    return array


def _named(tree) -> dict:
    """Returns the leaves of nested dicts by their path, such as ``params/stem/conv/kernel``."""
    return {_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(keys: tuple) -> str:
    return "/".join(key.key for key in keys)
