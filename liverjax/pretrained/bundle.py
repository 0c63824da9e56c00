"""A model in one file to pass on: a `.safetensors` file of float16 arrays, with all else as JSON in its metadata.

Nothing in it can run, and it names neither cases nor folders: it counts the cases that trained, and does not even hash
their ids, for a hash confirms a guess, and in a hospital an id may be a patient's number. Reading trusts nothing: the
header is bounded, and names, types and shapes are those of the network that the config describes, before any array is
read; a SHA-256 covers arrays and metadata; all values are finite. What is not understood is refused: another format, a
newer version, an unknown field.
"""

from __future__ import annotations

import os
import pathlib
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from liverjax import sealed
from liverjax.config import resolve, to_dict
from liverjax.errors import CheckpointError, ConfigError, InputError
from liverjax.files import local_path, parse_json, read_json, replacing
from liverjax.inference.calibration import Calibration, from_json, to_json
from liverjax.inference.network import Networks
from liverjax.inference.segmenter import Segmenter
from liverjax.options import Config
from liverjax.pretrained import card as cards

#: Types that arrays can be stored in, with their names in the file.
DTYPES = {"float16": "F16", "float32": "F32"}

_FORMAT = "liverjax model"
_VERSION = 2
#: The fields of the metadata, each one JSON text, and their types.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "config": dict,
    "labels": list,
    "members": int,
    "calibration": dict,
    "dtype": str,
    "data": str,
    "cases": dict,
    "versions": dict,
    "scores": (dict, type(None)),
    "licence": str,
    "credit": str,
    "card": (dict, type(None)),
    "sha256": str,
}
#: Fields that the files of version 1 lack.
_SINCE_2 = {"card": None}
#: The blocks of a summary.json that name no case and no file.
_SCORES = ("scores", "lits", "liverjax_version")


def write_bundle(
    path: str | os.PathLike,
    model: Segmenter,
    *,
    licence: str,
    credit: str = "",
    scores: dict | None = None,
    card: dict | None = None,
    dtype: str = "float16",
) -> None:
    """Writes a model to one file.

    Args:
      path: the file.
      model: the model; its views and members are written as they are chosen.
      licence: of the weights, such as CC-BY-SA-4.0.
      credit: whom users are to credit.
      scores: of `read_scores`.
      card: of `card.read_card`.
      dtype: type of the arrays, one of `DTYPES`.

    Raises:
      ConfigError: an unknown type, or one that cannot hold a value of the model.
      CheckpointError: a value of the model is not finite, or the card is none.
      InputError: the path is an address, such as ``gs://bucket/model``.
    """
    path = local_path(path, "the bundle")
    if card is not None:
        cards.check_card(card, path)
    arrays, facts = contents(
        path, model, licence=licence, credit=credit, scores=scores, card=card, dtype=dtype
    )
    with replacing(path) as temporary:
        temporary.write_bytes(sealed.serialised(arrays, facts))


