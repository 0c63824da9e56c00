"""A scan or mask in memory: voxels, the affine that places them in the patient, and the files they come from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from liverjax.errors import InputError
from liverjax.labels import NAMES, REGIONS

#: A value above this is a fill value such as 1e30, or an overflow, and not a measurement.
LARGEST_INTENSITY = 2.0**32
#: Largest cosine between two voxel axes (0.6 degrees): cosines rounded to two decimals pass, a tilt does not.
SHEAR_TOLERANCE = 0.01
#: Largest distance of a label from a whole number: above what the slope of a scaled mask or arithmetic in float32
#: leaves (2e-5 at 255), below any share of a class that somebody would store.
LABEL_TOLERANCE = 1e-3

# Voxels that are counted at once.
_PIECE = 2**20
# Sizes of voxels in mm that an affine can be computed with: a nanometre to a kilometre. What a scan of a patient can
# have is another matter, see `liverjax.scans.grid`.
_SIZES = (1e-6, 1e6)
# The farthest origin, in mm: there float64 still resolves a tenth of a nanometre.
_FARTHEST = 1e9


@dataclasses.dataclass(frozen=True)
class NiftiSource:
    """The header that a volume was read with, so that its mask is written with the same geometry fields."""

    header: nib.Nifti1Header


@dataclasses.dataclass(frozen=True)
class DicomSource:
    """The DICOM series that a volume was read from, so that a segmentation of it can refer to its instances.

    Attributes:
      study_uid: StudyInstanceUID, "" where the files state none.
      series_uid: SeriesInstanceUID, of the first slice where an anonymiser gave each file one of its own.
      files: the instance of each slice, in the order of the third voxel axis.
      phase: index of the phase in a dynamic series, 0 if there is only one.
    """

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    phase: int


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels with their geometry. What cannot be a volume is refused when it is made.

    Whether the values are intensities is only asked by what computes with them or writes them (`check_voxels`).

    Attributes:
      voxels: (x, y, z) array in the order of the file, of bool, integers or floats of at most 64 bits. What NumPy makes
        an array of, such as nested lists or nibabel's ``image.dataobj``, becomes one.
      affine: (4, 4) float64; takes voxel indices (voxel centres) to RAS+ world coordinates in mm. Its axes are
        independent and at right angles.
      source: what the volume was read from, or None. It describes the grid of the files: a volume derived from this
        one keeps it, and writers use its geometry only while `affine` is still that of the files.
      name: what error messages call this volume: its path, or a short description.

    Raises:
      InputError: voxels of another number of dimensions or another type, or masked; or an affine that is none.
    """

    voxels: np.ndarray
    affine: np.ndarray
    source: NiftiSource | DicomSource | None = None
    name: str = "volume"

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", _array_of_voxels(self.voxels, self.name))
        object.__setattr__(self, "affine", _affine(self.affine, self.name))

    def __repr__(self) -> str:
        size, spacing = (
            " x ".join(map(str, self.shape)),
            " x ".join(f"{length:.4g}" for length in self.spacing),
        )
        axes = "".join(str(letter) for letter in nib.orientations.aff2axcodes(self.affine))
        return f"Volume({size} voxels of {spacing} mm, {axes}, {self.voxels.dtype}, {self.name!r})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return self.voxels.shape

    @property
    def spacing(self) -> np.ndarray:
        """(3,) distance in mm between neighbouring voxel centres along x, y and z."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def millilitres(self, mask: np.ndarray) -> float:
        """Returns the volume in ml of a mask (x, y, z) on this geometry; any value but 0 counts."""
        voxels = self.with_voxels(mask).voxels
        return np.count_nonzero(voxels) * abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def region_millilitres(self, classes: int = len(NAMES)) -> dict[str, float]:
        """Returns the volume in ml of each of `labels.REGIONS` in a mask of label ids, uint8.

        Args:
          classes: number of labels that whoever made the mask knows; regions of further ones are left out.
        """
        counts = value_counts(self.voxels)
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000
        return {
            region: int(counts[list(ids)].sum()) * voxel_ml
            for region, ids in REGIONS.items()
            if min(ids) < classes
        }

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """Returns the same geometry with other voxels of the same shape.

        Raises:
          InputError: they have another shape, or cannot be voxels.
        """
        changed = dataclasses.replace(self, voxels=voxels)
        if changed.shape != self.shape:
            raise InputError(f"{self.name}: voxels of shape {changed.shape}, expected {self.shape}")
        return changed


def value_counts(voxels: np.ndarray) -> np.ndarray:
    """Returns the number of voxels of each value of a uint8 array, (256,) int64.

    Piece by piece, since NumPy copies what it counts into 8 bytes a voxel.
    """
    flat = voxels.ravel(order="K")
    pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
    return sum((np.bincount(piece, minlength=256) for piece in pieces), start=np.zeros(256, np.int64))


def require_volume(value: object) -> Volume:
    """Returns the value, if it is a `Volume`.

    Raises:
      InputError: it is something else, such as a bare array or an image of another library.
    """
    if isinstance(value, Volume):
        return value
    what = (
        f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    )
    raise InputError(
        f"{what} was given, expected a liverjax.Volume; make one of its voxels and its affine: "
        "liverjax.Volume(voxels, affine)"
    )


def check_voxels(volume: Volume) -> None:
    """Refuses values that no scanner measures. Only floats and integers of 64 bits are looked at: others cannot be.

    Raises:
      InputError: voxels that are not finite, or beyond `LARGEST_INTENSITY`.
    """
    voxels = require_volume(volume).voxels
    if voxels.dtype.kind != "f" and voxels.dtype.itemsize < 8:
        return
    # One NaN makes both comparisons false.
    slices = np.moveaxis(voxels, _outer_axis(voxels), 0)
    if all(float(s.min()) >= -LARGEST_INTENSITY and float(s.max()) <= LARGEST_INTENSITY for s in slices):
        return
    count, first = 0, ()
    for x, plane in enumerate(voxels):
        with np.errstate(invalid="ignore"):  # some NaN are signalling
            wrong = ~(np.abs(plane.astype(np.float64)) <= LARGEST_INTENSITY)
        if wrong.any():
            first = first or (x, *(int(i) for i in np.argwhere(wrong)[0]))
            count += int(np.count_nonzero(wrong))
    raise InputError(
        f"{volume.name}: {count} voxels hold no intensity (the first, {first}, is {voxels[first]!s}), "
        f"expected finite numbers up to {LARGEST_INTENSITY:.0f}"
    )


def label_voxels(volume: Volume, labels: Iterable[int]) -> np.ndarray:
    """Returns the voxels of a label map as uint8 ids; what lies within `LABEL_TOLERANCE` of one is that.

    Args:
      volume: a label map.
      labels: the ids, of 0 to 255, that may occur.

    Raises:
      InputError: a value is not one of ``labels``; the message lists such values.
    """
    voxels, labels = require_volume(volume).voxels, sorted(set(labels))
    if voxels.dtype == np.uint8 and labels == list(range(len(labels))) and voxels.max() < len(labels):
        return voxels
    allowed = np.isin(np.arange(256), labels)
    ids = np.empty_like(voxels, np.uint8, subok=False)
    outer = _outer_axis(voxels)
    count, smallest = 0, np.empty(0, voxels.dtype)
    with np.errstate(invalid="ignore"):  # values outside 0 to 255 differ from their cast
        for given, own in zip(np.moveaxis(voxels, outer, 0), np.moveaxis(ids, outer, 0), strict=True):
            own[:] = (np.rint(given) if given.dtype.kind == "f" else given).astype(np.uint8)
            whole = np.abs(given - own) <= LABEL_TOLERANCE if given.dtype.kind == "f" else given == own
            wrong = ~(whole & allowed[own])
            if wrong.any():
                count += int(np.count_nonzero(wrong))
                smallest = np.unique(np.concatenate([smallest, given[wrong]]))[:6]
    if count:
        shown = ", ".join(map(_number, smallest[:5])) + (", ..." if len(smallest) > 5 else "")
        raise InputError(f"{volume.name}: label values {shown} in {count} voxels, expected {labels}")
    return ids


def check_axes(affine: np.ndarray, name: object) -> None:
    """Refuses a (4, 4) affine whose axes are not finite, not independent, or not at right angles.

    Raises:
      InputError: with ``name`` in front.
    """
    rows = [[float(f"{value:.6g}") for value in row] for row in affine[:3]]
    directions, sizes = _directions(affine[:3, :3])
    if not (np.isfinite(affine).all() and abs(np.linalg.det(directions)) > 1e-3):
        raise InputError(f"{name}: affine {rows}, expected three independent axes and finite numbers")
    if not (_SIZES[0] <= sizes.min() and sizes.max() <= _SIZES[1] and np.abs(affine).max() <= _FARTHEST):
        shown = " x ".join(f"{size:.9g}" for size in sizes)
        raise InputError(
            f"{name}: affine {rows}, voxels of {shown} mm, expected {_SIZES[0]:g} to {_SIZES[1]:g} mm "
            f"and an origin within {_FARTHEST:g} mm"
        )
    cosine = np.abs(directions.T @ directions)[np.triu_indices(3, 1)].max()
    if cosine > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(cosine, 1.0)))
        raise InputError(
            f"{name}: affine {rows} is sheared by {degrees:.2g} degrees, expected axes at right angles; "
            "resample it to such axes first"
        )


def corner_distance(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Returns the largest distance in mm between equal corner voxels of volumes with affines `a` and `b`."""
    corners = np.array([(*c, 1.0) for c in itertools.product(*((0, n - 1) for n in shape))])
    with np.errstate(over="ignore", invalid="ignore"):  # a header's second affine may hold any numbers
        return float(np.linalg.norm(corners @ (a - b)[:3].T, axis=1).max())


