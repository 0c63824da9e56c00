"""Tumour candidates: components of a tumour probability map within the liver, and which of them are true.

All is computed on axes in canonical order (left to right, posterior to anterior, inferior to superior, as nearly as the
scan's own axes lie), in the box of the liver. So candidates and their features do not depend on how a scan is stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import edt
import nibabel as nib
import numpy as np

from liverjax.errors import ConfigError, InputError
from liverjax.objects.components import bounding_box, label
from liverjax.objects.matching import shared_voxels

#: Distances in mm beyond this are this: where there is no border at all they would be infinite.
FARTHEST_MM = 1000.0


@dataclasses.dataclass(frozen=True)
class CandidateOptions:
    """What is a candidate.

    Attributes:
      threshold: least probability of a candidate's voxels, in (0, 1). Below that of the decision, so that the forest
        sees what a lower one would find; too low a value merges neighbours.
      margin_mm: how far outside the liver mask a voxel may lie: tumours at the border are often left out of it.
      least_ml: candidates of a smaller volume are dropped.
      most: number of candidates that are kept, the largest first: a bound of time and memory.
    """

    threshold: float = 0.3
    margin_mm: float = 3.0
    least_ml: float = 0.03
    most: int = 20_000

    def __post_init__(self) -> None:
        # Written so that NaN is refused as well.
        for name, sound, expected in (
            ("threshold", 0 < self.threshold < 1, "between 0 and 1"),
            ("margin_mm", 0 <= self.margin_mm <= 50, "0 to 50 mm"),
            ("least_ml", 0 <= self.least_ml <= 1000, "0 to 1000 ml"),
            ("most", 1 <= self.most <= 1_000_000, "1 to 1000000"),
        ):
            if not sound:
                raise ConfigError(f"candidates: {name} is {getattr(self, name)}, expected {expected}")


@dataclasses.dataclass(frozen=True)
class Frame:
    """The box of a scan in which candidates live, with its axes in canonical order.

    Attributes:
      shape: of the scan.
      order: for each axis of the box the scan's axis.
      flipped: for each axis of the box whether it runs against the scan's.
      box: slices of the scan after transposition and flips.
      spacing: (3,) voxel size in mm along the axes of the box.
    """

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    box: tuple[slice, slice, slice]
    spacing: np.ndarray

    def crop(self, array: np.ndarray) -> np.ndarray:
        """Returns the box (X, Y, Z) of an array (x, y, z) on the scan's voxels, in C order."""
        if array.shape != self.shape:
            raise InputError(f"an array of shape {array.shape}, expected {self.shape} as the liver mask")
        return np.ascontiguousarray(_turned(array, self.order, self.flipped)[self.box])

    def index_on_scan(self, index: Sequence[float]) -> np.ndarray:
        """Returns the voxel index (3,) on the scan, fractions included, of one (3,) in the box."""
        place = np.zeros(3)
        for along, axis, flip, inside in zip(index, self.order, self.flipped, self.box, strict=True):
            placed = along + inside.start
            place[axis] = self.shape[axis] - 1 - placed if flip else placed
        return place

    def on_scan(self, mask: np.ndarray) -> np.ndarray:
        """Returns a mask (X, Y, Z) of the box as a mask (x, y, z) on the scan's voxels, False outside the box."""
        whole = np.zeros(self.shape, bool)
        _turned(whole, self.order, self.flipped)[self.box] = mask
        return whole


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The candidates of a scan.

    Attributes:
      ids: (X, Y, Z) int32 in the frame's box: 0 outside, else the candidate's number from 1.
      count: number of candidates.
      dropped: number of components that were too small or too many.
      liver: (X, Y, Z) bool, the liver mask as it was given.
      depth: (X, Y, Z) float32, distance in mm to the nearest voxel outside the liver; outside, to the nearest one in
        it, negative.
      frame: where the box lies in the scan.
    """

    ids: np.ndarray
    count: int
    dropped: int
    liver: np.ndarray
    depth: np.ndarray
    frame: Frame

    def mask(self, kept: np.ndarray) -> np.ndarray:
        """Returns the mask (x, y, z) bool on the scan's voxels of the candidates that ``kept``, (n,) bool, chooses."""
        return self.frame.on_scan(np.append(False, kept)[self.ids])


