"""DICOM series: from a folder of slices to a volume. Needs the extra `liverjax[dicom]`.

Slices are ordered by their positions along the normal of the image plane, never by name or number. A series that is
no even stack (missing slices, tilted gantry, mixed sizes) is refused, with the values that show it.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from liverjax.errors import InputError
from liverjax.scans.nifti import LARGEST_INTENSITY, chosen_phase
from liverjax.scans.nifti_header import check_axes
from liverjax.volume import DicomSource, Volume

_LOG = logging.getLogger("liverjax")

#: Largest distance of a slice from its place in an even stack, in units of the distance between slices.
POSITION_TOLERANCE = 0.05
#: Slices that are closer than this in mm show one place at several times.
SAME_PLACE_MM = 0.02
#: Largest angle in degrees between the stack and the normal of its slices.
TILT_TOLERANCE = 0.5

#: Attributes that may distinguish the phases of a dynamic series, the most explicit first.
_TIMES = (
    "TemporalPositionIdentifier", "EchoTime", "AcquisitionNumber", "TriggerTime", "AcquisitionTime",
    "ContentTime", "InstanceNumber",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slice:
    """One file of a series.

    Attributes:
      path: the file.
      study_uid: StudyInstanceUID, or "".
      series_uid: SeriesInstanceUID, or "".
      series: number and description of the series.
      shape: number of rows and columns.
      spacing: distances in mm between rows and between columns.
      directions: (2, 3) unit vectors in LPS along a row and along a column.
      position: (3,) centre of the first pixel in mm, LPS.
      thickness: of the slice in mm where stated, else the distance to the next, else 0.
      times: values of `_TIMES`, None where absent.
    """

    path: Path
    study_uid: str
    series_uid: str
    series: tuple[str, str]
    shape: tuple[int, int]
    spacing: tuple[float, float]
    directions: np.ndarray
    position: np.ndarray
    thickness: float
    times: tuple[float | None, ...]

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector in LPS along which slices are ordered."""
        return np.cross(*self.directions)

    @property
    def depth(self) -> float:
        """Position in mm along the normal."""
        return float(self.position @ self.normal)


def read_series(
    folder: str | os.PathLike,
    *,
    phase: int | str | None = None,
    series: str | int | None = None,
    max_bytes: int = 8 * 2**30,
) -> Volume:
    """Reads the DICOM series in a folder; other files in it are skipped with a warning.

    Args:
      folder: holds the slices themselves, not subfolders.
      phase: of a dynamic series, the phase from 0, or "last"; not needed where there is only one.
      series: number or UID of one of several series.
      max_bytes: the largest amount of voxel data that is accepted.

    Returns:
      (x, y, z) with x along the rows, y along the columns and z along their normal; int16 where the rescaled
      values fit, else float32. Its source is a `DicomSource`.

    Raises:
      InputError: no or several series, an incomplete or uneven stack, a tilted gantry, voxels that cannot be
        decoded, or pydicom is not installed.
    """
    folder = Path(folder)
    phases = find_phases(folder, series=series)
    index = chosen_phase(phase, len(phases), folder)
    stack = phases[index]
    affine = stack_affine(stack, folder)
    rows, columns = stack[0].shape
    declared = 4 * rows * columns * len(stack)
    if declared > max_bytes:
        raise InputError(f"{folder}: its voxels take {declared:.3g} bytes, expected at most {max_bytes:.3g}")
    voxels = np.empty((columns, rows, len(stack)), np.float32, order="F")
    for k, slice_ in enumerate(stack):
        voxels[:, :, k] = _pixels(slice_).T
    with np.errstate(invalid="ignore"):  # what is no int16 differs from its cast
        whole = voxels.astype(np.int16)
    files = tuple(slice_.path for slice_ in stack)
    source = DicomSource(stack[0].study_uid, stack[0].series_uid, files, index)
    return Volume(whole if np.array_equal(whole, voxels) else voxels, affine, source, str(folder))


