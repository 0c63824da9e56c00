"""DICOM series: from a folder of slices to a volume. Needs the extra `liverjax[dicom]`.

Slices are ordered by their positions along the normal of the image plane, never by name or number. A series that is
no even stack (missing slices, tilted gantry, mixed sizes) is refused, with the values that show it.
"""

from __future__ import annotations

import collections
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liverjax.errors import InputError
from liverjax.scans import dicom_files
from liverjax.scans.dicom_files import find_folders
from liverjax.scans.dicom_headers import ORDERS, Slice, read_slices
from liverjax.scans.nifti import LARGEST_INTENSITY, chosen_phase
from liverjax.scans.nifti_header import check_axes
from liverjax.volume import DicomSource, Volume

__all__ = ["find_folders", "find_phases", "read_series", "stack_affine"]

_LOG = logging.getLogger("liverjax")

#: Largest distance of a slice from its place in an even stack, in units of the distance between slices.
POSITION_TOLERANCE = 0.05
#: Slices that are closer than this in mm show one place at several times.
SAME_PLACE_MM = 0.02
#: Largest angle in degrees between the stack and the normal of its slices.
TILT_TOLERANCE = 0.5
#: By how much the time between two phases may differ among the places, as a part of that time.
GAP_TOLERANCE = 0.1
#: What padding of a CT is read as, in HU: air, at the lower end of the scanners' scale.
CT_PADDING_HU = -1024

_RLE, _RLE_RATIO = "1.2.840.10008.1.2.5", 64  # two bytes give at most 128


def read_series(
    folder: str | os.PathLike,
    *,
    phase: int | str | None = None,
    series: str | int | None = None,
    max_bytes: int = 8 * 2**30,
) -> Volume:
    """Reads the DICOM series in a folder; other files in it are skipped with a warning.

    Padding (PixelPaddingValue, PixelPaddingRangeLimit) is read as air: -1024 HU in CT, else the lowest value of the
    other pixels. Padding that lies between the values of the other pixels is kept as stored, with a notice.

    Args:
      folder: holds the slices themselves, not subfolders; see `find_folders`.
      phase: of a dynamic series, the phase from 0, or "last"; not needed where there is only one.
      series: of several series, the number or UID of one, or "largest": the one of the most slices.
      max_bytes: the largest amount of voxel data that is accepted.

    Returns:
      (x, y, z) with x along the rows, y along the columns and z along their normal; int16 where the rescaled
      values fit, else float32. Its source is a `DicomSource`.

    Raises:
      InputError: no or several series, an incomplete or uneven stack, a tilted gantry, a damaged file, rescaling
        stated in a part of the slices only, voxels that cannot be decoded, or pydicom is not installed.
    """
    folder = Path(folder)
    phases = find_phases(folder, series=series)
    index = chosen_phase(phase, len(phases), folder)
    stack = phases[index]
    affine = stack_affine(stack, folder)
    _check_rescale(stack, folder)
    rows, columns = stack[0].shape
    declared = 4 * rows * columns * len(stack)
    if declared > max_bytes:
        raise InputError(f"{folder}: its voxels take {declared:.3g} bytes, expected at most {max_bytes:.3g}")
    try:
        voxels = _voxels(stack, folder)
    except MemoryError as error:
        raise InputError(
            f"{folder}: its voxels take {declared:.3g} bytes, and as many again while they are read; expected as much "
            "free memory"
        ) from error
    files = tuple(slice_.path for slice_ in stack)
    source = DicomSource(stack[0].study_uid, stack[0].series_uid, files, index)
    return Volume(voxels, affine, source, str(folder))


def find_phases(folder: str | os.PathLike, *, series: str | int | None = None) -> list[list[Slice]]:
    """Returns the slices of a folder's series by phase, each in the order of their positions.

    Raises:
      InputError: as `read_series`, as far as the headers show it.
    """
    folder = Path(folder)
    slices = read_slices(folder, series)
    _check_alike(slices)
    _check_numbers(slices, folder)
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
                f"{folder}: {len(place)} slices at {place[0].depth:.2f} mm (such as {place[0].name}), "
                f"expected {usual} as at most positions, one of each phase"
            )
    return [list(phase) for phase in zip(*_in_time(places, folder), strict=True)]


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


# --- one series, its phases and its stack -------------------------------------------------------------------


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for slice_ in slices[1:]:
        for name, tolerance in (("shape", 0), ("spacing", 1e-3), ("directions", 1e-3)):
            here, there = np.array(getattr(slice_, name)), np.array(getattr(first, name))
            if not (np.abs(here - there) <= tolerance).all():
                raise InputError(
                    f"{slice_.path}: {name} {here.tolist()}, expected {there.tolist()} as in "
                    f"{first.name} of the same series"
                )


