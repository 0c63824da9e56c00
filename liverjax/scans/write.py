"""Masks in any of the formats that are written, atomically.

| format | file | needs |
|---|---|---|
| `nifti` | `.nii`, `.nii.gz`: label ids, with their names in an extension of the header | |
| `dicom-seg` | `.dcm`: a DICOM segmentation that refers to the series of its scan | highdicom |
| `rtstruct` | `.dcm`: a DICOM structure set, contours in the patient's frame | pydicom |
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension

from liverjax.errors import InputError, did_you_mean
from liverjax.files import replacing
from liverjax.labels import NAMES
from liverjax.scans import dicom_files, dicom_source, nifti
from liverjax.volume import Volume, label_voxels, require_volume

#: Format -> ending of the files that a folder gets.
ENDINGS = {"nifti": ".nii.gz", "dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}
FORMATS = tuple(ENDINGS)
# What writes those of DICOM.
_NEEDS = {"dicom-seg": "highdicom.seg", "rtstruct": "pydicom"}
# No particular extension: as TotalSegmentator writes names. Caret's own number is 30, of which nibabel 5.4 refuses to
# return the content.
_CODE = 0


def write_labels(
    path: str | os.PathLike,
    mask: Volume,
    *,
    format: str = "nifti",
    classes: int = len(NAMES),
    algorithm: str = "liverjax",
) -> None:
    """Writes a mask, atomically.

    Args:
      path: ends in `.nii` or `.nii.gz`, or in `.dcm` if the format is one of DICOM.
      mask: label ids (x, y, z); for DICOM, voxel on voxel with the series that is its source.
      format: one of `FORMATS`.
      classes: number of labels that whoever made the mask knows.
      algorithm: what made it, as DICOM objects state.

    Raises:
      InputError: an unknown format or another ending; label values that the classes do not have; as
        `dicom_source.headers`; or the file cannot be written.
    """
    path = pathlib.Path(path)
    check_format(path, format)
    mask = require_volume(mask).with_voxels(label_voxels(mask, range(classes)))
    if format == "nifti":
        nifti.write(path, mask, extension=Nifti1Extension(_CODE, label_table(classes)))
        return
    if format == "dicom-seg":
        from liverjax.scans.dicom_seg import segmentation as made
    else:
        from liverjax.scans.rtstruct import structure_set as made
    data = made(mask, classes=classes, algorithm=algorithm)
    try:
        with replacing(path) as temporary:
            data.save_as(temporary, enforce_file_format=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def check_format(path: pathlib.Path, format: str) -> None:
    """Refuses a file whose ending is not that of its format.

    Raises:
      InputError: it is not, or there is no such format.
    """
    if format not in FORMATS:
        raise InputError(f"format is {format!r}{did_you_mean(str(format), FORMATS)}")
    is_dicom = path.name.lower().endswith(".dcm")
    if format == "nifti" and is_dicom:
        raise InputError(
            f"{path}: is to be written as NIfTI, expected a name that ends in .nii or .nii.gz, or --format=dicom-seg "
            "or rtstruct"
        )
    if format != "nifti" and not is_dicom:
        raise InputError(f"{path}: is to be written as {format}, expected a name that ends in .dcm")


def check_scans(scans: Iterable[pathlib.Path], format: str) -> None:
    """Refuses scans of which no mask of the format can be written, before any is computed.

    Raises:
      InputError: a format of DICOM, and one of the scans is no folder, or one of enhanced files; or what writes it is
        not installed.
    """
    if format == "nifti":
        return
    dicom_source.require_package(_NEEDS[format], f"--format={format}")
    for scan in scans:
        if not scan.is_dir():
            raise InputError(
                f"{scan}: is no DICOM series, to which --format={format} refers; expected the folder of a series, or "
                "--format=nifti"
            )
        if dicom_files.is_enhanced(scan):
            raise InputError(
                f"{scan}: is a series of enhanced files, to which --format={format} does not refer yet; expected "
                "--format=nifti"
            )


def placed_on(mask: Volume, scan: Volume) -> Volume:
    """Returns a mask with its axes in the order and directions of a scan's, and the scan's source.

    Converters from DICOM turn and flip axes; the voxels stay where they are.

    Raises:
      InputError: the voxels do not coincide with those of the scan.
    """
    step = np.linalg.inv(scan.affine) @ mask.affine
    order = nib.orientations.io_orientation(step)
    turned = Volume(
        nib.orientations.apply_orientation(mask.voxels, order),
        mask.affine @ nib.orientations.inv_ornt_aff(order, mask.shape),
        name=mask.name,
    )
    nifti.require_same_geometry(turned, scan)
    return scan.with_voxels(turned.voxels)


def label_names(classes: int = len(NAMES)) -> dict[str, int]:
    """Returns the names of the label ids, as nnU-Net writes them."""
    return {name: label for label, name in enumerate(NAMES[:classes])}


def label_table(classes: int) -> bytes:
    """Returns the names and colours of the labels as the XML of Connectome Workbench, which TotalSegmentator reads."""
    colors = {"background": (0, 0, 0)} | {segment.name: segment.rgb for segment in dicom_source.SEGMENTS}
    rows = []
    for name, label in label_names(classes).items():
        red, green, blue = (f"{value / 255:.4f}" for value in colors[name])
        rows.append(
            f'<Label Key="{label}" Red="{red}" Green="{green}" Blue="{blue}" Alpha="{min(label, 1)}">'
            f"<![CDATA[{name}]]></Label>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0"><LabelTable>'
        + "".join(rows)
        + "</LabelTable><VolumeType><![CDATA[Label]]></VolumeType></VolumeInformation></CaretExtension>"
    ).encode()
