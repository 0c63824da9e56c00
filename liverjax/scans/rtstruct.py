"""Masks as DICOM structure sets (RTSTRUCT): closed contours in the patient's frame. Needs pydicom.

Contours run half-way between the pixels inside and those outside, so that a pixel is inside if its centre is. A hole is
joined to what surrounds it by a cut of no width ("keyhole", the way that DICOM describes for closed planar contours,
PS3.3 C.8.8.6.3): so readers that fill each contour and readers that combine all contours of a slice by exclusive or
find the same pixels.
"""

from __future__ import annotations

import datetime
import importlib
import itertools
from typing import Any

import contourpy
import numpy as np

from liverjax import __version__
from liverjax.scans.dicom_source import (
    COPIED,
    USE,
    Segment,
    code,
    headers,
    new_uid,
    plane,
    require_package,
    segments,
)
from liverjax.volume import Volume

WHAT = "an RTSTRUCT"
_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # "Detached Study Management", as the reference to a study is spelt
_OPTIONAL = ("PatientAge", "StudyDescription", "SpecificCharacterSet", "PositionReferenceIndicator")


def structure_set(mask: Volume, *, classes: int, algorithm: str) -> Any:
    """Returns a mask as a DICOM structure set, a pydicom data set.

    Args:
      mask: label ids (x, y, z), voxel on voxel with the DICOM series that is its source.
      classes: number of labels that whoever made the mask knows; each but the background becomes a structure, also an
        empty one.
      algorithm: what made the mask, such as "liverjax ct_liver".

    Raises:
      InputError: as `dicom_source.headers`, or pydicom is not installed.
    """
    require_package("pydicom", WHAT)
    source = headers(mask, WHAT)
    data = _frame(source[0], algorithm)
    references = [
        _item(ReferencedSOPClassUID=h.SOPClassUID, ReferencedSOPInstanceUID=h.SOPInstanceUID) for h in source
    ]
    frame = str(source[0].FrameOfReferenceUID)
    series = _item(SeriesInstanceUID=source[0].SeriesInstanceUID, ContourImageSequence=references)
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=source[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    data.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])
    ]
    structures, contours, observations = [], [], []
    for number, region in enumerate(segments(classes), start=1):
        structures.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=frame,
                ROIName=region.label,
                ROIDescription=region.description,
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=f"{algorithm[:40]} {__version__}",
            )
        )
        observations.append(_observation(region, number))
        found = [
            _item(
                ContourImageSequence=[references[k]],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(polygon),
                ContourData=_numbers(polygon, plane(source[k])),
            )
            for k in range(mask.shape[2])
            for polygon in polygons(region.mask(mask.voxels[:, :, k]))
        ]
        contour = _item(ReferencedROINumber=number, ROIDisplayColor=list(region.rgb))
        if found:
            contour.ContourSequence = found
        contours.append(contour)
    data.StructureSetROISequence = structures
    data.ROIContourSequence = contours
    data.RTROIObservationsSequence = observations
    return data


def polygons(inside: np.ndarray) -> list[np.ndarray]:
    """Returns the contours of a mask of a slice, (n, 2) each: x and y of the corners in pixels, in order.

    The first corner is not repeated. Pixels that meet at a corner only are joined or apart as the mean of the four is.

    Args:
      inside: (x, y) bool.
    """
    if not inside.any():
        return []
    # Zeros around it: a region at the edge of the image is closed there, half a pixel outside.
    padded = np.pad(inside, 1).T.astype(np.float64)
    lines = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset)
    found = []
    for points, offsets in zip(*lines.filled(0.5, 2.0), strict=True):
        rings = [points[a : b - 1] - 1 for a, b in itertools.pairwise(offsets)]
        found.append(_without_straight_corners(_keyhole(rings)))
    return found


def _keyhole(rings: list[np.ndarray]) -> np.ndarray:
    """Returns one ring of an outer ring and those of its holes, joined along rows of pixels.

    Each hole is joined from its rightmost corner. That lies on a row y of pixel centres, on which, to its right, pixels
    are inside up to the next corner, of the outer ring or of a hole farther to the right, which is joined already.
    """
    whole = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: -ring[:, 0].max()):
        start = int(np.argmax(hole[:, 0]))
        x, y = hole[start]
        beyond = np.flatnonzero((whole[:, 1] == y) & (whole[:, 0] > x))
        at = int(beyond[np.argmin(whole[beyond, 0])])
        around = np.roll(hole, -start, axis=0)
        whole = np.concatenate([whole[: at + 1], around, around[:1], whole[at:]])
    return whole


def _without_straight_corners(ring: np.ndarray) -> np.ndarray:
    """Returns a ring without the corners at which it goes straight on."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    return ring[turns | back]


def _numbers(polygon: np.ndarray, steps: np.ndarray) -> list[str]:
    """Returns the corners of a polygon in LPS, in mm, as DICOM writes numbers: at most 16 characters each."""
    points = np.column_stack([polygon, np.ones(len(polygon))]) @ steps.T
    return [f"{value:.4f}" for value in points.ravel()]


def _observation(region: Segment, number: int) -> Any:
    value, meaning = region.kind
    kind = _item(
        CodeValue=value, CodingSchemeDesignator=code(value, meaning).scheme_designator, CodeMeaning=meaning
    )
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIIdentificationCodeSequence=[kind],
        RTROIInterpretedType=region.interpreted,
        ROIInterpreter="",
    )


def _frame(first: Any, algorithm: str) -> Any:
    """Returns a structure set without structures: patient, study, equipment and the set's own name and time."""
    pydicom, uid = importlib.import_module("pydicom"), importlib.import_module("pydicom.uid")
    data = pydicom.Dataset()
    meta = data.file_meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID = _CLASS
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = new_uid()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for name in (*COPIED, *_OPTIONAL):
        if name in first:
            data[name] = first[name]
    data.StudyInstanceUID = first.StudyInstanceUID
    data.FrameOfReferenceUID = first.FrameOfReferenceUID
    data.setdefault("PositionReferenceIndicator", "")
    now = datetime.datetime.now()
    data.StructureSetDate = data.SeriesDate = data.InstanceCreationDate = f"{now:%Y%m%d}"
    data.StructureSetTime = data.SeriesTime = data.InstanceCreationTime = f"{now:%H%M%S}"
    data.Modality = "RTSTRUCT"
    data.SeriesInstanceUID = new_uid()
    data.SeriesNumber, data.InstanceNumber = 1002, 1
    data.SeriesDescription = f"{algorithm[:16]}, {USE}"[:64]
    data.OperatorsName = ""
    data.Manufacturer, data.ManufacturerModelName = "liverjax", algorithm[:64]
    data.DeviceSerialNumber, data.SoftwareVersions = "0", __version__
    data.StructureSetLabel = "LIVER"
    data.StructureSetDescription = USE
    data.ApprovalStatus = "UNAPPROVED"
    return data


def _item(**elements: Any) -> Any:
    item = importlib.import_module("pydicom").Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item
