"""Scans and masks: files, geometry, data sets, and the way to the network's grid and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from liverjax.volume import Volume


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
      spacing: of a file without geometry, its voxel size in mm.
      series: of a folder with several series, the number or UID of one.

    Raises:
      InputError: as `nifti.read` and `dicom.read_series`.
    """
    if Path(path).is_dir():
        from liverjax.scans import dicom

        return dicom.read_series(path, phase=phase, series=series)
    from liverjax.scans import nifti

    return nifti.read(path, phase=phase, spacing=spacing)