def find_phases(folder: str | os.PathLike, *, series: str | int | None = None) -> list[list[Slice]]:
    """Returns the slices of a folder's series by phase, each in the order of their positions.

    Raises:
      InputError: as `read_series`, as far as the headers show it.
    """
    folder = Path(folder)
    slices = _one_series(_find_slices(folder), series, folder)
    _check_alike(slices)
    places: list[list[Slice]] = []
    for slice_ in sorted(slices, key=lambda slice_: slice_.depth):
        if places and slice_.depth - places[-1][0].depth < SAME_PLACE_MM:
            places[-1].append(slice_)
        else:
            places.append([slice_])
    usual = collections.Counter(map(len, places)).most_common(1)[0][0]
    for place in places:
        if len(place) != usual:
            raise InputError(
                f"{folder}: {len(place)} slices at {place[0].depth:.2f} mm (such as {place[0].path.name}), "
                f"expected {usual} as at most positions, one of each phase"
            )
    return [list(phase) for phase in zip(*_in_time(places), strict=True)]


def stack_affine(stack: Sequence[Slice], folder: str | os.PathLike) -> np.ndarray:
    """Returns the (4, 4) float64 affine to RAS, in mm, of slices in the order of their positions.

    Raises:
      InputError: they are no even stack.
    """
    first = stack[0]
    positions = np.array([slice_.position for slice_ in stack])
    if len(stack) > 1:
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
        _check_even(stack, positions, step, folder)
    else:
        step = first.normal * (first.thickness or 1)
        if not first.thickness:
            _LOG.warning("%s: a single slice of unstated thickness, taken as 1 mm", folder)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[1]
    affine[:3, 1] = first.directions[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine = np.diag([-1.0, -1, 1, 1]) @ affine  # LPS to RAS
    check_axes(affine, folder)
    return affine


def holds_dicom(folder: Path) -> bool:
    """Whether a folder holds DICOM files, by the magic bytes at 128."""
    for path in _files(folder):
        with open(path, "rb") as file:
            file.seek(128)
            if file.read(4) == b"DICM":
                return True
    return False


# --- headers ------------------------------------------------------------------------------------------------


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        raise InputError(
            "reading DICOM needs pydicom, which is not installed: pip install 'liverjax[dicom]'"
        ) from None
    return pydicom


def _files(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != "." and entry.is_file())


def _find_slices(folder: Path) -> list[Slice]:
    pydicom = _pydicom()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with the slices of a DICOM series")
    slices, others = [], []
    for path in _files(folder):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            others.append(path)
        except Exception as error:  # pydicom raises errors of many types on a damaged file
            raise InputError(f"{path}: cannot be read as DICOM ({_one_line(error)})") from None
        else:
            (slices.append(_slice(header, path)) if "Rows" in header else others.append(path))
    if others:
        _LOG.warning(
            "%s: %d files are no DICOM images, and not used (such as %s)", folder, len(others), others[0].name
        )
    if not slices:
        raise InputError(f"{folder}: holds no DICOM images, expected the slices of a series")
    return slices


def _slice(header, path: Path) -> Slice:
    if (_number(header.get("NumberOfFrames")) or 1) > 1:
        raise InputError(
            f"{path}: holds several frames, expected one slice a file; convert it to NIfTI first"
        )
    if header.get("PhotometricInterpretation") != "MONOCHROME2":
        found = header.get("PhotometricInterpretation")
        raise InputError(f"{path}: PhotometricInterpretation is {found}, expected MONOCHROME2")
    directions = np.array(_numbers(header, "ImageOrientationPatient", 6, path)).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if not (np.abs(lengths - 1) < 1e-2).all():
        raise InputError(
            f"{path}: ImageOrientationPatient is {directions.tolist()}, expected two unit vectors"
        )
    rows, columns = _numbers(header, "PixelSpacing", 2, path)
    return Slice(
        path,
        str(header.get("StudyInstanceUID", "")),
        str(header.get("SeriesInstanceUID", "")),
        (str(header.get("SeriesNumber", "")), str(header.get("SeriesDescription", ""))),
        (int(header.Rows), int(header.Columns)),
        (rows, columns),
        directions / lengths[:, None],
        np.array(_numbers(header, "ImagePositionPatient", 3, path)),
        _number(header.get("SliceThickness")) or _number(header.get("SpacingBetweenSlices")) or 0,
        tuple(_number(header.get(name)) for name in _TIMES),
    )


def _numbers(header, name: str, count: int, path: Path) -> list[float]:
    value = header.get(name)
    try:
        numbers = [float(number) for number in value]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {name} is {value}, expected {count} numbers")
    return numbers


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


# --- one series, its phases and its stack -------------------------------------------------------------------


def _one_series(slices: list[Slice], wanted: str | int | None, folder: Path) -> list[Slice]:
    groups = collections.defaultdict(list)
    for slice_ in slices:
        groups[slice_.series_uid].append(slice_)
    if len(groups) == len(slices) and len({slice_.series for slice_ in slices}) == 1:
        return slices  # anonymisers, as that of CHAOS, may give each file a series of its own
    listed = "; ".join(
        f"number {number} {description!r}, {len(group)} slices, UID {uid}"
        for uid, group in groups.items()
        for number, description in [group[0].series]
    )
    if wanted is None:
        chosen = list(groups.values())
    else:
        chosen = [group for uid, group in groups.items() if str(wanted) in (uid, group[0].series[0])]
    if len(chosen) != 1:
        asked = "none is chosen" if wanted is None else f"series {wanted} is chosen"
        raise InputError(f"{folder}: holds {len(groups)} series and {asked}; expected one of: {listed}")
    return chosen[0]


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for slice_ in slices[1:]:
        for name, tolerance in (("shape", 0), ("spacing", 1e-3), ("directions", 1e-3)):
            here, there = np.array(getattr(slice_, name)), np.array(getattr(first, name))
            if not (np.abs(here - there) <= tolerance).all():
                raise InputError(
                    f"{slice_.path}: {name} {here.tolist()}, expected {there.tolist()} as in "
                    f"{first.path.name} of the same series"
                )


def _in_time(places: list[list[Slice]]) -> list[list[Slice]]:
    """Sorts the slices of each place by the first of `_TIMES` that differs in all places."""
    for index in range(len(_TIMES)):
        times = [{slice_.times[index] for slice_ in place} for place in places]
        if all(
            len(values) == len(place) and None not in values
            for values, place in zip(times, places, strict=True)
        ):
            return [sorted(place, key=lambda slice_: cast(float, slice_.times[index])) for place in places]
    if len(places[0]) == 1:
        return places
    one, other, *_ = (slice_.path.name for slice_ in places[0])
    raise InputError(
        f"{places[0][0].path.parent}: {one} and {other} show the same place at the same time, expected "
        f"different values of {', '.join(_TIMES[:-1])} or {_TIMES[-1]}"
    )


def _check_even(
    stack: Sequence[Slice], positions: np.ndarray, step: np.ndarray, folder: str | os.PathLike
) -> None:
    tilt = np.degrees(np.arccos(min(step @ stack[0].normal / np.linalg.norm(step), 1)))
    if tilt > TILT_TOLERANCE:
        raise InputError(
            f"{folder}: the slices are tilted by {tilt:.2f} degrees against their stack (gantry tilt), "
            f"expected at most {TILT_TOLERANCE}; correct the tilt first, for instance with dcm2niix"
        )
    places = positions[0] + np.arange(len(stack))[:, None] * step
    if np.linalg.norm(positions - places, axis=1).max() > POSITION_TOLERANCE * np.linalg.norm(step):
        gaps = np.diff([slice_.depth for slice_ in stack])
        usual = float(np.median(gaps))
        odd = int(np.argmax(np.abs(gaps - usual)))
        one, other = stack[odd].path.name, stack[odd + 1].path.name
        raise InputError(
            f"{folder}: {one} and {other} lie {gaps[odd]:.2f} mm apart, expected {usual:.2f} mm as between "
            "most slices; one is missing or the spacing is uneven"
        )


# --- voxels -------------------------------------------------------------------------------------------------


def _pixels(slice_: Slice) -> np.ndarray:
    """Returns the rescaled (rows, columns) float32 values of a slice."""
    pydicom = _pydicom()
    pixels = importlib.import_module("pydicom.pixels")

    try:
        data = pydicom.dcmread(slice_.path)
        syntax = data.file_meta.TransferSyntaxUID
        if syntax.is_compressed and not pixels.get_decoder(syntax).is_available:
            raise InputError(
                f"{slice_.path}: compressed as {syntax.name}, for which no decoder is installed, expected "
                "plain voxels; pip install 'pylibjpeg[all]' pyjpegls"
            )
        stored = data.pixel_array
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    except InputError:
        raise
    except Exception as error:  # pydicom raises errors of many types on a damaged file
        raise InputError(f"{slice_.path}: its voxels cannot be read ({_one_line(error)})") from None
    if stored.shape != slice_.shape:
        raise InputError(f"{slice_.path}: voxels of shape {stored.shape}, expected {slice_.shape}")
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if slope == 0 or not np.abs(values).max() <= LARGEST_INTENSITY:
        raise InputError(
            f"{slice_.path}: slope {slope} and intercept {intercept} give no intensities, expected numbers"
        )
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
