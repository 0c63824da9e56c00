"""From a scan and its mask to the arrays of a stored case, and what speaks against the two."""

from __future__ import annotations

import pathlib
import threading

import numpy as np

from liverjax import labels as label_ids
from liverjax.data.synthetic import add_tumors, generator
from liverjax.datasets.case import Case
from liverjax.errors import InputError
from liverjax.files import naming, sha256
from liverjax.objects import components
from liverjax.options import Preprocess, Target
from liverjax.scans import intensity, nifti
from liverjax.scans.grid import Grid, to_grid, working_grid
from liverjax.scans.liver_box import FARTHEST_MM, liver_distance, liver_grid
from liverjax.views import VIEWS, to_stack
from liverjax.volume import Volume

#: Names of a case's arrays; those of boxes are only in stores of a region.
ARRAYS = tuple(f"{view}{ending}.npy" for view in VIEWS for ending in ("", "_labels"))
BOX_ARRAYS = tuple(f"{view}{ending}.npy" for view in VIEWS for ending in ("_distance", "_lesions"))
#: Largest magnitude that a stored voxel uses; MR intensities are scaled into it.
_INT16_RANGE = 32_000
#: MR: the largest intensity that is kept, in units of the body's 99.5th percentile; what is brighter is stored as that.
_BRIGHTEST = 4.0
#: A mask with more liver than this, in ml or as a share of the scan, is doubted.
_LARGEST_LIVER_ML = 5000.0
_LARGEST_SHARE = 0.67
#: A tumour that lies farther from the rest of the liver than this, in mm, is doubted; and a predicted liver outside of
#: which more than this share of the tumours lies.
_FAR_MM = 10
_OUTSIDE_SHARE = 0.1


class _Stopped(Exception):
    """Another case failed, or the user interrupts."""


def array_names(region: str) -> tuple[str, ...]:
    """Returns the names of a case's arrays in a store of a region."""
    return ARRAYS if region == "scan" else ARRAYS + BOX_ARRAYS


def write_arrays(
    case: Case,
    folder: pathlib.Path,
    place: pathlib.Path,
    options: Preprocess,
    target: Target,
    stopping: threading.Event,
    predicted: pathlib.Path | None = None,
    copy: int = 0,
) -> dict[str, object]:
    """Writes the slices of a case, and returns what opening them needs.

    Args:
      case: scan and mask.
      folder: where they are written.
      place: where the folder will be: what errors name.
      options: modality and spacing.
      target: the region.
      stopping: if it is set, nothing more is begun.
      predicted: mask of the liver by a model, for the region "predicted".
      copy: number of a copy with synthetic tumours, from 1.

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
    liver = mask
    if target.region != "scan":
        if predicted is not None:
            liver = nifti.read_mask(predicted)
            nifti.require_same_geometry(scan, liver)
        if not liver.voxels.any():
            raise InputError(
                f"{predicted or case.label}: holds no liver, expected one to store the box around it; leave the "
                "case out, or store scans (target.region=scan)"
            )
        grid = liver_grid(scan, liver, options.spacing, target.margin_mm)
    image = to_grid(scan, grid)
    scale, quantiles = 1.0, None
    if options.modality == "mr":
        # The window is one of the whole scan, also where only a box is stored.
        quantiles = intensity.body_quantiles((image if grid is whole else to_grid(scan, whole)).voxels)
        scale = _mr_scale(image.voxels, quantiles)
    mask_on_grid = to_grid(mask, grid, labels=True).voxels
    if copy:
        go_on()
        voxels, mask_on_grid = add_tumors(
            image.voxels,
            mask_on_grid,
            np.linalg.norm(grid.affine[:3, :3], axis=0),
            generator(target.synthetic_seed, case.id, copy),
            modality=options.modality,
            diameters_mm=target.synthetic_mm,
        )
        image = image.with_voxels(voxels)
    go_on()
    stored = np.clip(np.rint(image.voxels / scale), -_INT16_RANGE, _INT16_RANGE).astype(np.int16)
    counts, shapes, checksums = {}, {}, {}
    volumes = {"": stored, "_labels": mask_on_grid}
    if target.region != "scan":
        distance = liver_distance(liver, grid)
        ids = components.label(mask_on_grid == label_ids.TUMOR)
        volumes |= {"_distance": distance, "_lesions": _sixteen_bits(ids, case)}
        sizes = np.bincount(ids.ravel(), minlength=1)[1:] * _voxel_mm3(grid)
        lesions = {"lesions_mm3": [round(size, 3) for size in sizes.tolist()]}
        if predicted is None:
            doubts += _far_tumors(case, mask, grid, ids, sizes)
        else:
            doubts += _outside(case, mask, predicted, float(sizes.sum()), (ids > 0) & (distance == 0), grid)
    else:
        lesions = {}
    for view in VIEWS:
        arrays = {
            f"{view}{ending}.npy": np.ascontiguousarray(to_stack(volume, view))
            for ending, volume in volumes.items()
        }
        labels = arrays[f"{view}_labels.npy"]
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
        **lesions,
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


def _voxel_mm3(grid: Grid) -> float:
    return float(np.linalg.norm(grid.affine[:3, :3], axis=0).prod())


def _sixteen_bits(ids: np.ndarray, case: Case) -> np.ndarray:
    if ids.max(initial=0) >= 2**16:
        raise InputError(
            f"{case.label}: {ids.max()} separate tumours, expected fewer than {2**16}: a mask of noise; repair it, or "
            "leave the case out"
        )
    return ids.astype(np.uint16)


def _far_tumors(case: Case, mask: Volume, grid: Grid, ids: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Returns the doubt that tumours of a reference mask lie far from the rest of its liver."""
    if not sizes.size:
        return []
    rest = liver_distance(mask.with_voxels((mask.voxels == label_ids.LIVER).astype(np.uint8)), grid)
    nearest = np.full(sizes.size + 1, FARTHEST_MM)
    np.minimum.at(nearest, ids[ids > 0], rest[ids > 0])
    far = np.flatnonzero(nearest[1:] > _FAR_MM)
    if not far.size:
        return []
    largest = far[sizes[far].argmax()]
    return [
        f"{case.label}: {far.size} of {sizes.size} tumours outside the liver, one of {sizes[largest] / 1000:.1f} ml at "
        f"{'least ' if nearest[1 + largest] == FARTHEST_MM else ''}{nearest[1 + largest]} mm from it: verify the mask"
    ]


def _outside(
    case: Case, mask: Volume, predicted: pathlib.Path, in_box: float, within: np.ndarray, grid: Grid
) -> list[str]:
    """Returns the doubt that tumours of the reference lie outside the predicted liver, where none are learnt."""
    # The mask's own voxels count what lies outside the box; those of the grid what lies inside.
    whole = max(mask.millilitres(mask.voxels == label_ids.TUMOR), in_box / 1000)
    outside = whole - float(within.sum()) * _voxel_mm3(grid) / 1000
    if not whole or outside <= _OUTSIDE_SHARE * whole:
        return []
    return [f"{case.label}: {outside:.1f} of {whole:.1f} ml of tumours lie outside the liver of {predicted}"]


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
