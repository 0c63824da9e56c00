"""One case of a data set: a scan with its mask, and how they are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from liverjax import scans
from liverjax.datasets import chaos
from liverjax.datasets.label_names import OWN_LABELS
from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.volume import Volume


def read_labels(path: Path, label_map: tuple[tuple[int, int], ...] = OWN_LABELS) -> Volume:
    """Reads the label ids of a NIfTI file, uint8, of which the values mean what a map says.

    Raises:
      InputError: it cannot be read, or holds a value that the map does not.
    """
    mask = nifti.read_mask(path, labels=[value for value, _ in label_map])
    if label_map == OWN_LABELS:
        return mask
    meanings = np.zeros(256, np.uint8)
    for value, meaning in label_map:
        meanings[value] = meaning
    return mask.with_voxels(meanings[mask.voxels])


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan, with its mask where there is one.

    Attributes:
      id: name of the case, unique in its data set; also the stem of a file name.
      image: file of the scan, or folder of its DICOM series.
      label: file of the mask, or folder of its PNG files, or None.
      patient: name of the patient; the case's id where nothing else is known.
      label_map: pairs of a value in the mask file and the label id that it means.
      liver_only: the mask does not distinguish tumours from the liver.
      voxel_on_voxel: the mask lies on its scan voxel on voxel, whatever its own affine says.
      reading: phase, series and spacing of the scan, where its files leave them open.
    """

    id: str
    image: Path
    label: Path | None
    patient: str
    label_map: tuple[tuple[int, int], ...] = OWN_LABELS
    liver_only: bool = False
    voxel_on_voxel: bool = False
    reading: scans.Reading = scans.AS_STORED

    def read_image(self) -> Volume:
        """Reads the scan, from NIfTI or DICOM; see `liverjax.scans.read`."""
        return self.reading.read(self.image)

    def read_mask(self) -> Volume:
        """Reads the mask, as uint8 label ids.

        Raises:
          InputError: there is none, it cannot be read, it holds a value that `label_map` does not, or its shape
            is not the scan's where the case is `voxel_on_voxel`.
        """
        mask = self._stored_mask()
        if not self.voxel_on_voxel:
            return mask
        # All phases lie alike.
        return self._placed_on(dataclasses.replace(self.reading, phase=0).read(self.image), mask)

    def read_pair(self) -> tuple[Volume, Volume]:
        """Reads the scan and its mask.

        Raises:
          InputError: one of them cannot be used, or they do not lie voxel on voxel.
        """
        scan, mask = self.read_image(), self._stored_mask()
        if self.voxel_on_voxel:
            mask = self._placed_on(scan, mask)
        nifti.require_same_geometry(scan, mask)
        return scan, mask

    def _stored_mask(self) -> Volume:
        """Returns the mask's label ids, placed as its own file says."""
        if self.label is None:
            raise InputError(f"{self.image}: case {self.id!r} has no mask, expected one")
        if self.label.is_dir():
            return chaos.read_mask(self.label, self.image, series=self.reading.series)
        return read_labels(self.label, self.label_map)

    def _placed_on(self, scan: Volume, mask: Volume) -> Volume:
        if scan.shape != mask.shape:
            raise InputError(
                f"{self.label}: {mask.shape} voxels, expected {scan.shape} as {self.image}, on which it is said to "
                "lie voxel on voxel"
            )
        return scan.with_voxels(mask.voxels)
