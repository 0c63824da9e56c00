"""Diameters of lesions: the longest axial one and the longest perpendicular to it, exact, in mm.

**Slices** are those of the scan's own array, along the voxel axis nearest to head-feet; they may be oblique, sheared
(a tilted gantry) and have voxels of any size.
**The outline** of a lesion in a slice is the polygon that viewers draw: it passes halfway between the centres of
neighbouring pixels inside and outside (marching squares). So a diameter is measured from edge to edge, as by callipers
on a screen: a row of 10 pixels is 10 pixels long. Each end lies within half a pixel of the true edge, on either side of
it; between pixel centres, that row would be a pixel too short, and between outer corners a single pixel 1.4 long.
**The longest diameter** joins the two points of the outline that are farthest apart, in the slice in which they are
farthest. It may cross a notch of the outline, and joins all that the lesion has in this slice.
**The perpendicular** is the longest straight line in that slice, at exactly a right angle to the longest diameter,
between two points of the outline. It need not cross the longest diameter's middle, nor have vertices as its ends.
**Ties** (equal to one part in 10^9): the slice of the lowest index; in it, the line whose first end, then second, has
the lowest indices (a line begins at its lower end). Of perpendiculars, the one nearest to the first end.

The longest diameter is pyradiomics' Maximum2DDiameterSlice (from the vertices of its mesh) wherever the mesh has its
farthest vertices in a slice, which it also has midway between two slices.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import nibabel as nib
import numpy as np
from scipy.spatial import ConvexHull

from liverjax.errors import InputError
from liverjax.objects.components import Lesion, bounding_box, label, lesions

#: A point in voxel indices along x, y, z; voxel centres are whole numbers.
Point = tuple[float, float, float]

#: Most lesions of a mask that are measured. A diseased liver has some hundreds; noise has them by the ten thousand.
MOST_LESIONS = 5000
# Lengths that differ by less than this share are equal.
_ROUNDING = 1e-9
# Pairs of outline points and outline edges that are compared at a time: bounds the memory of ragged outlines.
_PAIRS = 2_000_000
# Eight directions, (8, 2) unit vectors.
_DIRECTIONS = np.stack([np.cos(np.arange(8) * np.pi / 8), np.sin(np.arange(8) * np.pi / 8)], axis=1)


@dataclasses.dataclass(frozen=True)
class Line:
    """A straight line within a slice.

    Attributes:
      mm: its length.
      ends: its two ends in voxel indices, the lower one first.
    """

    mm: float
    ends: tuple[Point, Point]


@dataclasses.dataclass(frozen=True)
class Diameters:
    """The diameters of a lesion.

    Attributes:
      longest: the longest diameter of all slices.
      perpendicular: the longest line at a right angle to it in the same slice.
      axis: the voxel axis across which slices lie: 0, 1 or 2.
      slice: index of the slice along that axis.
      slices: number of slices that the lesion has.
      next_mm: the longest diameter in the slice above or below, the larger one; 0 if the lesion has only one slice.
    """

    longest: Line
    perpendicular: Line
    axis: int
    slice: int
    slices: int
    next_mm: float


@dataclasses.dataclass(frozen=True)
class MeasuredLesion:
    """A lesion with its diameters.

    Attributes:
      lesion: its volume, centre and box.
      diameters: its diameters.
      cut: it reaches the border of the scan, beyond which it may go on.
      viable_mm: the longest diameter of a connected piece of its viable part, 0 if nothing is viable, NaN if that is
        not known.
    """

    lesion: Lesion
    diameters: Diameters
    cut: bool
    viable_mm: float = math.nan


@dataclasses.dataclass(frozen=True)
class MeasuredMask:
    """The lesions of a mask.

    Attributes:
      lesions: in order of id.
      ids: (x, y, z) lesion ids, cropped to the box that holds all lesions.
      corner: index of the first voxel of that box in the mask.
      affine: (4, 4) from voxel indices of the mask to RAS+ world coordinates in mm.
      shape: number of voxels of the mask along x, y, z.
      slice_mm: distance between slices in mm.
    """

    lesions: tuple[MeasuredLesion, ...]
    ids: np.ndarray
    corner: tuple[int, int, int]
    affine: np.ndarray
    shape: tuple[int, int, int]
    slice_mm: float


def slice_axis(affine: np.ndarray) -> int:
    """Returns the voxel axis, 0 to 2, that is nearest to head-feet: slices across it are the axial ones."""
    return int(np.flatnonzero(nib.orientations.io_orientation(affine)[:, 0] == 2)[0])


def slice_distance(affine: np.ndarray) -> float:
    """Returns the distance in mm between neighbouring slices, measured at a right angle to them."""
    axes = np.asarray(affine)[:3, :3]
    normal = np.cross(*np.delete(axes, slice_axis(affine), axis=1).T)
    return abs(float(np.linalg.det(axes))) / float(np.linalg.norm(normal))


def measure(mask: np.ndarray, affine: np.ndarray, viable: np.ndarray | None = None) -> MeasuredMask:
    """Measures every lesion of a mask (components by 6 neighbours).

    Args:
      mask: (x, y, z); any value but 0 is tumour.
      affine: (4, 4) from voxel indices to RAS+ world coordinates in mm.
      viable: (x, y, z); any value but 0 takes up contrast in the arterial phase. What lies in no lesion is left out.

    Raises:
      InputError: the affine is singular, or there are more than `MOST_LESIONS`.
      ValueError: the shapes differ.
    """
    if viable is not None and viable.shape != mask.shape:
        raise ValueError(f"viable mask of shape {viable.shape}, expected {mask.shape}")
    affine = _checked(affine)
    box = bounding_box(mask)
    x, y, z = (along.start or 0 for along in box)
    corner = x, y, z
    ids = label(mask[box])
    if (pieces := int(ids.max(initial=0))) > MOST_LESIONS:
        raise InputError(
            f"the mask holds {pieces} separate lesions, expected at most {MOST_LESIONS}: it is noisy, or holds "
            "something else; take small pieces out of it first"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Sheared voxels hold less than the product of their edges.
    spacing[0] *= abs(np.linalg.det(affine[:3, :3])) / spacing.prod()
    measured = []
    for lesion in lesions(ids, spacing, corner):
        place = tuple(slice(b.start - c, b.stop - c) for b, c in zip(lesion.box, corner, strict=True))
        start = [along.start for along in lesion.box]
        cut = any(
            along.start == 0 or along.stop == n for along, n in zip(lesion.box, mask.shape, strict=True)
        )
        region = ids[place] == lesion.id
        viable_mm = math.nan if viable is None else _largest_mm(region & (viable[lesion.box] != 0), affine)
        measured.append(MeasuredLesion(lesion, _diameters(region, affine, start), cut, viable_mm))
    return MeasuredMask(tuple(measured), ids, corner, affine, mask.shape, slice_distance(affine))


def diameters(mask: np.ndarray, affine: np.ndarray) -> Diameters:
    """Measures one lesion, which is all that a mask holds.

    Args:
      mask: (x, y, z); any value but 0 is the lesion.
      affine: (4, 4) from voxel indices to RAS+ world coordinates in mm.

    Raises:
      InputError: the mask is empty, or the affine singular.
    """
    affine, box = _checked(affine), bounding_box(mask)
    if not all(along.stop for along in box):
        raise InputError("the mask of a lesion has no voxel in any slice, expected at least one")
    return _diameters(mask[box] != 0, affine, [along.start for along in box])


def _largest_mm(region: np.ndarray, affine: np.ndarray) -> float:
    """Returns the longest diameter in mm of the connected pieces of a mask, 0 if there are none."""
    return max((piece.diameters.longest.mm for piece in measure(region, affine).lesions), default=0.0)


def _checked(affine: np.ndarray) -> np.ndarray:
    affine = np.asarray(affine, float)
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
        raise InputError(f"the affine {affine.tolist()} is singular, expected three axes that span the space")
    return affine


def _diameters(region: np.ndarray, affine: np.ndarray, start: list[int]) -> Diameters:
    """Measures a lesion that touches all sides of its box (x, y, z) bool, which starts at a voxel of the scan."""
    axis = slice_axis(affine)
    to_mm = _plane(affine, axis)
    slices = np.moveaxis(region, axis, 0)
    points = _outermost(slices)
    bounds = [_bound(of_slice, to_mm) for of_slice in points]

    @functools.cache
    def longest(index: int) -> tuple[float, np.ndarray]:
        return _longest(points[index], to_mm)

    best = 0.0
    for index in np.argsort(bounds)[::-1].tolist():
        if bounds[index] < best * (1 - _ROUNDING):
            break
        best = max(best, longest(index)[0])
    # A slice that was skipped is shorter than its bound, and that is shorter than the best.
    index = next(i for i, bound in enumerate(bounds) if bound >= best * (1 - _ROUNDING) <= longest(i)[0])
    mm, ends = longest(index)
    neighbours = [i for i in (index - 1, index + 1) if 0 <= i < len(slices)]
    across_mm, across_ends = _perpendicular(slices[index], ends, to_mm)

    def line(mm: float, ends: np.ndarray) -> Line:
        first, second = np.insert(ends, axis, index, axis=1) + start
        return Line(mm, (_point(first), _point(second)))

    return Diameters(
        longest=line(mm, ends),
        perpendicular=line(across_mm, across_ends),
        axis=axis,
        slice=index + start[axis],
        slices=len(slices),
        next_mm=max((longest(i)[0] for i in neighbours), default=0.0),
    )


def _point(index: np.ndarray) -> Point:
    x, y, z = index.tolist()
    return x, y, z


def _plane(affine: np.ndarray, axis: int) -> np.ndarray:
    """Returns the (2, 2) matrix from pixel indices of a slice to mm along two orthogonal directions within it."""
    u, v = np.delete(affine[:3, :3], axis, axis=1).T
    along = float(u @ v) / float(np.linalg.norm(u))
    return np.array([[np.linalg.norm(u), along], [0, math.sqrt(max(float(v @ v) - along**2, 0))]])


def _outermost(slices: np.ndarray) -> list[np.ndarray]:
    """Returns of each slice (p, q) of a lesion the (m, 2) outermost vertices of its outline in each row and column.

    Their convex hull is that of the whole outline. The slices are (n, p, q) bool, none of them empty.
    """
    points, of_slice = [], []
    for lines in (slices, slices.transpose(0, 2, 1)):
        first, behind = lines.argmax(2), lines[:, :, ::-1].argmax(2)
        occupied = np.nonzero(np.take_along_axis(lines, first[..., None], 2)[..., 0])
        for place in (first[occupied] - 0.5, lines.shape[2] - behind[occupied] - 0.5):
            columns = (occupied[1], place) if lines is slices else (place, occupied[1])
            points.append(np.stack(columns, 1))
            of_slice.append(occupied[0])
    index = np.concatenate(of_slice)
    ordered = np.concatenate(points)[np.argsort(index, kind="stable")]
    return np.split(ordered, np.cumsum(np.bincount(index))[:-1])


def _bound(points: np.ndarray, to_mm: np.ndarray) -> float:
    """Returns a length in mm that no distance between (m, 2) points exceeds.

    A line is at most 180/16 degrees away from one of eight directions, in which all points are at least as wide.
    """
    extents = np.ptp(points @ (_DIRECTIONS @ to_mm).T, axis=0)
    return float(extents.max()) / math.cos(math.pi / 16)


def _longest(points: np.ndarray, to_mm: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the longest diameter in mm of (m, 2) outermost points of a slice, and its ends (2, 2) in pixels."""
    points = points[ConvexHull(points).vertices]
    points = points[np.lexsort(points.T[::-1])]
    mm = points @ to_mm.T
    distances = np.hypot(*(mm[:, None] - mm).T).T
    # In the order of rows, the first pair is the one of the lowest first, then second end.
    first, second = np.argwhere(distances >= distances.max() * (1 - _ROUNDING))[0]
    return float(distances[first, second]), points[[first, second]]