def _array_of_voxels(given: object, name: str) -> np.ndarray:
    voxels = given
    if not isinstance(voxels, np.ndarray):
        try:
            voxels = np.asarray(given)
        except (
            TypeError,
            ValueError,
            RuntimeError,
        ):  # nested lists of unequal lengths, tensors of other devices
            voxels = np.asarray(None)
    if voxels.dtype.kind not in "biuf" or voxels.dtype.itemsize > 8:
        what = voxels.dtype if voxels.ndim else type(given).__name__
        raise InputError(f"{name}: voxels of type {what}, expected integers or floats of at most 64 bits")
    if voxels.ndim != 3:
        remedy = {2: "; voxels[..., None] has them", 4: "; choose one volume of the last: voxels[..., 0]"}
        raise InputError(
            f"{name}: voxels of shape {voxels.shape}, expected three dimensions (x, y, z)"
            f"{remedy.get(voxels.ndim, '')}"
        )
    if not voxels.size:
        raise InputError(f"{name}: voxels of shape {voxels.shape}, expected at least one along each axis")
    if isinstance(voxels, np.ma.MaskedArray):
        if masked := np.ma.count_masked(voxels):
            raise InputError(
                f"{name}: {masked} voxels are masked, expected a value of each; give them one: voxels.filled(value)"
            )
        return voxels.data
    return voxels


