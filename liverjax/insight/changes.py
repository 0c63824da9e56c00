"""Dice of a model against what can go wrong with a scan: contrast, noise, blur, shift, missing slices, mirroring.

The changes are made to what the networks see, the scan in its window on the working grid; so a strength means the same
for a CT and an MR scan, and for two models with the same working grid.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import numpy as np
from scipy import ndimage

from liverjax.inference.fuse import orthomean
from liverjax.inference.postprocess import clean
from liverjax.inference.segmenter import Segmenter
from liverjax.labels import BACKGROUND, decide
from liverjax.scans.grid import to_grid
from liverjax.scans.nifti import require_same_geometry
from liverjax.scoring import overlap
from liverjax.volume import Volume


def _contrast(voxels: np.ndarray, factor: float, spacing: np.ndarray) -> np.ndarray:
    return np.clip(voxels * factor, -1, 1)


def _noise(voxels: np.ndarray, percent: float, spacing: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(voxels.shape, np.float32)
    return np.clip(voxels + np.float32(2 * percent / 100) * noise, -1, 1)


def _blur(voxels: np.ndarray, millimetres: float, spacing: np.ndarray) -> np.ndarray:
    sigma = millimetres / math.sqrt(8 * math.log(2)) / spacing
    return ndimage.gaussian_filter(voxels, sigma, mode="nearest")


def _shift(voxels: np.ndarray, millimetres: float, spacing: np.ndarray) -> np.ndarray:
    # What comes in from outside is air, and in a mask it is background.
    return _moved(voxels, round(millimetres / spacing[0]), -1 if voxels.dtype.kind == "f" else 0)


def _missing(voxels: np.ndarray, factor: float, spacing: np.ndarray) -> np.ndarray:
    kept = np.arange(voxels.shape[2]) // int(factor) * int(factor)
    return voxels[:, :, kept]


def _mirrored(voxels: np.ndarray, times: float, spacing: np.ndarray) -> np.ndarray:
    return voxels[::-1] if times else voxels


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a scan.

    Attributes:
      name: what it is called.
      unit: of its strengths, in words.
      strengths: those that are tried; the first changes nothing.
      apply: makes of voxels (X, Y, Z) in [-1, 1] others, by a strength and the voxel size in mm.
      moves: the reference is changed likewise, since the liver moves.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.ndarray], np.ndarray]
    moves: bool = False


CHANGES = (
    Change("contrast", "times the contrast in the window", (1.0, 0.75, 0.5, 0.25), _contrast),
    Change("noise", "standard deviation, % of the window", (0.0, 5.0, 10.0, 20.0), _noise),
    Change("blur", "full width at half maximum, mm", (0.0, 5.0, 10.0, 20.0), _blur),
    Change("shift", "mm to the patient's right", (0.0, 15.0, 30.0, 60.0), _shift, moves=True),
    Change("missing slices", "axial slices of which one is left", (1.0, 2.0, 4.0, 8.0), _missing),
    Change("mirrored", "1: left for right", (0.0, 1.0), _mirrored, moves=True),
)


def robustness(
    model: Segmenter, cases: Iterable[tuple[str, Volume, Volume]], changes: Iterable[Change] = CHANGES
) -> list[dict]:
    """Returns the Dice of the liver, tumours included, on changed scans.

    Prediction and reference are compared on the working grid, the prediction after clean-up. Where a change moves the
    patient, the reference moves along.

    Args:
      model: of one stage.
      cases: id, scan and reference of each, voxel on voxel.
      changes: what is done to the scans.

    Returns:
      A row for each case, change and strength: `case`, `change`, `unit`, `strength`, `dice`.

    Raises:
      InputError: a scan cannot be used, or its reference does not lie on it.
    """
    rows = []
    changes = tuple(changes)
    for id, scan, reference in cases:
        voxels, grid = model.network_input(scan)
        require_same_geometry(scan, reference)
        spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
        liver = to_grid(reference, grid, labels=True).voxels != BACKGROUND
        unchanged = _dice(model, voxels, liver, spacing)
        for change in changes:
            for place, strength in enumerate(change.strengths):
                dice = unchanged
                if place:
                    true = change.apply(liver, strength, spacing) if change.moves else liver
                    dice = _dice(model, change.apply(voxels, strength, spacing), true, spacing)
                rows.append(
                    {
                        "case": id,
                        "change": change.name,
                        "unit": change.unit,
                        "strength": strength,
                        "dice": dice,
                    }
                )
    return rows


def _moved(voxels: np.ndarray, steps: int, filling: float) -> np.ndarray:
    """Returns voxels moved along x by some steps, as far as they stay within the field of view."""
    moved = np.full_like(voxels, filling)
    steps = min(steps, len(voxels))
    moved[steps:] = voxels[: len(voxels) - steps]
    return moved


def _dice(model: Segmenter, voxels: np.ndarray, liver: np.ndarray, spacing: np.ndarray) -> float:
    voxels = np.ascontiguousarray(voxels, np.float32)
    fused = orthomean(model.folded, voxels, model.plan(), calibration=model.calibration)
    options = model.config.predict
    found = decide(list(np.moveaxis(fused.probabilities, -1, 0)), options.decision)
    found = clean(found, spacing.tolist(), options)
    return overlap.count(found != BACKGROUND, liver).dice
