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
import stat
import typing
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension

from liverjax import labels as label_ids
from liverjax.errors import InputError
from liverjax.files import replacing
from liverjax.scans import nifti_header
from liverjax.volume import LARGEST_INTENSITY as LARGEST_INTENSITY
from liverjax.volume import NiftiSource, Volume, check_voxels, corner_distance, label_voxels, require_volume

#: Largest distance in mm between the corners of two volumes of one geometry: above the rounding of float32 headers
#: (< 0.001 mm), below a tenth of the smallest voxel of a clinical scan (0.03 mm).
GEOMETRY_TOLERANCE_MM = 0.02

_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
# Level 1 writes a mask in a third of the time of the customary 6; masks compress to a hundredth at any level.
_GZIP_LEVEL = 1
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot compress by more than 1032 to 1, whatever the data.
_DEFLATE_LIMIT = 1032
# Bytes that are skipped at once, and voxels that are read and converted at once.
_CHUNK = 1 << 20
_CHUNK_VOXELS = 1 << 18
_SPECIAL_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(
    path: str | os.PathLike,
    *,
    phase: int | str | None = None,
    spacing: Sequence[float] | None = None,
    max_bytes: int = 8 * 2**30,
) -> Volume:
    """Reads one volume.

    Integers without scaling keep their type; scaled data and float64 become float32, as they are read: no more memory
    is taken than for the voxels that are returned, and some MB. A slope of 0, or one that is not finite, means no
    scaling. Images of one or two dimensions get further axes of length 1.

    Args:
      path: a `.nii` or `.nii.gz` file.
      phase: which volume of a 4D file, from 0, or "last"; not needed where there is only one.
      spacing: voxel size in mm that replaces the header's, for files that were written without their geometry; the
        directions of the axes and the origin are kept.
      max_bytes: the largest amount of voxel data that is accepted: of all phases as stored, and of the one that is
        read in memory.

    Returns:
      A volume whose affine is the sform's if set, else the qform's, else the bare voxel sizes.

    Raises:
      InputError: the file is missing, damaged, no NIfTI, or cannot be a scan; or memory is short.
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
        in_memory = dtype.newbyteorder("=") if _is_plain(dtype, slope, inter) else np.dtype(np.float32)
        taken = math.prod(shape) * in_memory.itemsize
        _check_size(offset + phase_bytes * phases, taken, header, path, max_bytes)

        _skip(stream, offset - header.template_dtype.itemsize + chosen * phase_bytes, path)
        try:
            voxels = np.empty(shape, in_memory, order="F")
        except MemoryError as error:
            raise InputError(f"{path}: its voxels take {taken} bytes, more memory than there is") from error
        _read_voxels(stream, voxels, dtype, slope, inter, path)
        _skip(stream, (phases - 1 - chosen) * phase_bytes, path)
        if stream.read(1):
            raise InputError(f"{path}: holds more data than the voxels of shape {shape} that it declares")

    volume = Volume(voxels, affine, NiftiSource(header), str(path))
    check_voxels(volume)
    return volume


def read_mask(path: str | os.PathLike, *, labels: Sequence[int] = range(len(label_ids.NAMES))) -> Volume:
    """Reads a label map as uint8. Labels that scaling or arithmetic has rounded are the integers next to them.

    Args:
      path: a `.nii` or `.nii.gz` file.
      labels: the values, of 0 to 255, that may occur.

    Raises:
      InputError: as `read`, or a value is not one of `labels`; the message lists the offending values.
    """
    mask = read(path)
    try:
        return mask.with_voxels(label_voxels(mask, labels))
    except MemoryError as error:
        raise InputError(
            f"{path}: its labels take {mask.voxels.size} bytes, more memory than there is"
        ) from error


def write(
    path: str | os.PathLike,
    volume: Volume,
    *,
    dtype: np.dtype | type | None = None,
    extension: Nifti1Extension | None = None,
) -> None:
    """Writes a volume, unscaled, atomically.

    The NIfTI version of `volume.source` is kept. If the affine is still that of its header, every geometry field is
    carried over unchanged, so that any reader finds exactly the affine and shape of the scan that the header came from
    (of one phase, if that was 4D). Otherwise sform and qform are set from the affine (code 1, scanner coordinates).

    Args:
      path: ends in `.nii` or `.nii.gz`.
      volume: its voxels are (x, y, z); bool becomes uint8, float16 float32.
      dtype: type on disk; the voxels' own by default.
      extension: of the header, such as the names of labels.

    Raises:
      InputError: wrong suffix, the folder cannot be written to, voxels that are no intensities, or a type that NIfTI
        does not have or that cannot hold them.
    """
    path = Path(path)
    _check_suffix(path)
    check_voxels(volume)
    voxels = storable(volume.voxels, dtype, volume.name)
    header = header_for(volume, voxels.dtype)
    if extension is not None:
        header["vox_offset"] = header.single_vox_offset + extension.get_sizeondisk()
    try:
        with replacing(path) as temporary, contextlib.ExitStack() as stack:
            stream = stack.enter_context(open(temporary, "wb"))
            if path.name.lower().endswith(".gz"):
                # No name and no time in the gzip header: equal volumes give equal bytes.
                stream = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0))
            stream.write(header.binaryblock)
            stream.write(bytes([extension is not None, 0, 0, 0]))
            if extension is not None:
                extension.write_to(typing.cast(BinaryIO, stream), byteswap=False)
            for index in range(voxels.shape[2]):  # slice by slice: no second copy of the volume in memory
                stream.write(voxels[:, :, index].tobytes(order="F"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def require_same_geometry(a: Volume, b: Volume, tolerance_mm: float = GEOMETRY_TOLERANCE_MM) -> None:
    """Refuses two volumes whose voxels do not coincide.

    Raises:
      InputError: the shapes differ, or a corner of the one lies more than `tolerance_mm` from the other's.
    """
    a, b = require_volume(a), require_volume(b)
    if a.shape != b.shape:
        raise InputError(f"{a.name} has shape {a.shape} but {b.name} has {b.shape}; expected the same shape")
    distance = corner_distance(a.affine, b.affine, a.shape)
    if not distance <= tolerance_mm:
        here, there = (np.round(v.affine[:3], 4).tolist() for v in (a, b))
        shown = f"{distance:.3g}"
        shown = shown if float(shown) > tolerance_mm else repr(distance)
        raise InputError(
            f"{a.name} and {b.name} lie up to {shown} mm apart (affines {here} and {there}), "
            f"expected at most {tolerance_mm} mm"
        )


def chosen_phase(phase: int | str | None, phases: int, path: str | os.PathLike) -> int:
    """Returns the index of the requested phase: a number from 0, "last", or None if there is only one.

    Raises:
      InputError: there is no such phase, or there are several and none is chosen.
    """
    choices = f"expected 0 to {phases - 1} or 'last'; choose with --phase, or phase in cases.json"
    if phase is None and phases > 1:
        raise InputError(f"{path}: holds {phases} phases and none is chosen, {choices}")
    if phase in (None, "last"):
        return phases - 1
    stated = str(phase)
    # Python refuses to convert numbers of thousands of digits.
    if not (stated.isdecimal() and len(stated) < 20 and int(stated) < phases):
        raise InputError(f"{path}: holds {phases} phases and phase {stated[:20]} is chosen, {choices}")
    return int(stated)


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
        # Before it is opened: to open a named pipe is to wait for its writer.
        _check_kind(path)
        with open(path, "rb") as raw:
            _check_start(raw.read(64), zipped, path)
            raw.seek(0)
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


def _check_kind(path: Path) -> None:
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except ValueError as error:
        raise InputError(f"{os.fspath(path)!r}: is no file name ({error})") from None
    if kind != stat.S_IFREG:
        raise InputError(f"{path}: is {_SPECIAL_FILES.get(kind, 'no file')}, expected a regular file")


def _check_start(start: bytes, zipped: bool, path: Path) -> None:
    """Refuses a file that is no NIfTI file, or not compressed as its name says, by its first bytes."""
    if not start:
        raise InputError(f"{path}: the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{path}: is a git-lfs pointer, expected the file that it stands for; git lfs pull fetches it"
        )
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path}: is a page of HTML or XML, expected a NIfTI file; download it again")
    if zipped == start.startswith(_GZIP_MAGIC):
        return
    if not zipped:
        raise InputError(f"{path}: holds gzip data, expected a name that ends in .nii.gz")
    if nifti_header.starts_header(start):
        raise InputError(f"{path}: holds plain data, expected a name that ends in .nii")
    raise InputError(f"{path}: no NIfTI file (starts with {start[:4]!r}, expected gzip data)")


def _is_plain(dtype: np.dtype, slope: float, inter: float) -> bool:
    """Whether the voxels are what is stored: integers without scaling."""
    return dtype.kind in "iu" and (slope, inter) == (1.0, 0.0)


def _check_size(declared: int, taken: int, header: nib.Nifti1Header, path: Path, max_bytes: int) -> None:
    what = f"{path}: its header declares {declared} bytes (dim {header['dim'].tolist()})"
    if declared > max_bytes:
        raise InputError(f"{what}, expected at most {max_bytes}")
    if taken > max_bytes:
        raise InputError(f"{what}, whose voxels take {taken} bytes in memory, expected at most {max_bytes}")
    size = path.stat().st_size
    if declared > size * (_DEFLATE_LIMIT if path.name.lower().endswith(".gz") else 1):
        raise InputError(f"{what}, more than a file of {size} bytes can hold: it is truncated")


def _read_voxels(
    stream: io.BufferedIOBase, voxels: np.ndarray, stored: np.dtype, slope: float, inter: float, path: Path
) -> None:
    """Reads exactly the voxels of a Fortran-ordered array, which are stored as another type, piece by piece."""
    values = voxels.reshape(-1, order="F")
    for start in range(0, values.size, _CHUNK_VOXELS):
        piece = values[start : start + _CHUNK_VOXELS]
        raw = piece if stored == piece.dtype else np.empty(piece.size, stored)
        target = raw.view(np.uint8).data
        done = 0
        while done < len(target):
            count = stream.readinto(target[done:])
            if not count:
                before, expected = start * stored.itemsize, values.size * stored.itemsize
                raise InputError(f"{path}: ends after {before + done} bytes of voxels, expected {expected}")
            done += count
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is found by `check_voxels`
            if raw is not piece:
                piece[:] = raw
            if (slope, inter) != (1.0, 0.0):
                piece *= np.float32(slope)
                piece += np.float32(inter)


def _skip(stream: io.BufferedIOBase, count: int, path: Path) -> None:
    while count > 0:
        skipped = len(stream.read(min(count, _CHUNK)))
        if not skipped:
            raise InputError(f"{path}: ends {count} bytes before the end that its header declares")
        count -= skipped


# --- writing ------------------------------------------------------------------------------------------------


def storable(voxels: np.ndarray, dtype: np.dtype | type | None, name: str) -> np.ndarray:
    """Returns voxels in a type on disk, by default their own; raises `InputError` as `write`."""
    default = {np.dtype(bool): np.dtype(np.uint8), np.dtype(np.float16): np.dtype(np.float32)}
    target = np.dtype(dtype) if dtype is not None else default.get(voxels.dtype, voxels.dtype)
    target = target.newbyteorder("=")
    if target not in nifti_header.DTYPES:
        raise InputError(f"{name}: NIfTI files are not written with voxels of type {target}")
    with np.errstate(invalid="ignore", over="ignore"):  # what does not fit differs from its cast
        stored = voxels.astype(target, copy=False)
    if target.kind in "iu" and not np.array_equal(stored, voxels):
        raise InputError(f"{name}: its values do not fit into {target}")
    return stored


def header_for(volume: Volume, dtype: np.dtype) -> nib.Nifti1Header:
    """Returns the header that `write` gives a volume with voxels of a type."""
    source = volume.source.header if isinstance(volume.source, NiftiSource) else None
    if max(volume.shape) >= 2**15:
        header = nib.Nifti2Header()
    else:
        header = nib.Nifti1Header() if source is None else type(source)()
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
