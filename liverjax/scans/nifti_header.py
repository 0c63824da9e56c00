"""NIfTI headers, checked field by field before any of them is used."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from liverjax.errors import InputError
from liverjax.volume import check_axes, corner_distance

_LOG = logging.getLogger("liverjax")

#: Largest disagreement in mm between sform and qform that passes without a warning.
FORM_TOLERANCE_MM = 0.1
# Squared norms of a qform's quaternion (b, c, d). nibabel takes up to the first for 1, the rounding of float32. A half
# turn stored in few digits exceeds it, and is made a half turn again, as by NIfTI's own library; beyond the second it
# is no rotation.
_ROUNDED_QUATERNION, _LARGEST_QUATERNION = 1 + 3e-7, 1.001

#: Types of voxels that are read and written.
DTYPES = tuple(np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"))
_BYTE_ORDERS: tuple[tuple[Literal["little", "big"], str], ...] = (("little", "<"), ("big", ">"))
_UNITS_TO_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # unknown, metre, millimetre, micrometre


def read_header(stream: io.BufferedIOBase, path: Path) -> nib.Nifti1Header:
    """Reads the header of either version and byte order from the start of `stream`."""
    start = stream.read(4)
    for header_class in (nib.Nifti1Header, nib.Nifti2Header):
        size = header_class.template_dtype.itemsize
        for order, sign in _BYTE_ORDERS:
            if len(start) == 4 and int.from_bytes(start, order) == size:
                block = start + stream.read(size - 4)
                if len(block) < size:
                    raise InputError(f"{path}: ends within its header ({len(block)} of {size} bytes)")
                header = header_class(block, endianness=sign, check=False)
                _check_magic(bytes(header["magic"])[:3], path)
                return header
    raise InputError(f"{path}: no NIfTI file (starts with {start!r}, expected a header size of 348 or 540)")


def starts_header(start: bytes) -> bool:
    """Whether a file's first bytes are the size of a header, of either version and byte order."""
    sizes = {h.template_dtype.itemsize for h in (nib.Nifti1Header, nib.Nifti2Header)}
    return any(int.from_bytes(start[:4], order) in sizes for order, _ in _BYTE_ORDERS)


def _check_magic(magic: bytes, path: Path) -> None:
    if magic in (b"ni1", b"ni2"):
        raise InputError(f"{path}: is the header of a file pair, expected header and voxels in one file")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: no NIfTI file (magic {magic!r}, expected b'n+1' or b'n+2')")


def checked_shape(header: nib.Nifti1Header, path: Path | str) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of one volume and the number of volumes."""
    dim = [int(d) for d in header["dim"]]  # Python integers: products of hostile sizes must not overflow
    if not 1 <= dim[0] <= 7:
        raise InputError(f"{path}: dim[0] is {dim[0]}, expected 1 to 7 dimensions")
    sizes = dim[1 : 1 + dim[0]]
    if min(sizes) < 1:
        raise InputError(f"{path}: dimensions {sizes}, expected only positive sizes")
    if math.prod(sizes[4:]) > 1:
        raise InputError(f"{path}: dimensions {sizes}, expected at most 4 (x, y, z, phase)")
    x, y, z, phases = [*sizes, 1, 1, 1][:4]
    return (x, y, z), phases


def checked_dtype(header: nib.Nifti1Header, path: Path) -> np.dtype:
    """Returns the type of the voxels as stored, byte order included."""
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = None
    if dtype is None or dtype.newbyteorder("=") not in DTYPES:
        code = int(header["datatype"])
        # NumPy has no words for some of these, and none for float128 on many machines.
        what = "1 bit" if code == 1 else data_type_codes.label.get(code, f"code {code}")
        raise InputError(f"{path}: voxels of type {what}, expected integers or floats of at most 64 bits")
    return dtype


def checked_scaling(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    """Returns slope and intercept; a slope of 0 means, by the standard, that there is no scaling.

    So does one that is not finite, to NIfTI's own library, ITK and nibabel.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise InputError(f"{path}: scl_slope is {slope} and scl_inter {inter}, expected finite numbers")
    return slope, inter


def checked_offset(header: nib.Nifti1Header, path: Path) -> int:
    """Returns the position of the first voxel in the file."""
    offset, lowest = float(header["vox_offset"]), header.template_dtype.itemsize + 4
    if not (offset >= lowest and offset.is_integer()):
        raise InputError(f"{path}: vox_offset is {offset:.9g}, expected a whole number of at least {lowest}")
    return int(offset)


