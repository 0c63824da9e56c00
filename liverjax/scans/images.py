"""Scans that are in memory already, as volumes, and volumes as images of other libraries: NumPy, nibabel, SimpleITK.

An image is recognised by its methods: no library is imported for that, and SimpleITK only where an image of it is
given or wanted.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import zlib
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import nibabel as nib
import numpy as np

from liverjax.errors import InputError
from liverjax.scans import AS_STORED, Reading
from liverjax.scans.nifti import chosen_phase, header_for, storable
from liverjax.scans.nifti_header import checked_affine, in_mm
from liverjax.volume import NiftiSource, Volume, check_voxels, require_volume

#: From the patient axes of ITK and DICOM (left, posterior, superior) to those of a `Volume` (RAS+), and back.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@runtime_checkable
class NibabelImage(Protocol):
    """What an image of nibabel is recognised by."""

    dataobj: Any
    affine: Any
    header: Any


@runtime_checkable
class SimpleITKImage(Protocol):
    """What an image of SimpleITK is recognised by."""

    def GetDirection(self) -> Any: ...
    def GetOrigin(self) -> Any: ...
    def GetSpacing(self) -> Any: ...
    def GetNumberOfComponentsPerPixel(self) -> int: ...


@runtime_checkable
class Array(Protocol):
    """What NumPy takes for an array."""

    def __array__(self, *args: Any, **options: Any) -> np.ndarray: ...


#: A scan: its path, voxels with their place in the patient, or an array, whose affine is then given beside it.
Scan: TypeAlias = str | os.PathLike | Volume | NibabelImage | SimpleITKImage | Array
_EXPECTED = (
    "expected a path, a liverjax.Volume, an image of nibabel or SimpleITK, or an array and its affine: "
    "predict(voxels, affine)"
)


def as_volume(scan: Scan, affine: Any = None, reading: Reading = AS_STORED) -> Volume:
    """Returns a scan as a volume, whatever holds it.

    - A path is read. An image of nibabel is what its file would be read as: in mm, with the geometry of its header
      where that states some; float64 becomes float32.
    - An image of SimpleITK has indices (x, y, z) as a volume has them, but its arrays are (z, y, x); its axes point to
      the left, posterior and superior. With direction D, spacing s and origin o, the affine is
      ``diag(-1, -1, 1) [D diag(s) | o]``.

    Args:
      scan: a path, a volume, an image of nibabel or SimpleITK, or an array (x, y, z).
      affine: (4, 4), of an array: from voxel indices to RAS+ world coordinates in mm, as of `Volume`.
      reading: choices that files leave open; of a nibabel image the phase alone.

    Raises:
      InputError: the scan cannot be read or used, is none of these, or affine or choices are given that it has no use
        for.
    """
    if isinstance(scan, str | os.PathLike):
        _require_no_affine(affine, f"the path {os.fspath(scan)}")
        return reading.read(scan)
    if isinstance(scan, NibabelImage):
        _require_no_affine(affine, "a nibabel image")
        _require_no_choice(dataclasses.replace(reading, phase=None))
        return _of_nibabel(scan, reading.phase)
    _require_no_choice(reading)
    if isinstance(scan, Volume):
        _require_no_affine(affine, "a liverjax.Volume")
        return scan
    if isinstance(scan, SimpleITKImage):
        _require_no_affine(affine, "a SimpleITK image")
        return _of_simpleitk(scan)
    if not isinstance(scan, Array):
        raise InputError(f"a {type(scan).__name__} was given as a scan, {_EXPECTED}")
    if affine is None:
        raise InputError(
            f"an array of shape {np.shape(cast(Any, scan))} was given as a scan without its affine, {_EXPECTED}"
        )
    return _checked(Volume(cast(np.ndarray, scan), affine, name="array"))


def _require_no_affine(affine: Any, what: str) -> None:
    if affine is not None:
        raise InputError(
            f"an affine was given beside {what}, which states its own, expected one beside an array alone; leave it out"
        )


def _require_no_choice(reading: Reading) -> None:
    for name, value in vars(reading).items():
        if value is not None:
            raise InputError(
                f"reading states the {name} {value!r} of a scan that is in memory, expected none; leave it out"
            )


def _of_nibabel(image: NibabelImage, phase: int | str | None) -> Volume:
    name = getattr(image, "get_filename", lambda: None)() or "nibabel image"
    sizes = [int(size) for size in image.dataobj.shape]
    if math.prod(sizes[4:]) > 1:
        raise InputError(f"{name}: dimensions {sizes}, expected at most 4 (x, y, z, phase)")
    *shape, phases = [*sizes, 1, 1, 1, 1][:4]
    chosen = chosen_phase(phase, phases, name)
    try:
        voxels = np.asanyarray(image.dataobj[..., chosen] if phases > 1 else image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{name}: its voxels cannot be read ({' '.join(str(error).split())})") from None
    if voxels.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as no intensity
            voxels = voxels.astype(np.float32)
    source, affine = None, cast(Any, image.affine)
    if isinstance(image.header, nib.Nifti1Header):
        header: Any = image.header.copy()
        source = NiftiSource(header)
        if affine is not None and np.array_equal(affine, header.get_best_affine()):
            # Where a header places the image nowhere, nibabel has a rule of its own: the file is read by another.
            affine = checked_affine(header, (shape[0], shape[1], shape[2]), name)
        elif affine is not None:
            affine = in_mm(np.asarray(affine, np.float64), header, name)
    return _checked(Volume(voxels.reshape(shape), cast(Any, affine), source, str(name)))


def _of_simpleitk(image: SimpleITKImage) -> Volume:
    name, spacing = "SimpleITK image", np.asarray(image.GetSpacing(), np.float64)
    if spacing.size != 3:
        remedy = {2: "; SimpleITK.JoinSeries(image) has them", 4: "; choose one volume: image[:, :, :, 0]"}
        raise InputError(
            f"{name}: {spacing.size} dimensions, expected three (x, y, z){remedy.get(spacing.size, '')}"
        )
    if (components := image.GetNumberOfComponentsPerPixel()) != 1:
        raise InputError(
            f"{name}: {components} values in each voxel, expected one; choose one of them: "
            "SimpleITK.VectorIndexSelectionCast(image, 0)"
        )
    voxels = importlib.import_module("SimpleITK").GetArrayFromImage(image).transpose()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing
    lps[:3, 3] = image.GetOrigin()
    return _checked(Volume(voxels, _LPS_TO_RAS @ lps + 0.0, name=name))  # + 0.0: no zeros with a sign


def _checked(volume: Volume) -> Volume:
    check_voxels(volume)
    return volume


def to_nibabel(volume: Volume) -> nib.Nifti1Image:
    """Returns a volume as an image of nibabel, with the header that its file would have (`nifti.write`).

    Raises:
      InputError: NIfTI has no such type of voxels.
    """
    voxels = storable(require_volume(volume).voxels, None, volume.name)
    header = header_for(volume, voxels.dtype)
    # nibabel's affine is that of the header, in its unit.
    if header.get_xyzt_units()[0] not in ("mm", "unknown"):
        header = header_for(dataclasses.replace(volume, source=None), voxels.dtype)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(voxels, volume.affine, header)


def to_simpleitk(volume: Volume) -> Any:
    """Returns a volume as an image of SimpleITK, on the same voxels of the patient; bool becomes uint8.

    Raises:
      InputError: SimpleITK is not installed.
    """
    voxels = require_volume(volume).voxels
    try:
        sitk = importlib.import_module("SimpleITK")
    except ImportError:
        raise InputError(
            f"{volume.name}: the package SimpleITK is missing, of which an image is wanted; pip install SimpleITK"
        ) from None
    kind = {np.dtype(bool): np.dtype(np.uint8), np.dtype(np.float16): np.dtype(np.float32)}
    native = voxels.astype(kind.get(voxels.dtype, voxels.dtype.newbyteorder("=")), copy=False)
    image = sitk.GetImageFromArray(np.ascontiguousarray(native.transpose()))
    lps = _LPS_TO_RAS @ volume.affine
    image.SetSpacing(volume.spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / volume.spacing).ravel().tolist())
    return image
