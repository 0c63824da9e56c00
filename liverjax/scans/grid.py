"""From a scan to the working grid and back: the same geometry for training and prediction.

The working grid has the scan's own axes, put into the order and direction closest to right, anterior,
superior ("canonical"). Only the spacing changes, so that resampling is three one-dimensional linear maps, one
per axis. Voxels are sampled at their centres, and the grid's field of view is centred on the scan's.

A grid may be a box of the working grid, such as that around the liver: its voxels lie where those of the whole grid
lie, and what is outside it is background.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import nibabel as nib
import numpy as np
import scipy.sparse

from liverjax.errors import InputError
from liverjax.labels import BACKGROUND, NAMES, decide
from liverjax.volume import Volume, check_voxels, label_voxels, require_volume

#: Lowest intensity that enters resampling: air, in HU. Scanners fill the outside of their field of view with -2000 or
#: -3024, which would bleed into its neighbours. MR intensities lie above it.
AIR = np.float32(-1024)

#: Sizes in mm that a voxel of a scan of a patient can have. Photon-counting and cone-beam CT go down to 0.075, PET has
#: 2 to 10, scouts and coarse phantoms somewhat more; a voxel of 0.01 mm is microscopy, one of 800 mm a wrong unit.
VOXEL_SIZES = (0.05, 50.0)
#: Longest field of view in mm: no patient is half as long.
LONGEST = 5000.0
#: Most voxels of a working grid, 8 GiB in float32, as much as is read of a file. A patient of 2 m in the widest bore,
#: 0.85 m, has 1.4e9 voxels of 1 mm3.
MOST_VOXELS = 2**31

# Excess of a field of view over whole voxels, in voxels, that is rounding and not worth another voxel.
_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Grid:
    """A lattice of voxel centres.

    Attributes:
      shape: number of voxels along x, y and z.
      affine: (4, 4) float64, from voxel indices to RAS+ world coordinates in mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray


# --- geometry -----------------------------------------------------------------------------------------------


def check_voxel_sizes(volume: Volume) -> None:
    """Refuses a scan whose geometry is no patient's: its working grid could take any amount of memory.

    Raises:
      InputError: voxels that are not of `VOXEL_SIZES`, or a field of view above `LONGEST`.
    """
    sizes = require_volume(volume).spacing
    extent = sizes * volume.shape
    # A size in single precision may lie beside the limit by its rounding.
    low, high = VOXEL_SIZES[0] * (1 - 1e-6), VOXEL_SIZES[1] * (1 + 1e-6)
    remedy = "correct the sizes or the unit in its header, or read it with the right spacing"
    if not (low <= sizes.min() and sizes.max() <= high):
        expected = f"{VOXEL_SIZES[0]:g} to {VOXEL_SIZES[1]:g} mm"
        raise InputError(f"{volume.name}: voxels of {_by(sizes)} mm, expected {expected}; {remedy}")
    if extent.max() > LONGEST:
        raise InputError(
            f"{volume.name}: a field of view of {_by(extent)} mm, expected at most {LONGEST:g} mm; {remedy}"
        )


def _by(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.6g}" for length in lengths)


def to_canonical(volume: Volume) -> Volume:
    """Returns the volume with its axes permuted and flipped to the closest RAS+ order, as a view, exactly."""
    require_volume(volume)
    orientation = nib.orientations.io_orientation(volume.affine)
    return Volume(
        nib.orientations.apply_orientation(volume.voxels, orientation),
        volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape),
        name=volume.name,
    )


def from_canonical(voxels: np.ndarray, scan: Volume) -> np.ndarray:
    """Returns canonical (x, y, z, ...) voxels in the axes of `scan`, as a view: undoes `to_canonical`."""
    require_volume(scan)
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(scan.affine)
    )
    return nib.orientations.apply_orientation(voxels, back)


