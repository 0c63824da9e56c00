"""Checked reading and writing of NIfTI-1 and NIfTI-2 files (`.nii`, `.nii.gz`).

A file is read to its end, so that its checksum shows a truncated or altered gzip stream. The sizes that a header
declares are bounded before memory is allocated. A file that cannot be used is refused in one line that names it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from liverjax import labels as label_ids
from liverjax.errors import InputError
from liverjax.files import replacing
from liverjax.scans import nifti_header
from liverjax.volume import NiftiSource, Volume, corner_distance

#: Largest distance in mm between the corners of two volumes of one geometry: above the rounding of float32 headers
#: (< 0.001 mm), below a tenth of the smallest voxel of a clinical scan (0.03 mm).
GEOMETRY_TOLERANCE_MM = 0.02
#: A floating-point intensity above this is a fill value such as 1e30, not a measurement.
LARGEST_INTENSITY = 2.0**32

_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
# Level 1 writes a mask in a third of the time of the customary 6; masks compress to a hundredth at any level.
_GZIP_LEVEL = 1
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot compress by more than 1032 to 1, whatever the data.
_DEFLATE_LIMIT = 1032
_CHUNK = 1 << 20


def read(
    path: str | os.PathLike,
    *,
    phase: int | str | None = None,
    spacing: Sequence[float] | None = None,
    max_bytes: int = 8 * 2**30,
) -> Volume:
    """Reads one volume.

    Integers without scaling keep their type; scaled data and float64 become float32. A slope of 0 means no
    scaling, as NIfTI says. Images of one or two dimensions get further axes of length 1.

    Args:
      path: a `.nii` or `.nii.gz` file.
      phase: which volume of a 4D file, from 0, or "last"; not needed where there is only one.
      spacing: voxel size in mm that replaces the header's, for files that were written without their geometry; the
        directions of the axes and the origin are kept.
      max_bytes: the largest amount of voxel data, as stored, that is accepted.

    Returns:
      A volume whose affine is the sform's if set, else the qform's, else the bare voxel sizes.

    Raises:
      InputError: the file is missing, damaged, no NIfTI, or cannot be a scan.
    """
    path = Path(path)
    with _open(path) as stream:
        header = nifti_header.read_header(stream, path)
        shape, phases = nifti_header.checked_shape(header, path)
        dtype = nifti_header.checked_dtype(header, path)
        slope, inter = nifti_header.checked_scaling(header, path)
        affine = nifti_header.checked_affine(header, shape, path, spacing)
        chosen = chosen_phase(phase, phases, path)
        offset = nifti_header.checked_offset(header, path)
        phase_bytes = math.prod(shape) * dtype.itemsize
        _check_size(offset + phase_bytes * phases, header, path, max_bytes)

        voxels = np.empty(shape, dtype, order="F")
        _skip(stream, offset - header.template_dtype.itemsize + chosen * phase_bytes, path)
        _fill(stream, voxels, path)
        _skip(stream, (phases - 1 - chosen) * phase_bytes, path)
        if stream.read(1):
            raise InputError(f"{path}: holds more data than the voxels of shape {shape} that it declares")

    return Volume(_checked_voxels(voxels, slope, inter, path), affine, NiftiSource(header), str(path))


def read_mask(path: str | os.PathLike, *, labels: Sequence[int] = range(len(label_ids.NAMES))) -> Volume:
    """Reads a label map as uint8; integral floating-point labels are accepted.

    Args:
      path: a `.nii` or `.nii.gz` file.
      labels: the values, of 0 to 255, that may occur.

    Raises:
      InputError: as `read`, or a value is not one of `labels`; the message lists the offending values.
    """
    mask = read(path)
    with np.errstate(invalid="ignore"):  # values outside 0 to 255 differ from their cast, and are found below
        whole = mask.voxels.astype(np.uint8)
    allowed = np.isin(np.arange(256), list(labels))
    wrong = (whole != mask.voxels) | ~allowed[whole]
    if wrong.any():
        values = np.unique(mask.voxels[wrong])
        shown = ", ".join(f"{v:g}" for v in values[:5]) + (", ..." if len(values) > 5 else "")
        raise InputError(f"{path}: label values {shown} in {wrong.sum()} voxels, expected {list(labels)}")
    return mask.with_voxels(whole)


def write(path: str | os.PathLike, volume: Volume, *, dtype: np.dtype | type | None = None) -> None:
    """Writes a volume, unscaled, atomically.

    The NIfTI version of `volume.source` is kept. If the affine is still that of its header, every geometry field is
    carried over unchanged, so that any reader finds exactly the affine and shape of the scan that the header came from
    (of one phase, if that was 4D). Otherwise sform and qform are set from the affine (code 1, scanner coordinates).

    Args:
      path: ends in `.nii` or `.nii.gz`.
      volume: its voxels are (x, y, z); bool becomes uint8, float16 float32.
      dtype: type on disk; the voxels' own by default.

    Raises:
      InputError: wrong suffix, or the folder cannot be written to.
      ValueError: a type that NIfTI does not have, or that cannot hold the values.
    """
    path = Path(path)
    _check_suffix(path)
    voxels = _storable(volume.voxels, dtype, volume.name)
    header = _header_for(volume, voxels.dtype)
    try:
        with replacing(path) as temporary, contextlib.ExitStack() as stack:
            stream = stack.enter_context(open(temporary, "wb"))
            if path.name.lower().endswith(".gz"):
                # No name and no time in the gzip header: equal volumes give equal bytes.
                stream = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0))
            stream.write(header.binaryblock)
            stream.write(bytes(int(header["vox_offset"]) - len(header.binaryblock)))  # no extensions
            for index in range(voxels.shape[2]):  # slice by slice: no second copy of the volume in memory
                stream.write(voxels[:, :, index].tobytes(order="F"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def require_same_geometry(a: Volume, b: Volume, tolerance_mm: float = GEOMETRY_TOLERANCE_MM) -> None:
    """Refuses two volumes whose voxels do not coincide.

    Raises:
      InputError: the shapes differ, or a corner of the one lies more than `tolerance_mm` from the other's.
    """
    if a.shape != b.shape:
        raise InputError(f"{a.name} has shape {a.shape} but {b.name} has {b.shape}; expected the same shape")
    distance = corner_distance(a.affine, b.affine, a.shape)
    if not distance <= tolerance_mm:
        here, there = (np.round(v.affine[:3], 4).tolist() for v in (a, b))
        raise InputError(
            f"{a.name} and {b.name} lie up to {distance:.3g} mm apart (affines {here} and {there}), "
            f"expected at most {tolerance_mm} mm"
        )


def chosen_phase(phase: int | str | None, phases: int, path: str | os.PathLike) -> int:
    """Returns the index of the requested phase: a number from 0, "last", or None if there is only one.

    Raises:
      InputError: there is no such phase, or there are several and none is chosen.
    """
    choices = f"expected 0 to {phases - 1} or 'last'"
    if phase is None and phases > 1:
        raise InputError(f"{path}: holds {phases} phases and none is chosen, {choices}")
    if phase in (None, "last"):
        return phases - 1
    if not (str(phase).isdecimal() and int(phase) < phases):
        raise InputError(f"{path}: holds {phases} phases and phase {phase} is chosen, {choices}")
    return int(phase)


# --- reading ------------------------------------------------------------------------------------------------


def _check_suffix(path: Path) -> None:
    name = path.name.lower()
    if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        raise InputError(f"{path}: header and voxels in two files, expected one .nii or .nii.gz file")
    if not name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: expected a name that ends in .nii or .nii.gz")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """Opens the decompressed bytes of the file; failures while they are read become an `InputError`."""
    _check_suffix(path)
    zipped = path.name.lower().endswith(".gz")
    try:
        with open(path, "rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            if not start:
                raise InputError(f"{path}: the file is empty")
            if zipped != (start == _GZIP_MAGIC):
                holds, suffix = ("plain", ".nii") if zipped else ("gzip", ".nii.gz")
                raise InputError(f"{path}: holds {holds} data, expected a name that ends in {suffix}")
            with gzip.GzipFile(fileobj=raw) if zipped else contextlib.nullcontext(raw) as stream:
                yield stream
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except EOFError:
        raise InputError(f"{path}: the gzip stream is truncated, expected a complete file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip stream is damaged ({error}), expected an intact file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_size(declared: int, header: nib.Nifti1Header, path: Path, max_bytes: int) -> None:
    what = f"{path}: its header declares {declared:.3g} bytes (dim {header['dim'].tolist()})"
    if declared > max_bytes:
        raise InputError(f"{what}, expected at most {max_bytes:.3g}")
    size = path.stat().st_size
    if declared > size * (_DEFLATE_LIMIT if path.name.lower().endswith(".gz") else 1):
        raise InputError(f"{what}, more than a file of {size} bytes can hold: it is truncated")


def _fill(stream: io.BufferedIOBase, array: np.ndarray, path: Path) -> None:
    """Reads exactly `array.nbytes` bytes into the memory of a Fortran-ordered array."""
    target = array.reshape(-1, order="F").view(np.uint8).data
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _CHUNK])
        if not count:
            raise InputError(f"{path}: ends after {done} bytes of voxels, expected {len(target)}")
        done += count


def _skip(stream: io.BufferedIOBase, count: int, path: Path) -> None:
    while count > 0:
        skipped = len(stream.read(min(count, _CHUNK)))
        if not skipped:
            raise InputError(f"{path}: ends {count} bytes before the end that its header declares")
        count -= skipped


def _checked_voxels(voxels: np.ndarray, slope: float, inter: float, path: Path) -> np.ndarray:
    """Returns the voxels in native byte order, scaled; refuses values that no scanner measures."""
    scaled = (slope, inter) != (1.0, 0.0)
    if voxels.dtype.kind in "iu" and not scaled:
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is found below
        voxels = voxels.astype(np.float32, copy=False)
        if scaled:
            voxels *= np.float32(slope)
            voxels += np.float32(inter)
        usable = max(-voxels.min(), voxels.max()) <= LARGEST_INTENSITY  # False if one voxel is NaN
    if not usable:
        wrong = ~(np.abs(voxels) <= LARGEST_INTENSITY)
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{path}: {wrong.sum()} voxels hold no intensity (the first, {first}, is {voxels[first]:g}), "
            f"expected finite numbers up to {LARGEST_INTENSITY:.2g}"
        )
    return voxels


# --- writing ------------------------------------------------------------------------------------------------


def _storable(voxels: np.ndarray, dtype: np.dtype | type | None, name: str) -> np.ndarray:
    default = {np.dtype(bool): np.dtype(np.uint8), np.dtype(np.float16): np.dtype(np.float32)}
    target = np.dtype(dtype) if dtype is not None else default.get(voxels.dtype, voxels.dtype)
    if target not in nifti_header.DTYPES:
        raise ValueError(f"{name}: NIfTI files are not written with voxels of type {target}")
    stored = voxels.astype(target, copy=False)
    if target.kind in "iu" and not np.array_equal(stored, voxels):
        raise ValueError(f"{name}: its values do not fit into {target}")
    return stored


def _header_for(volume: Volume, dtype: np.dtype) -> nib.Nifti1Header:
    source = volume.source.header if isinstance(volume.source, NiftiSource) else None
    if source is None:
        header = nib.Nifti1Header() if max(volume.shape) < 2**15 else nib.Nifti2Header()
    else:
        header = type(source)()
    header.set_data_dtype(dtype)
    header.set_data_shape(volume.shape)
    # A volume that was resampled or moved since it was read lies elsewhere than its header says.
    if source is not None and np.array_equal(nifti_header.stated_affine(source, volume.name), volume.affine):
        for field in _GEOMETRY_FIELDS:
            header[field] = source[field]
        header["pixdim"][:4] = source["pixdim"][:4]
        if source["dim"][0] < 3 and nifti_header.checked_shape(source, volume.name)[0] == volume.shape:
            header["dim"] = source["dim"]  # an image of two dimensions stays one
    else:
        header.set_xyzt_units("mm")
        header.set_sform(volume.affine, code="scanner")
        header.set_qform(volume.affine, code="scanner")
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header