def _affine(given: object, name: str) -> np.ndarray:
    try:
        affine = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):
        affine = np.asarray(None)
    if affine.dtype.kind not in "biuf":
        what = affine.dtype if affine.ndim else type(given).__name__
        raise InputError(f"{name}: affine of type {what}, expected (4, 4) real numbers")
    if affine.shape != (4, 4):
        raise InputError(f"{name}: affine of shape {affine.shape}, expected (4, 4)")
    affine = affine.astype(np.float64, copy=False)
    check_axes(affine, name)
    if not np.allclose(affine[3], [0, 0, 0, 1], rtol=0, atol=1e-6):
        raise InputError(f"{name}: the affine's last row is {affine[3].tolist()}, expected [0, 0, 0, 1]")
    return affine


def _directions(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the unit vectors of three axes as columns, 0 where there is none, and their lengths.

    The squares of very large and very small steps are no floating-point numbers: they are scaled first.
    """
    if not np.isfinite(steps).all():
        return np.zeros((3, 3)), np.zeros(3)
    largest = np.abs(steps).max(axis=0)
    scaled = steps / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=0)
    with np.errstate(over="ignore"):
        return scaled / np.where(lengths > 0, lengths, 1), lengths * largest


def _outer_axis(voxels: np.ndarray) -> int:
    """Returns the axis whose slices each lie together in memory, so that one after the other fits into the cache."""
    return int(np.argmax(np.abs(voxels.strides)))


def _number(value: Any) -> str:
    """Returns a number with all its digits: a label that is not allowed must not look like one that is."""
    return np.format_float_positional(value, trim="-") if value.dtype.kind == "f" else str(value)