def _perpendicular(region: np.ndarray, ends: np.ndarray, to_mm: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the longest line of a slice at a right angle to that between ``ends``: mm and ends in pixel indices.

    Between two vertices the distance of two edges of the outline changes linearly, so that the longest line passes
    through a vertex.
    """
    edges = outline(region) @ to_mm.T
    first, second = ends @ to_mm.T
    along = (second - first) / np.linalg.norm(second - first)
    across = np.array([-along[1], along[0]])
    place, height = edges @ along, edges @ across  # (n, 2): of both ends of each edge
    backwards = place[:, 0] > place[:, 1]
    place[backwards], height[backwards] = place[backwards, ::-1], height[backwards, ::-1]
    candidates = np.unique(place)
    length = place[:, 1] - place[:, 0]
    slope = np.divide(height[:, 1] - height[:, 0], length, out=np.zeros_like(length), where=length > 0)
    slack = _ROUNDING * (candidates[-1] - candidates[0])
    lowest, highest = [], []
    for part in np.array_split(candidates, 1 + candidates.size * len(edges) // _PAIRS):
        crossed = (place[:, 0] <= part[:, None] + slack) & (place[:, 1] >= part[:, None] - slack)
        offset = np.clip(part[:, None] - place[:, 0], 0, length)
        at = height[:, 0] + slope * offset
        # An edge along the perpendicular holds both its ends.
        upright = length <= slack
        low, high = np.where(upright, height.min(1), at), np.where(upright, height.max(1), at)
        lowest.append(np.where(crossed, low, np.inf).min(1))
        highest.append(np.where(crossed, high, -np.inf).max(1))
    low, high = np.concatenate(lowest), np.concatenate(highest)
    lengths = high - low
    best = int(np.flatnonzero(lengths >= lengths.max() * (1 - _ROUNDING))[0])
    points = np.array(
        [candidates[best] * along + low[best] * across, candidates[best] * along + high[best] * across]
    )
    points = np.round(points @ np.linalg.inv(to_mm).T, 9) + 0.0
    return float(lengths[best]), points[np.lexsort(points.T[::-1])]


def outline(region: np.ndarray) -> np.ndarray:
    """Returns the edges of the outline of a slice, by marching squares; pixels that touch at a corner stay apart.

    Args:
      region: (p, q) bool; beyond it is background.

    Returns:
      (n, 2, 2): for each edge its two ends in pixel indices.
    """
    padded = np.pad(region, 1)
    a, b, c, d = padded[:-1, :-1], padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]
    # Midpoints between the corners of a square of four pixel centres, of which a is the first and d the last.
    ab, cd, ac, bd = (0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5)
    apart = (a == d) & (b == c) & (a != b)
    edges = [
        (ab, ac, (a != b) & (a != c) & (a | ~apart)),
        (ab, bd, (b != a) & (b != d) & (b | ~apart)),
        (ac, cd, (c != a) & (c != d) & (c | ~apart)),
        (bd, cd, (d != b) & (d != c) & (d | ~apart)),
        (ab, cd, (a != b) & (c != d) & (a == c)),
        (ac, bd, (a != c) & (b != d) & (a == b)),
    ]
    # The first square reaches from pixel -1 to pixel 0.
    found = [np.argwhere(here)[:, None] - 1 + np.array([start, end]) for start, end, here in edges]
    return np.concatenate(found)
