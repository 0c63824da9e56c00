"""Headers of DICOM files: from the files of a folder to the slices of one series.

Files that can be no slice of a scan (documents, segmentations, screenshots) are left out with a notice, then the
files are grouped by series, then one is chosen. Only its slices must be sound; but a damaged file that may be
one of them is refused, since a stack that lacks a slice at its end looks whole.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from liverjax.errors import InputError
from liverjax.scans import dicom_files, dicom_frames
from liverjax.scans.dicom_files import one_line

_LOG = logging.getLogger("liverjax")

#: Range of the distance between pixels, in mm.
SPACING_RANGE = (0.05, 50.0)

#: What may tell the phases of a dynamic series apart, the most reliable first; dates go with times.
ORDERS = (
    "TemporalPositionIdentifier", "EchoTime", "AcquisitionDateTime", "AcquisitionDate+AcquisitionTime",
    "AcquisitionTime", "AcquisitionNumber", "TriggerTime", "ContentDate+ContentTime", "ContentTime",
    "InstanceNumber",
)  # fmt: skip

_SUFFIXES = (".dcm", ".dicom", ".ima")
_CUT = "without Rows and Columns"
#: So many series are listed in a message, the largest ones.
_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice of a series: a file, or a frame of an enhanced one.

    Attributes:
      path: the file.
      study_uid: StudyInstanceUID, or "".
      series_uid: SeriesInstanceUID, or "".
      modality: as "CT" or "MR", or "".
      shape: number of rows and columns.
      spacing: distances in mm between rows and between columns.
      directions: (2, 3) unit vectors in LPS along a row and along a column.
      position: (3,) centre of the first pixel in mm, LPS.
      thickness: of the slice in mm where stated, else the distance to the next, else 0.
      rescale: slope and intercept, None where absent.
      number: InstanceNumber, None where absent.
      times: values of `ORDERS`, None where absent.
      frame: the index of the frame in an enhanced file, from 0; None if the file is the slice.
    """

    path: Path
    study_uid: str
    series_uid: str
    modality: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    directions: np.ndarray
    position: np.ndarray
    thickness: float
    rescale: tuple[float | None, float | None]
    number: float | None
    times: tuple[float | None, ...]
    frame: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1} of {self.path.name}"

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector in LPS along which slices are ordered."""
        return np.cross(*self.directions)

    @property
    def depth(self) -> float:
        """Position in mm along the normal."""
        return float(self.position @ self.normal)


@dataclasses.dataclass(frozen=True, eq=False)
class _Header:
    """A file that may be a slice: its header, SOP class and series, and why it can be none (or "")."""

    path: Path
    data: Any
    sop_class: str
    uid: str
    series: tuple[str, str]
    fault: str


def read_slices(folder: Path, series: str | int | None = None) -> list[Slice]:
    """Returns the slices of a folder's one series, or of the one that is chosen, by name.

    Args:
      folder: holds the slices themselves, not subfolders.
      series: number or UID of a series, or "largest": the one of the most slices.

    Raises:
      InputError: no or several series, or a file that is damaged, or of no use, and may belong to the series.
    """
    left_out: dict[str, list[Path]] = collections.defaultdict(list)
    groups = _grouped(_read_headers(folder, left_out), left_out, series is not None)
    chosen = _choose(groups, series, folder) if groups else []
    if left_out:
        kinds = [f"{len(paths)} {kind} (such as {paths[0].name})" for kind, paths in left_out.items()]
        count = sum(map(len, left_out.values()))
        _LOG.warning("%s: %d files are not used: %s", folder, count, ", ".join(kinds))
    if not groups:
        below = [str(f.relative_to(folder)) for f in dicom_files.find_folders(folder) if f != folder]
        where = (
            f"; name one of the folders with slices below it: {', '.join(below[:_LISTED])}" if below else ""
        )
        raise InputError(f"{folder}: holds no DICOM images, expected the slices of a series{where}")
    return [slice_ for header in chosen for slice_ in _slices(header)]


def _read_headers(folder: Path, left_out: dict[str, list[Path]]) -> list[_Header]:
    """Reads the files that may be slices; the others are added to `left_out` by their kind."""
    dicom_files.pydicom()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with the slices of a DICOM series")
    headers: list[_Header] = []
    no_dicom: list[Path] = []
    for path in dicom_files.files(folder):
        uid = dicom_files.sop_class(path)
        if uid is None:
            no_dicom.append(path)
            continue
        data = None if dicom_files.is_other_class(uid) else dicom_files.read(path)
        uid = _text(data, "SOPClassUID") or uid
        if data is None or dicom_files.is_other_class(uid):
            left_out[_kind(uid)].append(path)
            continue
        series = _text(data, "SeriesNumber"), _text(data, "SeriesDescription")
        headers.append(_Header(path, data, uid, _text(data, "SeriesInstanceUID"), series, _fault(data, uid)))
    for path in no_dicom:
        if headers and path.name.lower().endswith(_SUFFIXES):
            raise InputError(
                f"{path}: is no DICOM file ({path.stat().st_size} bytes), expected a slice; copy it again from its "
                "source, or remove it if the series is whole without it"
            )
        left_out["no DICOM"].append(path)
    return headers


def _fault(data: Any, uid: str) -> str:
    """Returns why a file of a SOP class can be no slice of a stack, or ""."""
    if _number(data, "Rows") is None or _number(data, "Columns") is None:
        return _CUT
    if not _text(data, "PhotometricInterpretation").startswith("MONOCHROME"):
        return "not of grey values"
    several = dicom_frames.is_enhanced(data) or (_number(data, "NumberOfFrames") or 1) > 1
    if several and uid in dicom_files.SLICE_CLASSES:
        return ""  # an enhanced file states its positions elsewhere
    return "" if "ImagePositionPatient" in data and "ImageOrientationPatient" in data else "without position"


def _kind(uid: str) -> str:
    return dicom_files.pydicom().uid.UID(uid).name


# --- the choice of a series ---------------------------------------------------------------------------------


def _grouped(headers: list[_Header], left_out: dict[str, list[Path]], chosen: bool) -> list[list[_Header]]:
    """Returns the series; files and series that can be no slices are added to `left_out`."""
    wanted = dicom_files.SLICE_CLASSES | {header.sop_class for header in headers if not header.fault}
    by_uid: dict[str, list[_Header]] = collections.defaultdict(list)
    for header in headers:
        kind = _kind(header.sop_class)
        if (
            header.fault and header.sop_class not in wanted and kind != header.sop_class
        ):  # a class of the standard
            left_out[f"{kind} {header.fault}"].append(header.path)
        else:
            by_uid[header.uid].append(header)
    everything = [header for group in by_uid.values() for header in group]
    if len(by_uid) == len(everything) and len({header.series for header in everything}) == 1:
        return [everything]  # anonymisers, as that of CHAOS, may give each file a series of its own
    if "" in by_uid and len(by_uid) > 1:
        raise InputError(
            f"{by_uid[''][0].path}: states no SeriesInstanceUID, expected one as in the other files; copy it again "
            "from its source, or remove it if the series is whole without it"
        )
    sound = []
    for group in by_uid.values():
        if all(header.fault for header in group):
            continue
        slices = [header for header in group if not _is_localizer(header)] or group
        if len(slices) < len(group):
            left_out["localizer"] += [header.path for header in group if _is_localizer(header)]
        sound.append(slices)
    for group in by_uid.values() if sound else []:
        if all(header.fault for header in group):
            damaged = group[0].fault == _CUT or _kind(group[0].sop_class) == group[0].sop_class
            if damaged and not chosen:
                _slices(group[0])  # raises: it may belong to any series, if its UID is damaged, too
            left_out[f"{_kind(group[0].sop_class)} {group[0].fault}"] += [header.path for header in group]
    return sound or list(by_uid.values())


def _choose(groups: list[list[_Header]], wanted: str | int | None, folder: Path) -> list[_Header]:
    if wanted is None:
        chosen = groups
    elif wanted == "largest":
        most = max(map(_size, groups))
        chosen = [group for group in groups if _size(group) == most]
    else:
        chosen = [group for group in groups if str(wanted) in (group[0].uid, group[0].series[0])]
    if len(chosen) == 1:
        for group in groups:
            if group is not chosen[0] and group[0].series == chosen[0][0].series != ("", ""):
                _LOG.warning(
                    "%s: the series that is read and %d other files, such as %s, have the same number and description",
                    folder, len(group), group[0].path.name,
                )  # fmt: skip
        return chosen[0]
    asked = "none is chosen" if wanted is None else f"series {wanted} is chosen"
    by_size = sorted(groups, key=_size, reverse=True)
    more = f"; and {len(groups) - _LISTED} smaller ones" if len(groups) > _LISTED else ""
    raise InputError(
        f"{folder}: holds {len(groups)} series and {asked}; expected --series=NUMBER|UID|largest, one of: "
        f"{'; '.join(map(_described, by_size[:_LISTED]))}{more}"
    )


def _size(group: list[_Header]) -> int:
    """Returns the number of slices, those of enhanced files included."""
    return sum(int(_number(header.data, "NumberOfFrames") or 1) for header in group)


def _described(group: list[_Header]) -> str:
    first = group[0]
    number, description = first.series
    frames = int(_number(first.data, "NumberOfFrames") or 1)
    sizes = " x ".join(_text(first.data, name) for name in ("Columns", "Rows"))
    return (
        f"number {number or '(none)'} {description!r}, {len(group)} slice{'s' * (len(group) > 1)} of {sizes}"
        + (f" and {frames} frames" if frames > 1 else "")
        + (" (localizer)" if _is_localizer(first) else "")
        + f", UID {first.uid}"
    )


def _is_localizer(header: _Header) -> bool:
    return "LOCALIZER" in _text(header.data, "ImageType").upper()


# --- one slice ----------------------------------------------------------------------------------------------


def _slices(header: _Header) -> list[Slice]:
    """Returns the slice that a file is, or those that an enhanced one holds."""
    path, data = header.path, header.data
    with dicom_files.errors_named(path, "its header cannot be read"):
        if dicom_frames.is_enhanced(data):
            frames = dicom_frames.frames(data, path)
            return [_slice(path, frame, header.uid, index) for index, frame in enumerate(frames)]
        if (_number(data, "NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{path}: holds several frames and states no place of each, expected one slice a file, or an enhanced "
                "file; export the series again as one of these"
            )
    return [_slice(path, data, header.uid, None)]


def _slice(path: Path, data: Any, uid: str, frame: int | None) -> Slice:
    with dicom_files.errors_named(path, "its header cannot be read"):
        for name in ("Rows", "Columns"):
            if not 1 <= (_number(data, name) or 0) <= 65535:
                raise InputError(
                    f"{path}: {name} is {one_line(data.get(name))}, expected 1 to 65535; the file may be cut: copy it "
                    "again from its source, or remove it if the series is whole without it"
                )
        found = _text(data, "PhotometricInterpretation")
        if found != "MONOCHROME2":
            raise InputError(f"{path}: PhotometricInterpretation is {found}, expected MONOCHROME2")
        directions = np.array(_numbers(data, "ImageOrientationPatient", 6, path)).reshape(2, 3)
        lengths = np.linalg.norm(directions, axis=1)
        if not (np.abs(lengths - 1) < 1e-2).all():
            raise InputError(
                f"{path}: ImageOrientationPatient is {directions.tolist()}, expected two unit vectors"
            )
        rows, columns = _numbers(data, "PixelSpacing", 2, path)
        low, high = SPACING_RANGE
        if not (low <= min(rows, columns) and max(rows, columns) <= high):
            raise InputError(f"{path}: PixelSpacing is {[rows, columns]}, expected {low:g} to {high:g} mm")
        thicknesses = [_number(data, name) for name in ("SliceThickness", "SpacingBetweenSlices")]
        return Slice(
            path,
            _text(data, "StudyInstanceUID"),
            uid,
            _text(data, "Modality"),
            (int(data.get("Rows")), int(data.get("Columns"))),
            (rows, columns),
            directions / lengths[:, None],
            np.array(_numbers(data, "ImagePositionPatient", 3, path)),
            next((t for t in thicknesses if t is not None and 0 < t <= high), 0.0),
            (_scale(data, "RescaleSlope", path), _scale(data, "RescaleIntercept", path)),
            _number(data, "InstanceNumber"),
            tuple(_order(data, name) for name in ORDERS),
            frame,
        )


def _numbers(data: Any, name: str, count: int, path: Path) -> list[float]:
    value = data.get(name)
    try:
        numbers = [float(number) for number in value]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {name} is {one_line(value)}, expected {count} numbers")
    return numbers


def _scale(data: Any, name: str, path: Path) -> float | None:
    """Returns a number that may be absent, but not unreadable: without it, all intensities are others."""
    value = data.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} is {one_line(value)}, expected a number") from None


def _number(data: Any, name: str) -> float | None:
    try:
        number = float(data.get(name))
    except Exception:  # absent, empty, several, or damaged: what cannot be read is not stated
        return None
    return number if np.isfinite(number) else None


def _text(data: Any, name: str) -> str:
    try:
        value = data.get(name)
        return "" if value is None else one_line(value)
    except Exception:  # as in `_number`
        return ""


def _order(data: Any, name: str) -> float | None:
    if name.endswith("DateTime"):
        stamp = _text(data, name)
        return _moment(stamp[:8], stamp[8:])
    if name.endswith("Time") and name not in ("EchoTime", "TriggerTime"):
        *date, time = name.split("+")
        return _moment(_text(data, date[0]), _text(data, time)) if date else _seconds(_text(data, time))
    return _number(data, name)


def _moment(date: str, time: str) -> float | None:
    digits, seconds = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", date), _seconds(time)
    if digits is None or seconds is None:
        return None
    try:
        year, month, day = map(int, digits.groups())
        return datetime.date(year, month, day).toordinal() * 86400 + seconds
    except ValueError:
        return None


def _seconds(time: str) -> float | None:
    """Returns the seconds since midnight of "HHMMSS.ffffff", of which the end may be absent."""
    parts = re.match(r"(\d\d):?(?:(\d\d):?(\d\d(?:\.\d+)?)?)?", time)
    if parts is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds
