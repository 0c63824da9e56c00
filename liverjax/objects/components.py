"""Connected components of masks, and lesions: the one labelling of the library.

Voxels are connected if they touch by a face (connectivity 6), or by a face, an edge or a corner (26). Masks are
(x, y, z) arrays in which any value but 0 is in the mask.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import cc3d
import numpy as np

Connectivity = Literal[6, 26]

#: Voxel size in mm along x, y, z.
Spacing = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One connected component of a tumour mask.

    Attributes:
      id: its number within the mask, from 1 (see `label`).
      voxels: number of voxels.
      volume_ml: volume in millilitres.
      diameter_mm: diameter in mm of the sphere of the same volume.
      centre: mean voxel index along x, y, z.
      box: the smallest box of voxels that holds it, a slice along each of x, y, z.
    """

    id: int
    voxels: int
    volume_ml: float
    diameter_mm: float
    centre: tuple[float, float, float]
    box: tuple[slice, slice, slice]


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Returns the smallest box that holds every voxel of a mask of any dimension; empty slices if there is none."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0))
    return tuple(box)


def label(mask: np.ndarray, connectivity: Connectivity = 6) -> np.ndarray:
    """Returns the component id of each voxel of a mask: 0 outside, else from 1.

    Ids follow the first voxel of each component, in the order in which the last index runs fastest, whatever the
    array's memory order: those of `scipy.ndimage.label`.

    Args:
      mask: (x, y, z).
      connectivity: 6 or 26.

    Returns:
      (x, y, z) unsigned integers, in C order.
    """
    # cc3d numbers components in the order of memory.
    return _components(np.ascontiguousarray(mask), connectivity)


def lesions(ids: np.ndarray, spacing: Spacing, corner: Sequence[int] = (0, 0, 0)) -> list[Lesion]:
    """Returns the lesions of a labelled mask, in order of their ids.

    Args:
      ids: (x, y, z) from `label`.
      spacing: voxel size in mm along x, y, z.
      corner: index of the first voxel of ``ids`` in the scan, if ``ids`` is a box of it; centres and boxes are
        those in the scan.
    """
    if not ids.any():
        return []
    found = cc3d.statistics(np.ascontiguousarray(ids, np.uint32))
    each = zip(found["voxel_counts"], found["centroids"], found["bounding_boxes"], strict=True)
    return [
        _lesion(id, int(voxels), np.add(centre, corner), box, spacing, corner)
        for id, (voxels, centre, box) in enumerate(each)
        if id
    ]


def largest(mask: np.ndarray, connectivity: Connectivity = 26) -> np.ndarray:
    """Returns the mask, (x, y, z) bool, of the largest component; of equally large ones the first (see `label`)."""
    ids = _components(mask, connectivity)
    if ids.max(initial=0) <= 1:
        return ids != 0
    voxels = _counts(ids)
    if np.count_nonzero(voxels == voxels.max()) > 1:
        ids = label(mask, connectivity)
        voxels = _counts(ids)
    return ids == voxels.argmax() + 1


def _counts(ids: np.ndarray) -> np.ndarray:
    """Returns the number of voxels of the ids from 1, much faster than cc3d.statistics.

    Slice by slice, as they lie in memory: NumPy copies what it counts into 64 bits.
    """
    slices = np.moveaxis(ids, int(np.argmax(ids.strides)), 0)
    size = int(ids.max()) + 1
    return np.sum([np.bincount(one.ravel(order="K"), minlength=size) for one in slices], axis=0)[1:]


def touching(mask: np.ndarray, seeds: np.ndarray, connectivity: Connectivity = 26) -> np.ndarray:
    """Returns the mask, (x, y, z) bool, of those components that hold a voxel of ``seeds``, (x, y, z) bool."""
    ids = _components(mask, connectivity)
    kept = np.zeros(ids.max(initial=0) + 1, bool)
    kept[ids[seeds]] = True
    kept[0] = False
    return kept[ids]


def without_small(mask: np.ndarray, voxels: float, connectivity: Connectivity = 26) -> np.ndarray:
    """Returns the mask, (x, y, z) bool, without components of fewer than ``voxels`` voxels."""
    if voxels <= 1:
        return mask != 0
    # The threshold of dust is a whole number; components below it are removed.
    return cc3d.dust(_bytes(mask), threshold=math.ceil(voxels), connectivity=connectivity) != 0


def holes(mask: np.ndarray) -> np.ndarray:
    """Returns the voxels, (x, y, z) bool, outside the mask that no path through faces joins to the array's border."""
    # The rim joins all background that reaches the border into one component.
    background = _components(np.pad(mask == 0, 1, constant_values=True), 6)
    return ((background != background[0, 0, 0]) & (background != 0))[1:-1, 1:-1, 1:-1]


def _components(mask: np.ndarray, connectivity: Connectivity) -> np.ndarray:
    """Returns component ids in the memory order of the mask, which also decides the order of the ids."""
    return cc3d.connected_components(_bytes(mask), connectivity=connectivity)


def _bytes(mask: np.ndarray) -> np.ndarray:
    # cc3d misreads some arrays with gaps between their voxels, and allocates too little memory for bool arrays of
    # 1 x 1 x 3 voxels.
    mask = mask.astype(bool, copy=False)
    contiguous = mask.flags.c_contiguous or mask.flags.f_contiguous
    return (mask if contiguous else np.ascontiguousarray(mask)).view(np.uint8)


def _lesion(
    id: int,
    voxels: int,
    centre: np.ndarray,
    box: Sequence[slice],
    spacing: Spacing,
    corner: Sequence[int],
) -> Lesion:
    mm3 = voxels * math.prod(spacing)
    x, y, z = (
        slice(along.start + start, along.stop + start) for along, start in zip(box, corner, strict=True)
    )
    return Lesion(
        id=id,
        voxels=voxels,
        volume_ml=mm3 / 1000,
        diameter_mm=(6 * mm3 / math.pi) ** (1 / 3),
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        box=(x, y, z),
    )
