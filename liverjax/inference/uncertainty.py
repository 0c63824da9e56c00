"""Where the network is unsure: maps over the volume, and a score that ranks slices for review."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np

from liverjax import labels as label_ids
from liverjax.inference.fuse import Fused
from liverjax.scans.grid import Grid, to_canonical
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


def uncertainty_maps(fused: Fused) -> Uncertainty:
    """Returns the maps of a fusion with ``member_entropy``."""
    classes = fused.probabilities.shape[-1]
    total = _entropy(fused.probabilities)
    most = np.float32(np.log(classes))
    # Rounding can put the mean's entropy a trifle below the mean entropy, which it never is.
    return Uncertainty(total / most, np.maximum(total - fused.member_entropy, 0) / most)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy in nats over the last axis, class by class: few arrays of a volume's size at once."""
    total = np.zeros(probabilities.shape[:-1], np.float32)
    for share in np.moveaxis(probabilities, -1, 0):
        total -= share * np.log(np.maximum(share, np.finfo(np.float32).tiny))
    return np.maximum(total, 0)


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