def working_grid(volume: Volume, spacing: Sequence[float]) -> Grid:
    """Returns the canonical grid of the given spacing in mm over the field of view of `volume`.

    It has as many voxels as cover the field of view (to the edges of the outermost voxels), at least one; the excess
    is split evenly between both ends.

    Raises:
      InputError: as `check_voxel_sizes`, a spacing that is not three sizes above 0, or more than `MOST_VOXELS`.
    """
    canonical = to_canonical(volume)
    check_voxel_sizes(canonical)
    sizes = np.asarray(spacing, dtype=np.float64)
    if not (sizes.shape == (3,) and np.isfinite(sizes).all() and sizes.min() > 0):
        raise InputError(f"spacing is {sizes.tolist()}, expected three sizes in mm above 0")
    ratio = sizes / canonical.spacing
    with np.errstate(over="ignore", divide="ignore"):
        counts = np.maximum(np.ceil(canonical.shape / ratio - _ROUNDING), 1)
        voxels = float(counts.prod())
    if voxels > MOST_VOXELS:
        raise InputError(
            f"{volume.name}: its working grid of {_by(sizes)} mm would have {voxels:.15g} voxels, "
            f"expected at most {MOST_VOXELS}; choose a larger spacing of the working grid"
        )
    shape = counts.astype(int)
    first = (np.asarray(canonical.shape) - 1) / 2 - (shape - 1) / 2 * ratio
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = first
    return Grid(tuple(shape.tolist()), canonical.affine @ step)


def box_grid(grid: Grid, mask: Volume, margin_mm: float = 0.0) -> Grid:
    """Returns the box of a grid that holds a mask and a margin around it, as far as the grid reaches.

    Args:
      grid: the working grid of the scan that `mask` belongs to.
      mask: any voxel but 0 counts. Its axes may be those of the scan or of any grid parallel to it.
      margin_mm: distance in mm that is added on each side of the mask's outermost voxels.

    Returns:
      A grid whose voxels are some of those of `grid`.

    Raises:
      ValueError: the mask is empty, or lies outside the grid.
      InputError: values that are not finite.
    """
    check_voxels(mask)
    canonical = to_canonical(mask)
    first, ratio = _placed(grid, Grid(canonical.shape, canonical.affine))
    start, stop = [], []
    for axis in range(3):
        inside = np.flatnonzero(canonical.voxels.any(axis=tuple({0, 1, 2} - {axis})))
        if not inside.size:
            raise ValueError(f"{mask.name}: an empty mask, expected one to put a box around")
        # Edges of the mask's outermost voxels and of the margin, in voxels of the grid; the cell of voxel i reaches
        # from i - 1/2 to i + 1/2.
        margin = margin_mm / np.linalg.norm(grid.affine[:3, axis])
        low = first[axis] + ratio[axis] * (inside[0] - 0.5) - margin
        high = first[axis] + ratio[axis] * (inside[-1] + 0.5) + margin
        start.append(max(int(np.floor(low + 0.5 + _ROUNDING)), 0))
        stop.append(min(int(np.ceil(high - 0.5 - _ROUNDING)), grid.shape[axis] - 1) + 1)
    shape = np.subtract(stop, start)
    if shape.min() < 1:
        raise ValueError(f"{mask.name}: lies outside the grid, expected a mask within it")
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return Grid(tuple(shape.tolist()), affine)


def to_grid(volume: Volume, grid: Grid | Sequence[float], *, labels: bool = False) -> Volume:
    """Resamples a scan or a label map to its working grid, or to a box of it.

    Args:
      volume: any axes and integer or floating-point type.
      grid: the working grid of `volume` or a box of it; or a voxel size in mm, along right, anterior, superior, that
        stands for the whole working grid.
      labels: the voxels are label ids: each class is resampled as a map of its own, and `liverjax.labels.decide`
        makes labels of their shares, liver with its tumours first.

    Returns:
      A canonical volume on the grid: float32 of at least `AIR`, or uint8 labels.

    Raises:
      InputError: as `working_grid`; values that are no intensities or, with ``labels``, no label ids; or more memory
        than for `MOST_VOXELS` would be taken on the way.
    """
    if labels:
        ids = label_voxels(volume, range(len(NAMES)))
        volume = volume.with_voxels(ids)
    else:
        check_voxels(volume)
    grid = grid if isinstance(grid, Grid) else working_grid(volume, grid)
    canonical = to_canonical(volume)
    maps = _axis_maps(Grid(canonical.shape, canonical.affine), grid)
    used = [np.unique(weights.indices) for weights in maps]
    box = tuple(slice(int(indices[0]), int(indices[-1]) + 1) for indices in used)
    voxels, maps = canonical.voxels[box], [m[:, along] for m, along in zip(maps, box, strict=True)]
    outer, rows, columns = _memory_order(voxels)
    halfway = voxels.shape[outer] * maps[rows].shape[0] * maps[columns].shape[0]
    if halfway > MOST_VOXELS:
        raise InputError(
            f"{volume.name}: {halfway} voxels of {voxels.shape[outer]} resampled slices, expected at most "
            f"{MOST_VOXELS}; choose a larger spacing of the working grid"
        )
    if labels:
        voxels = _resampled_labels(voxels, maps)
    else:
        voxels = _resampled(voxels, maps, lambda slice_: np.maximum(slice_, AIR, dtype=np.float32))
    return Volume(voxels, grid.affine, name=volume.name)


