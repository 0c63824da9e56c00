"""Lesions, diameters and responses as DICOM structured reports (TID 1500), of time points whose scan is a DICOM series.

Needs highdicom. A report belongs to the study of its scan. Each diameter has its two ends on the slice on which it was
measured (SCOORD), or in space (SCOORD3D) where the series is not axial.
"""

from __future__ import annotations

import importlib
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from liverjax import __version__, files
from liverjax.planning.assessment import USE, Assessment, lesion_name
from liverjax.planning.course import Finding, Part
from liverjax.planning.diameters import Line
from liverjax.scans import dicom, dicom_files, dicom_source

_LOG = logging.getLogger("liverjax")

# Codes of our own, of what DICOM has none for: the overall response, and that a lesion is new.
_SCHEME = "99LIVERJAX"
_OVERALL = {
    "CR": "Complete response", "PR": "Partial response", "SD": "Stable disease", "PD": "Progressive disease",
    "NE": "Not evaluable", "non-CR/non-PD": "Neither complete response nor progression",
}  # fmt: skip
_TARGET = {
    "CR": "TargetLesionCompleteResponse", "PR": "TargetLesionPartialResponse", "SD": "TargetLesionStableDisease",
    "PD": "TargetLesionProgressiveDisease",
}  # fmt: skip
_NON_TARGET = {
    "CR": "NonTargetLesionCompleteResponse",
    "non-CR/non-PD": "NonTargetLesionIncompleteResponseOrStableDisease",
    "PD": "NonTargetLesionProgressiveDisease",
}


def save(folder: str | os.PathLike, assessments: Sequence[Assessment]) -> list[pathlib.Path]:
    """Writes `CASE_NUMBER.dcm` into a folder for each time point whose scan is a DICOM series; it returns the files.

    NUMBER is that of the time point, 0 the baseline. If highdicom is not installed, a warning says so.

    Raises:
      InputError: a series cannot be read.
    """
    with_series = [
        (one, index)
        for one in assessments
        for index, point in enumerate(one.patient.time_points)
        if point.scan is not None and point.scan.is_dir()
    ]
    if not with_series:
        return []
    try:
        importlib.import_module("highdicom")
    except ImportError:
        _LOG.warning("no DICOM SR is written, as highdicom is not installed: pip install highdicom")
        return []
    written = []
    for assessment, index in with_series:
        document = report(assessment, index)
        path = pathlib.Path(folder) / f"{assessment.patient.id}_{index}.dcm"
        with files.replacing(path) as temporary:
            document.save_as(temporary, enforce_file_format=True)
        written.append(path)
    return written


