"""Scans and masks: files, geometry, intensities.

Public, imported on first use:

    read(path) -> Volume                            a NIfTI file or a folder with a DICOM series
    Reading(phase, series, spacing)                 the choices of a user that reading may need
    read_mask(path) -> Volume                       label ids of a NIfTI file
    read_series(folder) -> Volume                   DICOM, with the choice of a series and a phase
    require_same_geometry(a, b)                     refuses volumes whose voxels do not coincide
    Grid, working_grid(volume, spacing), box_grid(grid, mask, margin_mm)
    liver_grid(scan, liver, spacing, margin_mm) -> Grid, liver_distance(liver, grid)
    to_grid(volume, grid)                           scan or label map -> grid
    labels_on_scan, probabilities_on_scan           grid -> scan
    intensity_window(voxels, options), normalise(voxels, low, high)
    as_volume(scan, affine) -> Volume               a path, an array, an image of nibabel or SimpleITK
    to_nibabel(volume), to_simpleitk(volume)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liverjax import lazy
from liverjax.errors import InputError

if TYPE_CHECKING:
    from liverjax.volume import Volume

__getattr__, _, _attached = lazy.attach(
    __name__,
    {
        "nifti": ("read_mask", "require_same_geometry"),
        "dicom": ("read_series",),
        "grid": ("Grid", "box_grid", "labels_on_scan", "probabilities_on_scan", "to_grid", "working_grid"),
        "liver_box": ("liver_distance", "liver_grid"),
        "images": ("as_volume", "to_nibabel", "to_simpleitk"),
        "intensity": ("intensity_window", "normalise"),
    },
)
__all__ = ["Reading", "read"]
__all__ += _attached


def __dir__() -> list[str]:
    return sorted(__all__)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a user states of a scan that its files leave open; fields that are None leave it to the files.

    Attributes:
      phase: of a dynamic scan, the phase from 0, or "last"; not needed where there is only one.
      series: of a folder with several DICOM series, the number or the UID of one, or "largest".
      spacing: (3,) voxel size in mm of a NIfTI file without geometry, along the axes of its array.
    """

    phase: int | str | None = None
    series: int | str | None = None
    spacing: tuple[float, float, float] | None = None

    def read(self, path: str | os.PathLike) -> Volume:
        """Reads a scan with these choices, as `read`."""
        return read(path, phase=self.phase, series=self.series, spacing=self.spacing)


#: Nothing is stated.
AS_STORED = Reading()


def read(
    path: str | os.PathLike,
    *,
    phase: int | str | None = None,
    spacing: Sequence[float] | None = None,
    series: str | int | None = None,
) -> Volume:
    """Reads a scan: a NIfTI file, or a folder with a DICOM series.

    Args:
      path: a `.nii` or `.nii.gz` file, or a folder.
      phase: of a dynamic scan, the phase from 0, or "last"; not needed where there is only one.
      spacing: of a NIfTI file without geometry, its voxel size in mm.
      series: of a folder with several series, the number or UID of one, or "largest".

    Raises:
      InputError: as `nifti.read` and `dicom.read_series`; or a series of a file, or the spacing of a folder, is stated.
    """
    if Path(path).is_dir():
        from liverjax.scans import dicom

        if spacing is not None:
            raise InputError(
                f"{path}: a DICOM series states its spacing, expected none to be given; leave --spacing out"
            )
        return dicom.read_series(path, phase=phase, series=series)
    if series is not None:
        raise InputError(
            f"{path}: is a file, and holds no series, expected none to be chosen; leave --series out"
        )
    from liverjax.scans import nifti

    return nifti.read(path, phase=phase, spacing=spacing)