def _check_numbers(slices: Sequence[Slice], folder: Path) -> None:
    """Warns if the first InstanceNumber leaves room for slices before it: a lost end of a stack cannot be seen."""
    numbers = sorted({slice_.number for slice_ in slices if slice_.number is not None})
    if len(numbers) > 1 and numbers[0] > max(1.0, float(np.median(np.diff(numbers)))):
        _LOG.warning(
            "%s: the first InstanceNumber is %g, expected 1; slices may be missing at an end of the stack",
            folder, numbers[0],
        )  # fmt: skip


def _check_rescale(stack: Sequence[Slice], folder: Path) -> None:
    for k, name in enumerate(("RescaleSlope", "RescaleIntercept")):
        stated = [slice_.name for slice_ in stack if slice_.rescale[k] is not None]
        absent = [slice_.name for slice_ in stack if slice_.rescale[k] is None]
        if stated and absent:
            raise InputError(
                f"{folder}: {absent[0]} ({len(absent)} of {len(stack)} slices) states no {name}, but {stated[0]} does; "
                "expected it in all slices or in none"
            )
    if stack[0].modality != "CT":
        return
    if stack[0].rescale == (None, None):
        _LOG.warning("%s: a CT without RescaleSlope and RescaleIntercept, its values are taken as HU", folder)
    usual, count = collections.Counter(slice_.rescale for slice_ in stack).most_common(1)[0]
    if count < len(stack):
        odd = next(slice_ for slice_ in stack if slice_.rescale != usual)
        _LOG.warning(
            "%s: %s states slope and intercept %s, but %d of %d slices %s",
            folder, odd.name, odd.rescale, count, len(stack), usual,
        )  # fmt: skip


def _in_time(places: list[list[Slice]], folder: Path) -> list[list[Slice]]:
    """Sorts the slices of each place by the first of `ORDERS` that orders all places alike."""
    if len(places[0]) == 1:
        return places
    found: dict[str, list[list[Slice]]] = {}
    for index, name in enumerate(ORDERS):
        ordered = _ordered(places, index, clock=name.endswith("Time") and "Date" not in name)
        if ordered:
            found[name] = ordered
    if not found:
        one, other, *_ = (slice_.name for slice_ in places[0])
        raise InputError(
            f"{folder}: {one} and {other} show the same place at the same time, expected an attribute that tells the "
            f"phases of all places apart ({', '.join(ORDERS)}); remove the copies, or give each phase a folder"
        )
    first, *others = (
        (name, {frozenset(map(id, phase)) for phase in zip(*ordered, strict=True)})
        for name, ordered in found.items()
    )
    for name, phases in others:
        if phases != first[1]:
            _LOG.warning(
                "%s: %s assigns the slices to other phases than %s, which is used", folder, name, first[0]
            )
    return found[first[0]]


def _ordered(places: list[list[Slice]], index: int, clock: bool) -> list[list[Slice]] | None:
    """Returns the slices of each place by one attribute, or None if it does not order all places alike.

    It does if every phase ends before the next begins, or if the phases are equally far apart at all places.

    Args:
      places: the slices at each position.
      index: of the attribute in `ORDERS`.
      clock: a time of day without a date: a series that spans more than half a day passes midnight.
    """
    values = [[slice_.times[index] for slice_ in place] for place in places]
    if any(None in row or len(set(row)) < len(row) for row in values):
        return None
    times = np.array(values, dtype=float)  # place, phase
    if clock and np.ptp(times) > 43200:
        times[times < 43200] += 86400
    order = np.argsort(times, axis=1)
    times = np.take_along_axis(times, order, axis=1)
    gaps = np.diff(times, axis=1)
    one_after_another = (times[:, :-1].max(axis=0) < times[:, 1:].min(axis=0)).all()
    if not (one_after_another or (np.ptp(gaps, axis=0) <= GAP_TOLERANCE * gaps.min(axis=0)).all()):
        return None
    return [[place[k] for k in row] for place, row in zip(places, order.tolist(), strict=True)]


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
        one, other = stack[odd].name, stack[odd + 1].name
        raise InputError(
            f"{folder}: {one} and {other} lie {gaps[odd]:.2f} mm apart, expected {usual:.2f} mm as between "
            "most slices; one is missing or the spacing is uneven"
        )


# --- voxels -------------------------------------------------------------------------------------------------