def report(assessment: Assessment, index: int) -> Any:
    """Returns the structured report of a time point, a pydicom data set.

    Args:
      assessment: of a patient whose scan at this time point is a DICOM series.
      index: of the time point.

    Raises:
      InputError: the series cannot be read.
    """
    sr, codes = importlib.import_module("highdicom.sr"), _codes()
    series = _Series(assessment, index)
    groups = [
        _lesion(assessment, index, finding, number, series)
        for finding in assessment.visits[index].findings
        for number in range(len(finding.parts))
    ]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_uid("device", __version__), name="liverjax", manufacturer_name="liverjax", model_name=__version__
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[*groups, _response(assessment, index)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    kind = sr.Comprehensive3DSR if series.in_space else sr.ComprehensiveSR
    return kind(
        evidence=series.evidence(),
        content=content[0],
        series_instance_uid=_uid(),
        series_number=1000,
        sop_instance_uid=_uid(),
        instance_number=1,
        manufacturer="liverjax",
        series_description="RECIST 1.1, research use only, not for treatment decisions",
    )


class _Series:
    """Places measurements in a DICOM series; remembers which of its slices they refer to."""

    def __init__(self, assessment: Assessment, index: int):
        folder = assessment.patient.time_points[index].scan
        assert folder is not None
        self._stack = dicom.find_phases(folder)[0]
        self._to_ras = assessment.masks[index].affine
        self._to_index = np.linalg.inv(dicom.stack_affine(self._stack, folder)) @ self._to_ras
        self._read: dict[int, Any] = {}
        self.in_space = False

    def _header(self, number: int) -> Any:
        if number not in self._read:
            header = dicom_files.read(self._stack[number].path)
            for name in dicom_source.COPIED:
                if name not in header:
                    setattr(header, name, "")
            self._read[number] = header
        return self._read[number]

    def evidence(self) -> list[Any]:
        """Returns the slices that are referred to; the first one of the series if there are none."""
        self._header(0)
        return list(self._read.values())

    def coordinates(self, line: Line) -> list[Any]:
        """Returns where a line lies: on its slice, or in space if it leaves the slices of the series."""
        sr = importlib.import_module("highdicom.sr")
        ends = np.array(line.ends)
        places = ends @ self._to_index[:3, :3].T + self._to_index[:3, 3]
        number = int(np.rint(places[0, 2]))
        if np.ptp(places[:, 2]) < 1e-3 and 0 <= number < len(self._stack):
            header = self._header(number)
            # The corner of the first pixel is 0, 0, its centre 0.5, 0.5: column, then row.
            image = sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
            return [sr.CoordinatesForMeasurement("POLYLINE", places[:, :2] + 0.5, image)]
        frame = self._header(0).get("FrameOfReferenceUID")
        if not frame:
            return []
        self.in_space = True
        in_lps = (ends @ self._to_ras[:3, :3].T + self._to_ras[:3, 3]) * (-1, -1, 1)
        return [sr.CoordinatesForMeasurement3D("POLYLINE", in_lps, frame)]


def _lesion(assessment: Assessment, index: int, finding: Finding, number: int, series: _Series) -> Any:
    """Returns the measurements of one part of a lesion."""
    sr, codes = importlib.import_module("highdicom.sr"), _codes()
    part: Part = finding.parts[number]
    found = assessment.masks[index].lesions[part.id - 1].diameters
    several = f", part {number + 1} of {len(finding.parts)}" if len(finding.parts) > 1 else ""
    lines = ((codes.SCT.LongAxis, found.longest), (codes.SCT.PerpendicularAxis, found.perpendicular))
    measured = [
        sr.Measurement(
            name, round(line.mm, 4), codes.UCUM.Millimeter, referenced_coordinates=series.coordinates(line)
        )
        for name, line in lines
    ]
    measured.append(
        sr.Measurement(codes.SCT.Volume, round(1000 * part.volume_ml, 4), codes.UCUM.CubicMillimeter)
    )
    own = set(finding.members)
    at_baseline = any(own & set(f.members) and f.parts for f in assessment.visits[0].findings)
    category = codes.DCM.NonTargetLesionAtBaseline if at_baseline else _code("NEW", _SCHEME, "New lesion")
    if own & set(assessment.targets):
        category = codes.DCM.TargetLesionAtBaseline
    name = lesion_name(finding.members)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=_uid(assessment.patient.id, str(assessment.patient.time_points[0].scan), name, several),
            identifier=f"lesion {name}{several}",
        ),
        time_point_context=_time(assessment, index),
        finding_type=codes.SCT.Lesion,
        finding_category=category,
        finding_sites=[sr.FindingSite(codes.SCT.Liver)],
        measurements=measured,
    )


def _response(assessment: Assessment, index: int) -> Any:
    """Returns the sum of diameters and the response."""
    sr, codes = importlib.import_module("highdicom.sr"), _codes()
    response = assessment.responses[index]
    current = codes.DCM.CurrentResponse
    known = [(_TARGET, response.target), (_NON_TARGET, response.non_target)]
    stated = [
        sr.QualitativeEvaluation(current, getattr(codes.DCM, names[value]))
        for names, value in known
        if value in names
    ]
    if response.overall:
        name = _code("OVERALL", _SCHEME, "Overall response")
        value = _code(response.overall, _SCHEME, _OVERALL[response.overall])
        stated.append(sr.QualitativeEvaluation(name, value))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=_uid(), identifier=f"response. {USE}"),
        time_point_context=_time(assessment, index),
        method=codes.DCM.RECIST1Point1,
        measurements=[
            sr.Measurement(codes.DCM.MeasurementOfResponse, round(response.sum_mm, 4), codes.UCUM.Millimeter)
        ],
        qualitative_evaluations=stated,
    )


def _time(assessment: Assessment, index: int) -> Any:
    sr = importlib.import_module("highdicom.sr")
    return sr.TimePointContext(assessment.patient.time_points[index].name, time_point_order=index)


def _codes() -> Any:
    return importlib.import_module("pydicom.sr.codedict").codes


def _code(value: str, scheme: str, meaning: str) -> Any:
    return importlib.import_module("pydicom.sr.coding").Code(value, scheme, meaning)


def _uid(*of: str) -> Any:
    """Returns a UID: of these words always the same one, else a new one."""
    made = importlib.import_module("pydicom.uid").generate_uid(entropy_srcs=["liverjax", *of] if of else None)
    return importlib.import_module("highdicom").UID(made)