def contents(
    path: str | os.PathLike,
    model: Segmenter,
    *,
    licence: str,
    credit: str,
    scores: dict | None,
    card: dict | None,
    dtype: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays and the facts that a file of a model holds; see `write_bundle`, also for what it raises."""
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if model.networks.runs > 1:
        raise ConfigError(
            f"{path}: is to hold the networks of {model.networks.runs} runs, expected those of one; bundle each by "
            "itself: --model=ONE.safetensors,OTHER.safetensors predicts with both"
        )
    config = to_dict(model.config)
    del config["store"]  # a folder of the machine that trained
    del config["split"]["test_cases"]  # ids of cases
    for group in ("loss", "augment"):  # Which function trained; not in whose folder. Prediction runs none.
        config[group]["own"] = pathlib.PurePath(config[group]["own"]).name
    facts = {
        "format": _FORMAT,
        "version": _VERSION,
        "dtype": dtype,
        "config": config,
        "labels": model.config.labels,
        "members": model.networks.members,
        "calibration": to_json(model.calibration),
        "data": str(model.about.get("data", "")),
        "cases": model.about.get("cases") or {subset: len(ids) for subset, ids in model.subsets.items()},
        "versions": model.about.get("versions", {}),
        "scores": scores,
        "licence": licence,
        "credit": credit,
        "card": card,
    }
    arrays = {
        f"{view}/{name}": _stored(np.asarray(array), dtype, f"{path}: {view}/{name}")
        for view in model.networks.views
        for name, array in _named(model.networks.variables[view]).items()
    }
    return arrays, facts


class Read(NamedTuple):
    """What is read of a model in a file, checked but for the checksum.

    Attributes:
      arrays: as they are stored, by name.
      calibration: of the networks.
      facts: of the metadata.
      tree: shapes and types of a view's variables, members stacked.
    """

    arrays: dict[str, np.ndarray]
    calibration: Calibration
    facts: Mapping[str, Any]
    tree: Any

    def networks(self) -> Networks:
        """Returns the networks as float32 NumPy arrays."""
        variables = {
            view: jax.tree_util.tree_map_with_path(
                lambda keys, like, view=view: self.arrays[f"{view}/{_name(keys)}"].astype(like.dtype),
                self.tree,
            )
            for view in self.facts["config"].views
        }
        return Networks(variables, self.facts["members"])


def read_arrays(
    file: Any, facts: Mapping[str, Any], template: Callable[[Config], dict], path: str | os.PathLike
) -> Read:
    """Reads the arrays of an opened file, all of which must be a model's; `read_bundle` says what is raised."""
    calibration, tree = _described(facts, len(file.keys()), template, path)
    views = facts["config"].views
    shapes = {f"{view}/{name}": like.shape for view in views for name, like in _named(tree).items()}
    return Read(_arrays(file, shapes, DTYPES[facts["dtype"]], path), calibration, facts, tree)


def read_bundle(
    path: str | os.PathLike, template: Callable[[Config], dict]
) -> tuple[Config, Networks, Calibration, dict[str, Any]]:
    """Reads a model.

    Args:
      path: the file.
      template: function of the config that returns the tree of shapes and types of a network's variables.

    Returns:
      Config, networks as float32 NumPy arrays, calibration, and the other facts of the metadata.

    Raises:
      CheckpointError: it is no bundle, is damaged, or holds something that this version does not understand.
    """
    with sealed.opened(path, "model bundle") as file:
        metadata = file.metadata() or {}
        facts = checked(metadata, path)
        read = read_arrays(file, facts, template, path)
    if sealed.digest(metadata, read.arrays) != facts["sha256"]:
        raise CheckpointError(f"{path}: not as it was written (checksum)")
    return facts["config"], read.networks(), read.calibration, facts


def _described(
    facts: Mapping[str, Any], arrays: int, template: Callable[[Config], dict], path: str | os.PathLike
) -> tuple[Calibration, Any]:
    """Returns the calibration, and the shapes and types of a view's variables, as the metadata describe them."""
    config = facts["config"]
    calibration = from_json(facts["calibration"], config, path)
    if tuple(facts["labels"]) != config.labels:
        raise CheckpointError(f"{path}: labels {facts['labels']}, expected {config.labels} as in its config")
    members = facts["members"]
    if not 1 <= members <= config.train.restarts:
        raise CheckpointError(
            f"{path}: holds {members} networks of each view, expected 1 to {config.train.restarts} (train.restarts)"
        )
    if len(config.model.features) > arrays:  # Each level has some: do not even build such a network.
        raise CheckpointError(f"{path}: holds {arrays} arrays, too few for the network of its config")
    try:
        tree = template(config)
    except Exception as error:  # whatever a network raises that nobody can have trained
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its config describes no network ({reason})") from None
    stacked = jax.tree.map(lambda like: jax.ShapeDtypeStruct((members, *like.shape), like.dtype), tree)
    return calibration, stacked


def _arrays(
    file: Any, shapes: Mapping[str, tuple[int, ...]], dtype: str, path: str | os.PathLike
) -> dict[str, np.ndarray]:
    """Returns all arrays of an opened file, which must be just these; none is read before all are checked."""
    odd = sorted(set(shapes) ^ set(file.keys()))
    if odd:
        raise CheckpointError(f"{path}: array {odd[0]!r} is missing or unknown, expected those of its config")
    for name, shape in shapes.items():
        found = file.get_slice(name)
        kind, size = found.get_dtype(), tuple(found.get_shape())
        if (kind, size) != (dtype, shape):
            raise CheckpointError(
                f"{path}: {name} is {kind} of shape {size}, expected {dtype} of shape {shape}"
            )
    arrays = {name: file.get_tensor(name) for name in shapes}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds a value that is not finite")
        if name.endswith("/var") and (array < 0).any():  # Its root would make every mask empty.
            raise CheckpointError(f"{path}: {name} holds a variance below 0")
    return arrays


def read_facts(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what a bundle says of itself: the fields of its metadata; "config" as a `Config`.

    The arrays are not read, and so the checksum is not verified.

    Raises:
      CheckpointError: it is no bundle, or of a newer version.
    """
    with sealed.opened(path, "model bundle") as file:
        return checked(file.metadata() or {}, path)


def describe(path: str | os.PathLike) -> str:
    """Returns lines on a bundle: what it finds in what, size, cases, scores, licence. Raises as `read_facts`."""
    return "\n".join(described(read_facts(path), path))


def described(facts: Mapping[str, Any], path: str | os.PathLike) -> list[str]:
    """Returns the lines of `describe` from the facts of a model."""
    config: Config = facts["config"]
    spacing = " x ".join(f"{value:g}" for value in config.preprocess.spacing)
    members = f", {facts['members']} networks each" if facts["members"] > 1 else ""
    cases = ", ".join(f"{count} {subset}" for subset, count in facts["cases"].items())
    lines = [
        f"{path}: {cards.task(config)} in {cards.modality(config)} at {spacing} mm; "
        f"{len(config.views)} views{members}; {os.path.getsize(path) / 1e6:.1f} MB in {facts['dtype']}",
        f"cases: {cases}; data {facts['data'][:12]}; liverjax {facts['versions'].get('liverjax', 'unknown')}",
    ]
    for region, scores in ((facts["scores"] or {}).get("scores") or {}).items():
        if scores.get("dice_per_case") is not None:
            lines.append(f"{region}: Dice per case {scores['dice_per_case']:.3f} of {scores['cases']} cases")
    if facts["card"]:
        lines += [f"held out, Dice: {line}" for line in cards.held_out(facts["card"])]
    credit = f"; credit {facts['credit']}" if facts["credit"] else ""
    return [*lines, f"licence {facts['licence']}{credit}"]


def read_scores(path: str | os.PathLike) -> dict:
    """Returns what can be passed on of a `summary.json` of `liverjax evaluate`: nothing that names a case or a file.

    Raises:
      InputError: it is none.
    """
    remedy = "evaluate again, or bundle without scores"
    try:
        summary = read_json(path, remedy=remedy)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, expected a summary.json of `liverjax evaluate`") from None
    scores = {name: summary[name] for name in _SCORES if name in summary}
    if "scores" not in scores or not _are_scores(scores):
        raise InputError(f"{path}: not a summary.json of `liverjax evaluate`; {remedy}")
    return scores


def _are_scores(scores: Mapping[str, Any]) -> bool:
    """Whether these are the blocks of a summary.json, as far as `describe` reads them."""
    regions = scores.get("scores", {})
    return isinstance(regions, dict) and all(
        isinstance(region, dict)
        and type(region.get("cases")) is int
        and (region.get("dice_per_case") is None or type(region["dice_per_case"]) in (int, float))
        for region in regions.values()
    )


def checked(metadata: Mapping[str, str], path: str | os.PathLike) -> dict[str, Any]:
    """Returns the fields of a model's metadata, "config" as a `Config`; raises as `read_facts`."""
    facts = {
        name: parse_json(
            text, f"{path}: no model bundle: {reprlib.repr(name)} in its metadata", error=CheckpointError
        )
        for name, text in metadata.items()
    }
    if "format" not in facts or "version" not in facts:
        raise CheckpointError(f"{path}: no model bundle (its metadata states no format and version)")
    kind, version = facts["format"], facts["version"]
    facts = {**_SINCE_2, **facts} if version == 1 else facts
    if kind != _FORMAT:
        raise CheckpointError(f"{path}: is {reprlib.repr(kind)}, expected {_FORMAT!r}")
    if isinstance(version, int) and version > _VERSION:
        raise CheckpointError(
            f"{path}: written by a newer liverjax (format {version}, this one reads up to {_VERSION}); update liverjax"
        )
    for name in sorted(set(facts) ^ set(_FIELDS)):
        raise CheckpointError(f"{path}: field {reprlib.repr(name)} of its metadata is missing or unknown")
    sound = all(
        isinstance(value, _FIELDS[name]) and not isinstance(value, bool) for name, value in facts.items()
    )
    counted = (
        sound
        and all(type(count) is int and count >= 0 for count in facts["cases"].values())
        and all(isinstance(number, str) for number in facts["versions"].values())
        and _are_scores(facts["scores"] or {})
    )
    if not counted or not 1 <= version <= _VERSION or facts["dtype"] not in DTYPES:
        raise CheckpointError(f"{path}: no model bundle (a field of its metadata has another type or value)")
    if facts["card"] is not None:
        cards.check_card(facts["card"], path)
    try:
        config = resolve(facts["config"])
    except (
        ConfigError,
        OverflowError,
    ) as error:  # The latter of a whole number that is too large for a float.
        raise CheckpointError(f"{path}: written by another version ({error})") from None
    return {**facts, "config": config}


def _stored(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise CheckpointError(f"{name} holds a value that is not finite, and cannot be passed on")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored).all():
        raise ConfigError(f"{name} holds {np.abs(array).max():.3g}, too large for {dtype}; choose float32")
    return stored


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of nested dicts by their path, such as ``params/stem/conv/kernel``."""
    return {_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(keys: tuple) -> str:
    return "/".join(key.key for key in keys)
