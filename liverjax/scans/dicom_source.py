"""What DICOM objects made from a mask need of its series: the headers of its slices, checked, and the segments.

The mask must lie voxel on voxel on the slices: each pixel of a segment is a pixel of the instance that it refers to.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

import numpy as np

from liverjax.errors import InputError
from liverjax.labels import LIVER, REGIONS, TUMOR
from liverjax.scans import dicom, dicom_files, dicom_frames
from liverjax.scans.nifti import GEOMETRY_TOLERANCE_MM, chosen_phase
from liverjax.volume import DicomSource, Volume

#: What stands in objects made from a mask, where a reader sees it.
USE = "research use only, not for treatment decisions"
#: What is copied from a slice to such an object: empty where an anonymiser has removed it.
COPIED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
# What the references of such an object consist of.
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
# Without which no slice has a place.
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
_SAME = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


@dataclasses.dataclass(frozen=True)
class Segment:
    """A region of a mask as DICOM names it.

    Attributes:
      name: of the region, one of `labels.REGIONS`.
      label: what a reader sees.
      description: what is in it.
      category: code and meaning of its category, in SNOMED CT.
      kind: code and meaning of the thing itself, in SNOMED CT.
      rgb: the colour that 3D Slicer and dcmqi recommend for that code, 0 to 255.
      interpreted: RT ROI Interpreted Type.
    """

    name: str
    label: str
    description: str
    category: tuple[str, str]
    kind: tuple[str, str]
    rgb: tuple[int, int, int]
    interpreted: str

    def mask(self, voxels: np.ndarray) -> np.ndarray:
        """Returns where label ids belong to the region, bool."""
        return np.isin(voxels, REGIONS[self.name])


#: Regions, which are nested as everywhere in the library: the liver has its tumours in it.
SEGMENTS = (
    Segment(
        "liver",
        "Liver",
        "the liver with its tumors",
        ("91723000", "Anatomical Structure"),
        ("10200004", "Liver"),
        (221, 130, 101),
        "ORGAN",
    ),
    Segment(
        "tumor",
        "Liver tumor",
        "all tumors of the liver",
        ("49755003", "Morphologically Abnormal Structure"),
        ("108369006", "Neoplasm"),
        (144, 238, 144),
        "GTV",
    ),
)


def segments(classes: int) -> tuple[Segment, ...]:
    """Returns the segments of a mask of so many labels, the background among them."""
    return SEGMENTS[: 1 + (classes > TUMOR)] if classes > LIVER else ()


def require_series(volume: Volume, what: str) -> DicomSource:
    """Returns the series that a volume was read from.

    Args:
      volume: a scan, or a mask that keeps its source.
      what: what is to be made, for the message.

    Raises:
      InputError: it was not read from one.
    """
    if not isinstance(volume.source, DicomSource):
        raise InputError(
            f"{volume.name}: was not read from a DICOM series, to which {what} refers; expected the folder of the "
            "series, or --format=nifti"
        )
    return volume.source


def series_geometry(
    folder: str | os.PathLike, *, phase: int | str | None = None, series: str | int | None = None
) -> Volume:
    """Returns the grid of a DICOM series as a volume of zeros that takes no memory; only headers are read.

    Raises:
      InputError: as `dicom.read_series`, as far as the headers show it.
    """
    phases = dicom.find_phases(folder, series=series)
    index = chosen_phase(phase, len(phases), folder)
    stack = phases[index]
    rows, columns = stack[0].shape
    source = DicomSource(
        stack[0].study_uid, stack[0].series_uid, tuple(slice_.path for slice_ in stack), index
    )
    voxels = np.broadcast_to(np.uint8(0), (columns, rows, len(stack)))
    return Volume(voxels, dicom.stack_affine(stack, folder), source, str(folder))


def headers(mask: Volume, what: str) -> list[Any]:
    """Returns the headers of the slices that a mask lies on, in the order of its third axis.

    What patient and study may lack is there, empty.

    Args:
      mask: its source is a DICOM series.
      what: what is to be made, for the message.

    Raises:
      InputError: it was not read from a series or does not lie on its slices, or these cannot be referred to.
    """
    files = require_series(mask, what).files
    read = [dicom_files.read(path) for path in dict.fromkeys(files)]
    if any(map(dicom_frames.is_enhanced, read)):
        raise InputError(
            f"{files[0]}: is an enhanced file of several slices, to which {what} does not refer yet; expected "
            "--format=nifti"
        )
    for path, header in zip(files, read, strict=True):
        for name in (*_NEEDED, *_PLACE):
            if not header.get(name):
                raise InputError(
                    f"{path}: states no {name}, without which {what} cannot refer to it; expected --format=nifti"
                )
        for name in COPIED:
            if name not in header:
                setattr(header, name, "")
    for name in _SAME:
        if len({str(header[name].value) for header in read}) > 1:
            raise InputError(
                f"{files[0].parent}: its slices state several {name}s, as some anonymisers write them, and {what} "
                "refers to one; expected --format=nifti"
            )
    _check_place(mask, read)
    return read


def plane(header: Any) -> np.ndarray:
    """Returns (3, 3): steps in mm along x and y of a slice, and its first pixel's centre, as columns, in LPS."""
    row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    rows, columns = map(float, header.PixelSpacing)
    return np.column_stack([row * columns, column * rows, np.array(header.ImagePositionPatient, float)])


def _check_place(mask: Volume, read: list[Any]) -> None:
    """Refuses a mask that was cropped, turned, resampled or moved since its series was read."""
    x, y, z = mask.shape
    sizes = {(int(header.Columns), int(header.Rows)) for header in read}
    if z != len(read) or sizes != {(x, y)}:
        shown = " and ".join(f"{columns} x {rows}" for columns, rows in sorted(sizes))
        raise InputError(
            f"{mask.name}: a mask of {x} x {y} x {z} voxels, expected {len(read)} slices of {shown} as its series has"
        )
    to_lps = np.diag([-1.0, -1, 1]) @ mask.affine[:3]
    corners = np.array([(0, 0, 1), (x - 1, 0, 1), (0, y - 1, 1)], float).T
    # Slices may lie beside their places in an even stack.
    uneven = dicom.POSITION_TOLERANCE * float(np.linalg.norm(to_lps[:, 2]))
    for k, header in enumerate(read):
        own = plane(header) @ corners
        expected = np.column_stack([to_lps[:, :2], to_lps[:, 2] * k + to_lps[:, 3]]) @ corners
        distance = float(np.linalg.norm(own - expected, axis=0).max())
        if not distance <= GEOMETRY_TOLERANCE_MM + uneven:
            raise InputError(
                f"{mask.name}: slice {k} of the mask lies {distance:.3g} mm from {header.filename}, expected a mask in "
                "the scan's own grid"
            )


def code(value: str, meaning: str, scheme: str = "SCT") -> Any:
    """Returns a code of SNOMED CT, or of another scheme."""
    return importlib.import_module("pydicom.sr.coding").Code(value, scheme, meaning)


def new_uid() -> str:
    """Returns a UID that no other object has."""
    return str(importlib.import_module("pydicom.uid").generate_uid())


def require_package(name: str, what: str) -> Any:
    """Returns a package of the extra `dicom`.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        root = name.partition(".")[0]
        raise InputError(f"{what} needs {root}, which is not installed: pip install {root}") from None