def _voxels(stack: Sequence[Slice], folder: Path) -> np.ndarray:
    """Returns the rescaled voxels (x, y, z), int16 where they fit, else float32."""
    rows, columns = stack[0].shape
    voxels = np.empty((columns, rows, len(stack)), np.float32, order="F")
    padding: dict[int, np.ndarray] = {}
    data = None
    for k, slice_ in enumerate(stack):
        if k == 0 or slice_.path != stack[k - 1].path:
            data = None  # Two of them may not fit into memory.
            data = dicom_files.read(slice_.path, voxels=True)
        values, padded = _pixels(slice_, data)
        voxels[:, :, k] = values.T
        if padded is not None and padded.any():
            padding[k] = padded.T
    if padding:
        _fill(voxels, padding, CT_PADDING_HU if stack[0].modality == "CT" else None, folder)
    for k, slice_ in enumerate(stack):
        if not np.abs(voxels[:, :, k]).max() <= LARGEST_INTENSITY:
            slope, intercept = slice_.rescale
            raise InputError(
                f"{slice_.path}: slope {slope} and intercept {intercept} give no intensities, expected numbers"
            )
    with np.errstate(invalid="ignore"):  # what is no int16 differs from its cast
        whole = voxels.astype(np.int16)
    return whole if np.array_equal(whole, voxels) else voxels


def _fill(voxels: np.ndarray, padding: dict[int, np.ndarray], air: float | None, folder: Path) -> None:
    """Sets padding to `air`, or to the lowest other value, where it lies outside the range of the other values."""
    low, high = np.inf, -np.inf
    for k in range(voxels.shape[2]):
        others = ~padding[k] if k in padding else True
        low = min(low, voxels[:, :, k].min(where=others, initial=np.inf))
        high = max(high, voxels[:, :, k].max(where=others, initial=-np.inf))
    if low > high:
        return  # nothing but padding
    kept = 0
    for k, padded in padding.items():
        values = voxels[:, :, k]
        outside = padded & ((values < low) | (values > high))
        values[outside] = low if air is None else air
        kept += int(np.count_nonzero(padded & ~outside))
    if kept:
        _LOG.warning(
            "%s: %d pixels of the PixelPaddingValue lie within the range of the others, %g to %g, and are kept",
            folder, kept, low, high,
        )  # fmt: skip


def _pixels(slice_: Slice, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the rescaled (rows, columns) float32 values of a slice, and which are padding, if it states any.

    ``data`` is the data set of its file.
    """
    pixels = importlib.import_module("pydicom.pixels")
    path = slice_.path
    with dicom_files.errors_named(path, "its voxels cannot be read"):
        syntax = _syntax(data)
        if syntax.is_compressed and not pixels.get_decoder(syntax).is_available:
            raise InputError(
                f"{path}: compressed as {syntax.name}, for which no decoder is installed, expected "
                "plain voxels; pip install 'pylibjpeg[all]' pyjpegls"
            )
        expected = slice_.shape[0] * slice_.shape[1] * int(data.BitsAllocated) // 8
        if syntax == _RLE and expected > _RLE_RATIO * path.stat().st_size:
            raise InputError(
                f"{path}: its header declares {expected} bytes of voxels, more than the file can hold"
            )
        stored = pixels.pixel_array(data, index=slice_.frame)
        padded = _padding(data, pixels, slice_.frame)
        if data.get("ModalityLUTSequence"):
            stored = pixels.apply_modality_lut(stored, data)
    if stored.shape != slice_.shape:
        raise InputError(f"{path}: voxels of shape {stored.shape}, expected {slice_.shape}")
    slope, intercept = (
        default if value is None else value for value, default in zip(slice_.rescale, (1, 0), strict=True)
    )
    if slope == 0:
        raise InputError(
            f"{path}: slope {slope} and intercept {intercept} give no intensities, expected numbers"
        )
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), padded


def _syntax(data: Any) -> Any:
    """Returns the transfer syntax; a file without preamble states none, pydicom finds it out."""
    if "TransferSyntaxUID" not in data.file_meta:
        uid = importlib.import_module("pydicom.uid")
        implicit, little = data.original_encoding
        plain = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else plain
    return data.file_meta.TransferSyntaxUID


def _padding(data: Any, pixels: Any, frame: int | None) -> np.ndarray | None:
    """Returns where pixels are padding, as stored: pydicom cuts off bits that only padding uses.

    The values are compared in the pixels' own type: files state the padding of signed pixels as unsigned, too.
    """
    limits = [data.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(limits[0], int):
        return None
    raw = pixels.pixel_array(data, index=frame, correct_unused_bits=False)
    if raw.dtype.kind not in "iu":
        return None
    low, high = sorted(
        int(np.array(limit % 2 ** (8 * raw.itemsize), np.uint64).astype(raw.dtype))
        for limit in (limits[0], limits[1] if isinstance(limits[1], int) else limits[0])
    )
    return (raw >= low) & (raw <= high)