def labels_on_scan(
    probabilities: np.ndarray, grid: Grid, scan: Volume, *, decision: str = "nested"
) -> Volume:
    """Brings class probabilities back to the scan and decides the label of each voxel.

    Args:
      probabilities: (X, Y, Z, C) float32 on `grid`.
      grid: the working grid of `scan`, or a box of it.
      scan: gives axes, shape, affine and source of the result.
      decision: the rule of `liverjax.labels.decide`.

    Returns:
      uint8 labels, voxel on voxel with `scan`; background where a voxel's centre lies outside a box.
    """
    maps = _maps_to_scan(grid, scan)
    labels = np.zeros([m.shape[0] for m in maps], np.uint8, order="F")
    # Where all voxels that enter a mean are background, so is the mean, by either rule: only the rest has to be
    # interpolated.
    foreground = decide(list(np.moveaxis(probabilities, -1, 0)), decision) != BACKGROUND
    if foreground.any():
        x, y, z = box = _touched(maps, foreground)
        inside = [weights[along] for weights, along in zip(maps, box, strict=True)]
        for k, classes in _interpolated_slices(probabilities, inside):
            labels[x, y, z.start + k] = decide(list(classes), decision)
    return scan.with_voxels(np.asfortranarray(from_canonical(labels, scan)))


def probabilities_on_scan(probabilities: np.ndarray, grid: Grid, scan: Volume) -> np.ndarray:
    """Brings probabilities, or any other maps on `grid`, back to the scan by linear interpolation.

    Args:
      probabilities: (X, Y, Z, C) on `grid`.
      grid: the working grid of `scan`, or a box of it.
      scan: gives the axes and shape of the result.

    Returns:
      (x, y, z, C) float32 in the axes of `scan`, 0 where a voxel's centre lies outside a box; large, at a CT's
      resolution: where memory is short, pass one class at a time.
    """
    maps = _maps_to_scan(grid, scan)
    values = np.empty([*(m.shape[0] for m in maps), probabilities.shape[-1]], np.float32, order="F")
    for k, classes in _interpolated_slices(probabilities, maps):
        values[:, :, k] = np.moveaxis(classes, 0, -1)
    return from_canonical(values, scan)


# --- resampling ---------------------------------------------------------------------------------------------


def _axis_map(count: int, ratio: float, offset: float, target_count: int) -> scipy.sparse.csr_array:
    """Returns the (target_count, count) weights that sample `count` voxels along one axis.

    Target voxel i lies at source index `offset + ratio * i` and is `ratio` source voxels wide. It gets the
    mean of the linear interpolant over a box of width w, w^2 = max(ratio^2 - 1, 0): linear interpolation
    where voxels keep their size or shrink, and with growing ratio the area mean, which is what a scanner with
    larger voxels would measure. Constants and ramps are preserved. At the border, the weights of the voxels
    that exist are scaled to a sum of 1. A target voxel whose centre lies outside the source's field of view has no
    weights: the source is a box, and what is outside it is not known.
    """
    width = np.sqrt(max(ratio**2 - 1, 0))
    place = offset + ratio * np.arange(target_count)
    # The voxels that can have a weight, each row its own: hats reach 1 beyond the box.
    reach = math.ceil(width / 2) + 1
    index = np.floor(place).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    distance = place[:, None] - index
    if width < 1e-3:
        weights = np.maximum(1 - np.abs(distance), 0)
    else:
        weights = _hat_integral(distance + width / 2) - _hat_integral(distance - width / 2)
    weights[(index < 0) | (index >= count)] = 0
    covered = np.abs(place - (count - 1) / 2) <= count / 2 + _ROUNDING
    weights[covered] /= weights[covered].sum(axis=1, keepdims=True)
    weights[~covered] = 0
    row, column = np.nonzero(weights)
    values = weights[row, column].astype(np.float32)
    return scipy.sparse.csr_array((values, (row, index[row, column])), shape=(target_count, count))


