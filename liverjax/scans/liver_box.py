"""The box around a known liver, and how far each voxel lies from it: one rule for training and for prediction.

A network that seeks tumours sees this box, and what counts is within the liver, dilated by some mm. The liver may be
that of a reference mask or a predicted one.
"""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np

from liverjax.scans.grid import Grid, box_grid, to_grid, working_grid
from liverjax.volume import Volume, check_voxels

#: Distances in mm from here on are stored as this.
FARTHEST_MM = 255


def liver_grid(scan: Volume, liver: Volume, spacing: Sequence[float], margin_mm: float) -> Grid:
    """Returns the box of a scan's working grid that holds the liver and a margin around it.

    Args:
      scan: the whole scan.
      liver: a mask that lies on it; any value but 0 is liver, so that tumours count.
      spacing: voxel size in mm of the working grid, along right, anterior, superior.
      margin_mm: distance that is added on each side, as far as the scan reaches.

    Raises:
      ValueError: the mask is empty.
      InputError: as `liverjax.scans.grid.working_grid`; values of the mask that are not finite.
    """
    return box_grid(working_grid(scan, spacing), liver, margin_mm)


def liver_distance(liver: Volume, grid: Grid) -> np.ndarray:
    """Returns how far each voxel of a grid lies from the liver.

    Distances are those of voxel centres to the nearest centre of a liver voxel, on the grid. The liver dilated by d mm
    is what has a distance of at most d; rounding up keeps whole numbers of mm exact.

    Args:
      liver: a mask; any value but 0 is liver.
      grid: the working grid of the scan that the mask belongs to, or a box of it.

    Returns:
      (X, Y, Z) uint8, in mm rounded up: 0 within the liver, at most `FARTHEST_MM`, which all voxels have if the grid
      holds no liver.

    Raises:
      InputError: values of the mask that are not finite.
    """
    check_voxels(liver)
    inside = to_grid(liver.with_voxels((liver.voxels != 0).astype(np.uint8)), grid, labels=True).voxels != 0
    if not inside.any():
        return np.full(inside.shape, FARTHEST_MM, np.uint8)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    distance = edt.edt(np.ascontiguousarray(~inside), anisotropy=tuple(spacing.tolist()))
    # Single precision may lie above a whole number by its rounding.
    return np.minimum(np.ceil(distance - 1e-3), FARTHEST_MM).astype(np.uint8)