def checked_affine(
    header: nib.Nifti1Header,
    shape: tuple[int, int, int],
    path: Path | str,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Returns the affine as `stated_affine`, after checks and warnings.

    `spacing` takes the place of the voxel sizes, if given.
    """
    affine = stated_affine(header, path)
    sform, qform, fault = _forms(header, path)
    check_axes(affine, path)
    if sform is not None and fault:
        message = "%s: its qform cannot be read (%s); the sform is used"
        _LOG.warning(message, path, fault, extra={"kind": "forms_disagree"})
    elif sform is not None and qform is not None:
        apart = corner_distance(sform, qform, shape)
        if not apart <= FORM_TOLERANCE_MM:
            message = "%s: sform and qform lie up to %.3g mm apart; the sform is used"
            _LOG.warning(message, path, apart, extra={"kind": "forms_disagree"})
    if spacing is not None:
        return _with_spacing(affine, spacing, path)
    if (sform is None and qform is None) or np.array_equal(affine, np.eye(4)):
        size = " x ".join(f"{length:g}" for length in np.linalg.norm(affine[:3, :3], axis=0))
        axes = "".join(str(letter) for letter in nib.orientations.aff2axcodes(affine))
        message = "%s: holds no geometry, taken as %s with voxels of %s mm; state the spacing"
        _LOG.warning(message, path, axes, size, extra={"kind": "no_geometry"})
    return affine


def stated_affine(header: nib.Nifti1Header, path: Path | str) -> np.ndarray:
    """Returns the (4, 4) float64 affine in mm that a header states: the sform, else the qform, else the voxel sizes.

    The last is NIfTI's "method 1" (x = pixdim[1] * i, ...), for headers that place the volume nowhere.

    Raises:
      InputError: the unit is unknown; or the qform, where only that is coded, cannot be read.
    """
    sform, qform, fault = _forms(header, path)
    if sform is not None:
        return sform
    if fault:
        raise InputError(f"{path}: its qform cannot be read ({fault})")
    return in_mm(np.diag([*header["pixdim"][1:4], 1.0]), header, path) if qform is None else qform


def _forms(header: nib.Nifti1Header, path: Path | str) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Returns sform and qform in mm, None where not coded, and what keeps the qform from being read."""
    sform, qform, fault = header.get_sform(coded=True)[0], None, ""
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what is not finite is found below, or by `check_axes`
        try:
            qform = _sound_qform(header).get_qform(coded=True)[0]
        except (ValueError, HeaderDataError) as error:
            fault = str(error)
        sform, qform = (None if form is None else in_mm(form, header, path) for form in (sform, qform))
    if qform is not None and not np.isfinite(qform).all():
        fault = "its numbers are not finite"
    return sform, qform, fault


def _sound_qform(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Returns the header with what NIfTI's own library reads as a qform, and nibabel refuses, put as nibabel reads it.

    The sign of pixdim[0] is the handedness, 0 counts as positive; voxel sizes count without their sign.
    """
    quaternion = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    sound = header.copy()
    sound["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    sound["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if _ROUNDED_QUATERNION < (squared := quaternion @ quaternion) <= _LARGEST_QUATERNION:
        for axis, value in zip("bcd", quaternion / np.sqrt(squared), strict=True):
            sound[f"quatern_{axis}"] = value
    return sound


def _with_spacing(affine: np.ndarray, spacing: Sequence[float], path: Path | str) -> np.ndarray:
    """Returns the affine with other voxel sizes in mm; the directions and the origin are kept."""
    try:
        sizes = np.asarray(spacing, dtype=np.float64)
    except (TypeError, ValueError):
        sizes = np.empty(0)
    if sizes.shape != (3,) or not np.isfinite(sizes).all() or not sizes.min() > 0:
        raise InputError(f"{path}: spacing is {spacing}, expected three sizes in mm above 0")
    changed = affine.copy()
    changed[:3, :3] *= sizes / np.linalg.norm(affine[:3, :3], axis=0)
    check_axes(changed, path)
    return changed


def in_mm(affine: np.ndarray, header: nib.Nifti1Header, path: Path | str) -> np.ndarray:
    """Returns an affine that is in the unit of a header in mm.

    Raises:
      InputError: the unit is unknown.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNITS_TO_MM:
        raise InputError(f"{path}: xyzt_units is {unit}, expected 1 (m), 2 (mm), 3 (um) or 0 (taken as mm)")
    return np.vstack([affine[:3] * _UNITS_TO_MM[unit], [0, 0, 0, 1]])