def _hat_integral(t: np.ndarray) -> np.ndarray:
    """Integral of max(1 - |s|, 0) over s up to t."""
    t = np.clip(t, -1, 1)
    return np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)


def _axis_maps(source: Grid, target: Grid) -> list[scipy.sparse.csr_array]:
    """Returns the weights of each axis for two grids with parallel axes."""
    first, ratio = _placed(source, target)
    return [_axis_map(source.shape[a], ratio[a], first[a], target.shape[a]) for a in range(3)]


def _placed(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the target's first voxel lies and how large its voxels are, both (3,) in voxels of the source."""
    step = np.linalg.inv(source.affine) @ target.affine
    ratio = np.diag(step)[:3]
    skew = np.abs(step[:3, :3] - np.diag(ratio)) @ np.asarray(target.shape)
    if not (skew.max() < 1e-2 and ratio.min() > 0):
        raise ValueError(
            f"grids with axes that are not parallel: affines {source.affine} and {target.affine}"
        )
    return step[:3, 3], ratio


def _maps_to_scan(grid: Grid, scan: Volume) -> list[scipy.sparse.csr_array]:
    canonical = to_canonical(scan)
    return _axis_maps(grid, Grid(canonical.shape, canonical.affine))


def _memory_order(voxels: np.ndarray) -> list[int]:
    """Returns the axes, the one with the largest steps in memory first."""
    return np.argsort(np.abs(voxels.strides))[::-1].tolist()


def _resampled(
    voxels: np.ndarray, maps: Sequence[scipy.sparse.csr_array], convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Applies one map per axis to voxels that `convert` turns into float32 slice by slice.

    The slices are those that lie together in memory: each is read once, and reduced while in the cache.
    """
    outer, rows, columns = _memory_order(voxels)
    slices = voxels.transpose(outer, rows, columns)
    reduced = np.empty((len(slices), maps[columns].shape[0], maps[rows].shape[0]), np.float32)
    for slice_, target in zip(slices, reduced, strict=True):
        target[:] = maps[columns] @ (maps[rows] @ convert(slice_)).T
    result = (maps[outer] @ reduced.reshape(len(reduced), -1)).reshape(-1, *reduced.shape[1:])
    return result.transpose(np.argsort([outer, columns, rows]))


def _resampled_labels(voxels: np.ndarray, maps: Sequence[scipy.sparse.csr_array]) -> np.ndarray:
    shares = [
        _resampled(voxels, maps, lambda slice_, label=label: (slice_ == label).astype(np.float32))
        for label in range(1, max(int(voxels.max()), 1) + 1)
    ]
    return decide([1 - sum(shares[1:], shares[0]), *shares])


def _interpolated_slices(
    values: np.ndarray, maps: Sequence[scipy.sparse.csr_array]
) -> Iterator[tuple[int, np.ndarray]]:
    """Resamples (x, y, z, C) `values`; yields (k, (C, X, Y) float32) for each slice k of the third axis."""
    to_x, to_y, to_z = maps
    x, y, z, classes = values.shape
    slices = np.ascontiguousarray(values.transpose(2, 0, 3, 1), dtype=np.float32).reshape(z, -1)
    for k in range(to_z.shape[0]):
        plane = to_z[[k]] @ slices
        along_x = (to_x @ plane.reshape(x, -1)).reshape(-1, classes, y)
        both = (to_y @ along_x.transpose(2, 1, 0).reshape(y, -1)).reshape(-1, classes, to_x.shape[0])
        yield k, both.transpose(1, 2, 0)


def _touched(maps: Sequence[scipy.sparse.csr_array], chosen: np.ndarray) -> list[slice]:
    """Returns the box of target voxels to which one of the `chosen` (x, y, z) source voxels contributes."""
    box = []
    for axis, weights in enumerate(maps):
        along = np.asarray(chosen.any(axis=tuple({0, 1, 2} - {axis})), np.float32)
        rows = np.flatnonzero(weights @ along)
        box.append(slice(int(rows[0]), int(rows[-1]) + 1))
    return box
