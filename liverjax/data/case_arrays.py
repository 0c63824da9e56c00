"""From a scan and its mask to the arrays of a stored case, and what speaks against the two."""

from __future__ import annotations

import pathlib
import threading

import numpy as np

from liverjax import labels as label_ids
from liverjax.datasets.case import Case
from liverjax.errors import InputError
from liverjax.files import naming, sha256
from liverjax.options import Preprocess, Target
from liverjax.scans import intensity
from liverjax.scans.grid import box_grid, to_grid, working_grid
from liverjax.views import VIEWS, to_stack
from liverjax.volume import Volume

#: Names of a case's arrays.
ARRAYS = tuple(f"{view}{ending}.npy" for view in VIEWS for ending in ("", "_labels"))
#: Largest magnitude that a stored voxel uses; MR intensities are scaled into it.
_INT16_RANGE = 32_000
#: MR: the largest intensity that is kept, in units of the body's 99.5th percentile; what is brighter is stored as that.
_BRIGHTEST = 4.0
#: A mask with more liver than this, in ml or as a share of the scan, is doubted.
_LARGEST_LIVER_ML = 5000.0
_LARGEST_SHARE = 0.67


class _Stopped(Exception):
    """Another case failed, or the user interrupts."""


def write_arrays(
    case: Case,
    folder: pathlib.Path,
    place: pathlib.Path,
    options: Preprocess,
    target: Target,
    stopping: threading.Event,
) -> dict[str, object]:
    """Writes the slices of a case, and returns what opening them needs.

    Args:
      case: scan and mask.
      folder: where they are written.
      place: where the folder will be: what errors name.
      options: modality and spacing.
      target: the region.
      stopping: if it is set, nothing more is begun.

    Returns:
      Fields of a ``case.json``.

    Raises:
      InputError: scan or mask cannot be used.
      OSError: an array cannot be written.
    """

    def go_on() -> None:
        if stopping.is_set():
            raise _Stopped

    go_on()
    scan, mask = case.read_pair()
    go_on()
    told = intensity.for_scan(options, scan.voxels)
    doubts = _doubts(case, scan, mask, told.modality)
    if options.modality == "any" and case.modality not in ("", told.modality):
        doubts.append(
            f"{case.image}: is {case.modality.upper()} by its data set, but its values are as of "
            f"{told.modality.upper()} and scaled as such: verify its units"
        )
    options = told
    whole = working_grid(scan, options.spacing)
    grid = whole
    if target.region != "scan":
        if not mask.voxels.any():
            raise InputError(
                f"{case.label}: holds no liver, expected one to store the box around it; leave the "
                "case out, or store scans (target.region=scan)"
            )
        grid = box_grid(whole, mask, target.margin_mm)
    image = to_grid(scan, grid)
    scale, quantiles = 1.0, None
    if options.modality == "mr":
        # The window is one of the whole scan, also where only a box is stored.
        quantiles = intensity.body_quantiles((image if grid is whole else to_grid(scan, whole)).voxels)
        scale = _mr_scale(image.voxels, quantiles)
    go_on()
    stored = np.clip(np.rint(image.voxels / scale), -_INT16_RANGE, _INT16_RANGE).astype(np.int16)
    counts, shapes, checksums = {}, {}, {}
    mask_on_grid = to_grid(mask, grid, labels=True).voxels
    for view in VIEWS:
        labels = np.ascontiguousarray(to_stack(mask_on_grid, view))
        arrays = {f"{view}.npy": np.ascontiguousarray(to_stack(stored, view)), f"{view}_labels.npy": labels}
        for name, array in arrays.items():
            go_on()
            with naming(place / name, folder / name):
                _save(folder / name, array)
            checksums[name] = sha256(folder / name)
        tumor = (labels == label_ids.TUMOR).sum((1, 2))
        counts[view] = np.stack([(labels != label_ids.BACKGROUND).sum((1, 2)), tumor], axis=1).tolist()
        shapes[view] = labels.shape
    return {
        "scale": scale,
        "quantiles": None if quantiles is None else quantiles.tolist(),
        "affine": grid.affine.tolist(),
        "shapes": shapes,
        "counts": counts,
        "doubts": doubts,
        "sha256": checksums,
    }


def _doubts(case: Case, scan: Volume, mask: Volume, modality: str) -> list[str]:
    """Returns what speaks against a scan and its mask, each a few words with the file.

    Raises:
      InputError: the scan is constant, which nothing can be learnt from.
    """
    lowest = scan.voxels.min()
    if lowest == scan.voxels.max():
        raise InputError(
            f"{case.image}: every voxel is {lowest:g}, expected a scan; copy it again from its source"
        )
    found = [f"{case.image}: {doubt}" for doubt in intensity.doubts(scan.voxels, modality)]
    liver = mask.voxels != label_ids.BACKGROUND
    volume, share = mask.millilitres(liver), float(liver.mean())
    if volume > _LARGEST_LIVER_ML or share > _LARGEST_SHARE:
        found.append(
            f"{case.label}: the liver has {volume:.0f} ml, {share:.0%} of the scan; a liver has 1000 to 2500 ml: "
            "verify the mask and its voxel size"
        )
    return found


def _save(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes a C-contiguous array as `numpy.save` does, which hides why a write has failed."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def _mr_scale(voxels: np.ndarray, quantiles: np.ndarray) -> float:
    """Returns the intensity of a stored 1, such that a bright artefact takes no precision from the body."""
    low, high = np.interp((0.5, 99.5), intensity.PERCENTILES, quantiles)
    largest = min(float(np.abs(voxels).max()), _BRIGHTEST * max(abs(float(low)), abs(float(high))))
    return largest / _INT16_RANGE if largest else 1.0
