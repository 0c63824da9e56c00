"""NIfTI headers, checked field by field before any of them is used."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from liverjax.errors import InputError
from liverjax.volume import corner_distance

_LOG = logging.getLogger("liverjax")

#: Largest disagreement in mm between sform and qform that passes without a warning.
FORM_TOLERANCE_MM = 0.1
#: Largest cosine between two voxel axes (0.6 degrees): cosines rounded to two decimals pass, a tilt does not.
SHEAR_TOLERANCE = 0.01

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
        what = f"code {int(header['datatype'])}" if dtype is None else str(dtype)
        raise InputError(f"{path}: voxels of type {what}, expected integers or floats of at most 64 bits")
    return dtype


def checked_scaling(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    """Returns slope and intercept; a slope of 0 means, by the standard, that there is no scaling."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise InputError(f"{path}: scl_slope is {slope} and scl_inter {inter}, expected finite numbers")
    return slope, inter


def checked_offset(header: nib.Nifti1Header, path: Path) -> int:
    """Returns the position of the first voxel in the file."""
    offset, lowest = float(header["vox_offset"]), header.template_dtype.itemsize + 4
    if not (offset >= lowest and offset.is_integer()):
        raise InputError(f"{path}: vox_offset is {offset:g}, expected a whole number of at least {lowest}")
    return int(offset)


def checked_affine(
    header: nib.Nifti1Header, shape: tuple[int, int, int], path: Path, spacing: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the affine as `stated_affine`, after checks and warnings.

    `spacing` takes the place of the voxel sizes, if given.
    """
    affine = stated_affine(header, path)
    check_axes(affine, path)
    forms = _coded_forms(header, path)
    if len(forms) == 2:
        apart = corner_distance(forms[0], forms[1], shape)
        if not apart <= FORM_TOLERANCE_MM:
            message = "%s: sform and qform lie up to %.3g mm apart; the sform is used"
            _LOG.warning(message, path, apart, extra={"kind": "forms_disagree"})
    if spacing is not None:
        return _with_spacing(affine, spacing)
    if not forms or np.array_equal(affine, np.eye(4)):
        size = " x ".join(f"{length:g}" for length in np.linalg.norm(affine[:3, :3], axis=0))
        message = "%s: holds no geometry, taken as RAS with voxels of %s mm; state the spacing"
        _LOG.warning(message, path, size, extra={"kind": "no_geometry"})
    return affine


def stated_affine(header: nib.Nifti1Header, path: Path | str) -> np.ndarray:
    """Returns the (4, 4) float64 affine in mm that a header states: the sform, else the qform, else the voxel sizes.

    The last is NIfTI's "method 1" (x = pixdim[1] * i, ...), for headers that place the volume nowhere.
    """
    forms = _coded_forms(header, path)
    return forms[0] if forms else _in_mm(np.diag([*header["pixdim"][1:4], 1.0]), header, path)


def _coded_forms(header: nib.Nifti1Header, path: Path | str) -> list[np.ndarray]:
    """Returns sform and qform in mm, those of the two that are coded."""
    try:
        forms = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError) as error:
        raise InputError(f"{path}: its qform cannot be read ({error})") from None
    return [_in_mm(form, header, path) for form in forms if form is not None]


def check_axes(affine: np.ndarray, path: str | os.PathLike) -> None:
    """Refuses an affine whose axes are not finite, not independent, or not at right angles."""
    steps = affine[:3, :3]
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = steps / np.linalg.norm(steps, axis=0)
        independent = abs(np.linalg.det(directions)) > 1e-3
    where = np.round(affine[:3], 4).tolist()
    if not (np.isfinite(affine).all() and independent):
        raise InputError(f"{path}: affine {where}, expected three independent axes and finite numbers")
    cosine = np.abs(directions.T @ directions)[np.triu_indices(3, 1)].max()
    if cosine > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arcsin(cosine))
        raise InputError(
            f"{path}: affine {where} is sheared by {degrees:.2g} degrees, expected axes at right angles; "
            "resample it to such axes first"
        )


def _with_spacing(affine: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Returns the affine with other voxel sizes in mm; the directions and the origin are kept."""
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (3,) or not np.isfinite(sizes).all() or not sizes.min() > 0:
        raise InputError(f"spacing is {sizes.tolist()}, expected three sizes in mm above 0")
    changed = affine.copy()
    changed[:3, :3] *= sizes / np.linalg.norm(affine[:3, :3], axis=0)
    return changed


def _in_mm(affine: np.ndarray, header: nib.Nifti1Header, path: Path | str) -> np.ndarray:
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNITS_TO_MM:
        raise InputError(f"{path}: xyzt_units is {unit}, expected 1 (m), 2 (mm), 3 (um) or 0 (taken as mm)")
    return np.vstack([affine[:3] * _UNITS_TO_MM[unit], [0, 0, 0, 1]])
