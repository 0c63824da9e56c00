"""A model for other programs: each view's slice network as a file, and what has to be done around it as JSON."""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import export

from liverjax.config import to_dict
from liverjax.errors import ConfigError
from liverjax.files import local_path, replacing, sha256, write_json
from liverjax.inference.calibration import to_json
from liverjax.inference.cascade import STAGES, Cascade
from liverjax.inference.segmenter import Segmenter
from liverjax.models import UNet
from liverjax.pretrained.onnx import onnx_graph, package

FORMATS = ("stablehlo", "onnx")
_FORMAT = "liverjax export"
#: What else is known of a model and names neither cases nor folders.
_ABOUT = ("data", "versions", "scores", "licence", "credit")
_PLATFORMS = ("cpu", "cuda", "tpu")

_STEPS = {
    "before": [
        "permute and flip the scan's axes to the order and direction closest to right, anterior, superior",
        "resample to preprocess.spacing (mm): along each axis linear interpolation at voxel centres, with growing "
        "voxels averaged over the new voxel's width; the field of view stays centred; intensities are at least -1024",
        "scale linearly to [-1, 1] and clip: CT from preprocess.window (HU), MR from preprocess.percentiles of the "
        "voxels above darkest + (mean - darkest) / 4; of MR then 2 ((x + 1) / 2) ^ preprocess.gamma - 1",
        "of each view take the slices: axial (z; rows y, columns x), coronal (y; rows z, columns x), sagittal (x; rows "
        "z, columns y)",
        "pad rows and columns at their ends with -1 to multiples of `multiple`",
    ],
    "after": [
        "cut off the padding and put the probabilities into the volume; the networks already divide their logits by "
        "calibration.temperature",
        "if predict.flips is true, also fuse the probabilities of the slices mirrored along rows, columns and both",
        "fuse the probabilities of all networks by predict.fusion: mean; weighted by calibration.weights of view and "
        "class, divided by the sum over the classes; majority of the networks' labels, ties to the largest mean",
        "resample the probabilities linearly to the scan's voxels; decide by predict.decision: nested (liver or tumour "
        "if together more probable than background, then tumour if more probable than liver) or argmax; undo "
        "permutation and flips",
        "clean up by the fields of predict: tumours that touch no liver, holes, largest component, small components",
    ],
}


def export_model(model: Segmenter | Cascade, folder: str | os.PathLike, format: str) -> list[pathlib.Path]:
    """Writes each network, from normalised slices to probabilities, and ``model.json`` with all around it.

    StableHLO files are read by `jax.export.deserialize`; they map (N, H, W, 1) to (N, H, W, C). ONNX graphs map
    (N, 1, H, W) to (N, C, H, W). N, H and W are free, H and W multiples of what ``model.json`` says.

    Args:
      model: the model; of a cascade each stage goes into a folder of its own, ``liver`` and ``tumor``. A lesion filter
        is not exported.
      folder: is made.
      format: one of `FORMATS`.

    Returns:
      The files.

    Raises:
      ConfigError: an unknown format, or a network that the format cannot hold.
      InputError: a package of the format is not installed, or the folder is an address.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    folder = local_path(folder, "the output")
    if isinstance(model, Cascade):
        liver, tumor = (export_model(getattr(model, stage), folder / stage, format) for stage in STAGES)
        return [*liver, *tumor]
    networks = {}
    for view, member, variables in model.folded.each():
        temperature = model.calibration.temperature.get(view, 1.0)
        name = view if model.folded.members == 1 else f"{view}_{member}"
        if format == "onnx":
            facts = {"view": view, "description": "see model.json for what to do before and after"}
            data = onnx_graph(model.network, variables, temperature, facts).SerializeToString()
        else:
            data = _stablehlo(model.network, variables, temperature)
        file = folder / f"{name}.{format}"
        with replacing(file) as temporary:
            temporary.write_bytes(data)
        networks[name] = {"view": view, "file": file.name, "bytes": len(data), "sha256": sha256(file)}
    about = {
        "format": _FORMAT,
        "version": 1,
        "multiple": _multiple(model.network),
        "networks": networks,
        "steps": _STEPS,
        "calibration": to_json(model.calibration),
        "config": {name: value for name, value in to_dict(model.config).items() if name != "store"},
        **{name: model.about[name] for name in _ABOUT if name in model.about},
    }
    write_json(folder / "model.json", about)
    return [*(folder / network["file"] for network in networks.values()), folder / "model.json"]


def _stablehlo(network: UNet, variables: dict, temperature: float) -> bytes:
    package("flatbuffers")  # in which jax.export writes

    def probabilities(slices: jax.Array) -> jax.Array:
        logits = typing.cast(jax.Array, network.apply(variables, slices))
        return jax.nn.softmax(logits / temperature)

    multiple = _multiple(network)
    shape = export.symbolic_shape(f"n, {multiple}*h, {multiple}*w, 1")
    slices = jax.ShapeDtypeStruct(shape, jnp.float32)
    with _without_locations():
        return bytes(export.export(jax.jit(probabilities), platforms=_PLATFORMS)(slices).serialize())


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Leaves out of programs the source files that each operation comes from: folders of this machine and its user."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _multiple(network: UNet) -> int:
    return 2 ** (len(network.features) - 1)
