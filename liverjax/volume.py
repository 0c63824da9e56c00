"""A scan or mask in memory: voxels, the affine that places them in the patient, and the files they come from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np


@dataclasses.dataclass(frozen=True)
class NiftiSource:
    """The header that a volume was read with, so that its mask is written with the same geometry fields."""

    header: nib.Nifti1Header


@dataclasses.dataclass(frozen=True)
class DicomSource:
    """The DICOM series that a volume was read from, so that a segmentation of it can refer to its instances.

    Attributes:
      study_uid: StudyInstanceUID, "" where the files state none.
      series_uid: SeriesInstanceUID, of the first slice where an anonymiser gave each file one of its own.
      files: the instance of each slice, in the order of the third voxel axis.
      phase: index of the phase in a dynamic series, 0 if there is only one.
    """

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    phase: int


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels with their geometry.

    Attributes:
      voxels: (x, y, z) array in the order of the file.
      affine: (4, 4) float64; takes voxel indices (voxel centres) to RAS+ world coordinates in mm.
      source: what the volume was read from, or None. It describes the grid of the files: a volume derived from this
        one keeps it, and writers use its geometry only while `affine` is still that of the files.
      name: what error messages call this volume: its path, or a short description.
    """

    voxels: np.ndarray
    affine: np.ndarray
    source: NiftiSource | DicomSource | None = None
    name: str = "volume"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return self.voxels.shape

    @property
    def spacing(self) -> np.ndarray:
        """(3,) distance in mm between neighbouring voxel centres along x, y and z."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def millilitres(self, mask: np.ndarray) -> float:
        """Returns the volume in ml of a mask (x, y, z) on this geometry; any value but 0 counts."""
        if mask.shape != self.shape:
            raise ValueError(f"{self.name}: mask of shape {mask.shape}, expected {self.shape}")
        return np.count_nonzero(mask) * abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """Returns the same geometry with other voxels of the same shape."""
        if voxels.shape != self.shape:
            raise ValueError(f"{self.name}: voxels of shape {voxels.shape}, expected {self.shape}")
        return dataclasses.replace(self, voxels=voxels)


def corner_distance(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Returns the largest distance in mm between equal corner voxels of volumes with affines `a` and `b`."""
    corners = np.array([(*c, 1.0) for c in itertools.product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm(corners @ (a - b)[:3].T, axis=1).max())