def find_candidates(
    probability: np.ndarray,
    liver: np.ndarray,
    affine: np.ndarray,
    options: CandidateOptions = CandidateOptions(),
) -> Candidates:
    """Finds the components (by 6 neighbours) of the tumour probability within the liver and its margin.

    Args:
      probability: (x, y, z) float, of tumour.
      liver: (x, y, z), any value but 0 is liver or tumour.
      affine: (4, 4), voxel indices to RAS+ mm.
      options: threshold, margin and bounds.

    Returns:
      The candidates, numbered in the order of their first voxel on canonical axes; none where there is no liver.

    Raises:
      InputError: the shapes differ, or a probability in the liver's box is not a number of 0 to 1.
    """
    liver = np.asarray(liver) != 0
    frame = _frame(liver, np.asarray(affine, float), options.margin_mm)
    inside = frame.crop(liver)
    chance = frame.crop(np.asarray(probability))
    # NaN makes both comparisons false. A hair of tolerance, for what interpolation or rounding leaves.
    if chance.size and not (chance.min() >= -1e-3 and chance.max() <= 1 + 1e-3):
        raise InputError(
            f"the tumour probability in the liver's box is {chance.min():.4g} to {chance.max():.4g}, expected finite "
            "numbers of 0 to 1"
        )
    if not inside.any():
        none = np.zeros(inside.shape, np.int32)
        return Candidates(none, 0, 0, inside, none.astype(np.float32), frame)
    depth = _depth(inside, frame.spacing)
    ids = label((chance >= options.threshold) & (depth >= -options.margin_mm))
    voxels = np.bincount(ids.ravel(order="K"))
    voxels[0] = 0
    # A hair below, so that the volume of whole voxels that equals the bound in decimals is not lost to rounding.
    large = np.flatnonzero(voxels >= max(1, options.least_ml * 1000 / frame.spacing.prod() * (1 - 1e-9)))
    kept = np.sort(large[np.argsort(-voxels[large], kind="stable")[: options.most]])
    renumbered = np.zeros(len(voxels), np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    dropped = int(np.count_nonzero(voxels)) - len(kept)
    return Candidates(renumbered[ids], len(kept), dropped, inside, depth, frame)


@dataclasses.dataclass(frozen=True)
class Truth:
    """Which candidates hit which lesions of the reference.

    Attributes:
      true: (n,) bool, whether the candidate shares a voxel with a lesion.
      hits: (k, 2) int, pairs of a candidate and a lesion that share voxels, both from 0.
      lesions: number of the reference's lesions, those that no candidate hits included.
    """

    true: np.ndarray
    hits: np.ndarray
    lesions: int


def truth(candidates: Candidates, reference: np.ndarray) -> Truth:
    """Compares candidates with the reference. One shared voxel makes a candidate true, as it makes a lesion found.

    Args:
      candidates: of `find_candidates`.
      reference: (x, y, z) tumour mask on the scan's voxels.
    """
    # Numbered on the whole scan: a lesion that the box cuts stays one, and one outside it was missed.
    lesion_ids = label(np.asarray(reference) != 0)
    shared = shared_voxels(candidates.ids, candidates.frame.crop(lesion_ids))[1:, 1:]
    lesions = int(lesion_ids.max(initial=0))
    hits = np.argwhere(shared > 0)
    return Truth(np.bincount(hits[:, 0], minlength=candidates.count) > 0, hits, lesions)


def _frame(liver: np.ndarray, affine: np.ndarray, margin_mm: float) -> Frame:
    if liver.ndim != 3 or affine.shape != (4, 4):
        raise InputError(
            f"a liver mask of shape {liver.shape} and an affine of shape {affine.shape}, expected (x, y, z) and (4, 4)"
        )
    leads = nib.orientations.io_orientation(affine)
    x, y, z = (int(np.flatnonzero(leads[:, 0] == axis)[0]) for axis in range(3))
    order, flipped = (x, y, z), (bool(leads[x, 1] < 0), bool(leads[y, 1] < 0), bool(leads[z, 1] < 0))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[list(order)]
    turned = _turned(liver, order, flipped)
    # One voxel more than the margin, so that what bounds the liver is in the box.
    reach = np.ceil(margin_mm / spacing).astype(int) + 1
    sides = zip(bounding_box(turned), reach.tolist(), turned.shape, strict=True)
    right, front, head = (
        slice(max(0, along.start - more), min(size, along.stop + more)) if along.stop else slice(0, 0)
        for along, more, size in sides
    )
    return Frame(liver.shape, order, flipped, (right, front, head), spacing)


def _turned(array: np.ndarray, order: tuple[int, ...], flipped: tuple[bool, ...]) -> np.ndarray:
    return array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]


def _depth(liver: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Returns the signed distance in mm to the liver's border; the edge of the scan is none."""
    size = tuple(spacing.tolist())
    inner, outer = (edt.edt(mask.astype(np.uint8), anisotropy=size) for mask in (liver, ~liver))
    return np.clip(inner, 0, FARTHEST_MM) - np.clip(outer, 0, FARTHEST_MM)
