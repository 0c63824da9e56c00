"""Synthetic abdomens in CT and MR: scans with exact masks, from which a model can be trained from nothing.

A seed is a patient (module `anatomy`), and `painting` scans it. The geometry depends on the seed alone, so
one patient can be scanned with any spacing, orientation and modality; only the noise depends on the grid too.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import nibabel as nib
import numpy as np

from liverjax import files, labels
from liverjax.datasets.phantom.anatomy import Patient, Tumor
from liverjax.datasets.phantom.implicit import rotation_matrix
from liverjax.datasets.phantom.painting import scan_patient
from liverjax.errors import ConfigError, InputError, did_you_mean
from liverjax.scans import nifti
from liverjax.volume import Volume


@dataclasses.dataclass(frozen=True)
class Truth:
    """The exact volumes and tumours of a phantom, whether or not the grid holds all of it.

    Attributes:
      liver_ml: volume of the liver with its tumours; true to 0.1 %.
      tumor_ml: volume of all tumours; exact.
      tumors: each one's centre in world mm, diameter, volume and kind.
    """

    liver_ml: float
    tumor_ml: float
    tumors: tuple[Tumor, ...]


@dataclasses.dataclass(frozen=True)
class Phantom:
    """A scan (int16), its mask (uint8: 0 background, 1 liver, 2 tumour), the truth, and what was scanned."""

    image: Volume
    label: Volume
    truth: Truth
    scan: str


def make_phantom(
    seed: int,
    *,
    modality: str = "ct",
    shape: tuple[int, int, int] = (128, 128, 96),
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0),
    orientation: str = "RAS",
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Phantom:
    """Scans the patient `seed`.

    Args:
      seed: the patient, and with the grid the noise.
      modality: `"ct"` (HU; one of four contrast phases) or `"mr"` (arbitrary units; one of three
        sequences, with a smooth bias field and a scale of the patient's own).
      shape: voxels along the array's axes. The grid's centre is the middle of the abdomen.
      spacing: mm between voxel centres along the array's axes.
      orientation: where the array's axes lead, for instance `"RAS"` or `"LPS"`.
      rotation: degrees about the three world axes by which the grid is oblique.

    Raises:
      ConfigError: an unknown modality or an orientation that is no permutation of the three axes.
    """
    if modality not in ("ct", "mr"):
        raise ConfigError(f"modality is {modality!r}{did_you_mean(modality, ('ct', 'mr'))}")
    affine = _grid(shape, spacing, orientation, rotation)
    patient = Patient(seed)
    voxels, mask, scan = scan_patient(patient, modality, affine, shape)

    name = f"phantom {seed}"
    truth = Truth(patient.liver_volume, float(sum(t.volume for t in patient.tumors)), patient.tumors)
    image = Volume(voxels, affine, name=f"{name} image")
    return Phantom(image, Volume(mask, affine, name=f"{name} label"), truth, scan)


def write_dataset(folder: str | os.PathLike, seeds: Iterable[int], **scan_options: Any) -> dict[str, Truth]:
    """Writes phantoms as an nnU-Net raw data set: `imagesTr`, `labelsTr`, `dataset.json`.

    Args:
      folder: made where missing.
      seeds: one case each, named `phantom_<seed>` with three digits (`_0000` is nnU-Net's first channel).
      **scan_options: passed to `make_phantom`.

    Returns:
      Each case's truth by case id.

    Raises:
      ConfigError: as `make_phantom`.
      InputError: the folder cannot be written to.
    """
    folder = pathlib.Path(folder)
    try:
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: phantoms cannot be written there ({error.strerror})") from None
    truths = {}
    for seed in seeds:
        case = f"phantom_{seed:03d}"
        phantom = make_phantom(seed, **scan_options)
        nifti.write(folder / "imagesTr" / f"{case}_0000.nii.gz", phantom.image)
        nifti.write(folder / "labelsTr" / f"{case}.nii.gz", phantom.label)
        truths[case] = phantom.truth
    description = {
        "channel_names": {"0": scan_options.get("modality", "ct").upper()},
        "labels": {name: value for value, name in enumerate(labels.NAMES)},
        "numTraining": len(truths),
        "file_ending": ".nii.gz",
    }
    files.write_json(folder / "dataset.json", description)
    return truths


def _grid(shape, spacing, orientation: str, rotation) -> np.ndarray:
    """Returns the affine of a grid whose centre is the origin of the world."""
    try:
        codes = nib.orientations.axcodes2ornt(orientation.upper())
    except (KeyError, ValueError):
        codes = np.full((3, 2), np.nan)
    if codes.shape != (3, 2) or sorted(codes[:, 0]) != [0, 1, 2]:
        raise ConfigError(f"orientation is {orientation!r}, expected one letter each of R/L, A/P, S/I")
    axes = np.zeros((3, 3))
    for axis, (world_axis, sign) in enumerate(codes):
        axes[int(world_axis), axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(*np.deg2rad(rotation)) @ axes * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine
