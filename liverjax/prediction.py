"""What a model says of a scan: labels, probabilities, uncertainty; and the protocol of what says it. No jax."""

from __future__ import annotations

import dataclasses
import os
from typing import Protocol, runtime_checkable

import nibabel as nib
import numpy as np

from liverjax import labels as label_ids
from liverjax.scans.grid import Grid, probabilities_on_scan, to_canonical
from liverjax.volume import Volume

#: Area of doubt below which a slice is no reason to look, in mm2.
_NEGLIGIBLE_AREA = 100.0


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Maps over the working grid, as shares of the greatest possible entropy: 0 is sure, 1 is at a loss.

    Attributes:
      entropy: (X, Y, Z) float32, of the mean over the members.
      mutual_information: (X, Y, Z) float32, what of the entropy is disagreement between the members (the views,
        or the views under each draw of dropout), and not doubt that each of them has by itself (Gal 2017).
    """

    entropy: np.ndarray
    mutual_information: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one scan.

    Attributes:
      labels: uint8 mask (0 background, 1 liver, 2 tumour), voxel on voxel with the scan.
      scan: the scan as it was read.
      grid_probabilities: (X, Y, Z, C) float32, fused softmax of the views on the working grid ``grid``.
      grid: the working grid.
      uncertainty: maps on the working grid, if they were asked for.
      seconds: wall time of the parts "read", "resample", "network", "back".
    """

    labels: Volume
    scan: Volume
    grid_probabilities: np.ndarray
    grid: Grid
    uncertainty: Uncertainty | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def probabilities(self) -> np.ndarray:
        """Returns the class probabilities (x, y, z, C) float32, voxel on voxel with the scan."""
        return probabilities_on_scan(self.grid_probabilities, self.grid, self.scan)

    def on_scan(self, values: np.ndarray) -> Volume:
        """Returns a map (X, Y, Z) on the working grid, such as one of `uncertainty`, voxel on voxel with the scan."""
        return self.scan.with_voxels(probabilities_on_scan(values[..., None], self.grid, self.scan)[..., 0])

    def slice_quality(self) -> np.ndarray:
        """Returns a score in [0, 1] of each axial slice of the scan, by which to rank slices for review."""
        return slice_quality(self.grid_probabilities, self.grid, self.scan)


@runtime_checkable
class Predictor(Protocol):
    """What segments scans: a model of one stage or of several."""

    def predict(self, scan: str | os.PathLike | Volume) -> Prediction:
        """Segments one scan: a file, a folder with a DICOM series, or a volume in memory."""
        ...


def slice_quality(probabilities: np.ndarray, grid: Grid, scan: Volume) -> np.ndarray:
    """Returns for each axial slice of the scan how far the liver's Dice is, by the network's own word, from 1.

    With p the probability of liver or tumour, M where it is the more probable, all in mm2, and s = 1 cm2::

        doubt = 1 - (2 sum_M p + s) / (|M| + sum p + s)

    which is 1 minus the Dice of the mask with a reference that is drawn from p, each by its expectation. s keeps
    slices quiet in which there is next to nothing.

    Args:
      probabilities: (X, Y, Z, C) on ``grid``.
      grid: the working grid of ``scan``.
      scan: the scan.

    Returns:
      (n,) float64 in [0, 1], along the scan's axis nearest to superior, in the order of its voxels.
    """
    liver = 1 - probabilities[..., label_ids.BACKGROUND].astype(np.float64)
    mask = liver > 0.5
    pixel = np.prod(np.linalg.norm(grid.affine[:3, :2], axis=0))
    predicted, expected, shared = (pixel * a.sum((0, 1)) for a in (mask, liver, liver * mask))
    doubt = 1 - (2 * shared + _NEGLIGIBLE_AREA) / (predicted + expected + _NEGLIGIBLE_AREA)
    # Both grids have parallel axes: a slice's place along the third is a number.
    canonical = to_canonical(scan)
    places = np.linalg.inv(grid.affine) @ canonical.affine @ _along_z(canonical.shape[2])
    along = np.interp(places[2], np.arange(grid.shape[2]), doubt)
    _, direction = next(o for o in nib.orientations.io_orientation(scan.affine) if o[0] == 2)
    return along[:: int(direction)].copy()


def _along_z(count: int) -> np.ndarray:
    points = np.zeros((4, count))
    points[2], points[3] = np.arange(count), 1
    return points
