"""Consensus of several masks of one case: majority, STAPLE, and agreement voxel by voxel.

What R readers say of a voxel is a *pattern*: a number with bit i set if reader i has the voxel in the mask. All that
follows depends on how often each pattern occurs, so that 2^R counts stand for the voxels of a scan, however many they
are: STAPLE of a whole CT takes milliseconds, and no memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import edt
import numpy as np

from liverjax.objects.components import Spacing, bounding_box
from liverjax.scoring import rater_agreement

#: Readers that a pattern can hold.
MOST_READERS = 16
#: STAPLE ends when no performance changes by more, as ITK's, or after so many steps.
_TOLERANCE, _MOST_STEPS = 1e-7, 10_000


@dataclasses.dataclass(frozen=True)
class Staple:
    """What STAPLE found.

    Attributes:
      probability: (2^R,) that a voxel of each pattern belongs to the structure.
      sensitivity: (R,) share of the structure that each reader has in the mask.
      specificity: (R,) share of the rest that each reader leaves out.
    """

    probability: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray


def patterns(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the pattern of each voxel, uint16.

    Args:
      masks: one array of each reader, all of one shape; any value but 0 is in the mask.

    Raises:
      ValueError: shapes differ, or there are no readers, or more than `MOST_READERS`.
    """
    if not 0 < len(masks) <= MOST_READERS or len({mask.shape for mask in masks}) != 1:
        shapes = [mask.shape for mask in masks]
        raise ValueError(f"masks of shapes {shapes}, expected 1 to {MOST_READERS} of one shape")
    found = np.zeros(masks[0].shape, np.uint16)
    for bit, mask in enumerate(masks):
        found |= (mask != 0).astype(np.uint16) << np.uint16(bit)
    return found


def pattern_counts(found: np.ndarray, readers: int) -> np.ndarray:
    """Returns (2^R,) how often each pattern occurs."""
    return np.bincount(found.ravel(), minlength=2**readers)


def votes(readers: int) -> np.ndarray:
    """Returns (2^R,) how many readers have a voxel of each pattern in the mask."""
    return _decisions(readers).sum(0)


def _decisions(readers: int) -> np.ndarray:
    """Returns (R, 2^R) bool: whether a pattern holds each reader."""
    return (np.arange(2**readers) >> np.arange(readers)[:, None]) & 1 == 1


def band(found: np.ndarray, readers: int, spacing: Spacing, width_mm: float) -> np.ndarray:
    """Returns the voxels within a distance of one about which the readers differ; none if they never do.

    Args:
      found: (x, y, z) patterns.
      readers: their number.
      spacing: voxel size in mm.
      width_mm: the distance between voxel centres, in mm.

    Returns:
      (x, y, z) bool.
    """
    differ = (found != 0) & (found != 2**readers - 1)
    near = np.zeros(found.shape, bool)
    if not differ.any():
        return near
    sizes = np.asarray(spacing, float)
    margin = np.ceil(width_mm / sizes).astype(int) + 1
    box = tuple(
        slice(max(along.start - more, 0), along.stop + more)
        for along, more in zip(bounding_box(differ), margin, strict=True)
    )
    outside = np.ascontiguousarray(~differ[box])
    # A hair more, so that rounding of float32 does not decide over a voxel that lies exactly at the distance.
    near[box] = edt.edt(outside.view(np.uint8), anisotropy=tuple(sizes)) <= width_mm * (1 + 1e-6)
    return near


def staple(counts: np.ndarray, prior: float | None = None) -> Staple:
    """Estimates the structure and each reader's performance together (Warfield 2004, IEEE TMI 23:903).

    Expectation maximisation from sensitivities and specificities of 0.99999, as in ITK. The prior is one number for
    all voxels, so that much background around the structure makes every reader's specificity near 1, and the consensus
    larger: count the patterns of a `band` around the disagreement.

    Args:
      counts: (2^R,) voxels of each pattern.
      prior: probability that a voxel belongs to the structure; by default the mean share that the readers have in the
        mask.

    Returns:
      NaN for the performance of readers where nothing defines it: no voxel, or none in the structure or outside.
    """
    counts = np.asarray(counts, float)
    readers = int(counts.size).bit_length() - 1
    decisions = _decisions(readers)
    if prior is None:
        prior = float((counts * decisions.mean(0)).sum() / counts.sum()) if counts.sum() else 0.5
    sensitivity = specificity = np.full(readers, 0.99999)
    probability = np.zeros(counts.size)
    for _ in range(_MOST_STEPS):
        inside = prior * np.where(decisions, sensitivity[:, None], 1 - sensitivity[:, None]).prod(0)
        outside = (1 - prior) * np.where(decisions, 1 - specificity[:, None], specificity[:, None]).prod(0)
        both = inside + outside
        probability = np.divide(inside, both, out=np.zeros_like(both), where=both > 0)
        in_it, out_of_it = counts * probability, counts * (1 - probability)
        before = sensitivity, specificity
        sensitivity = _share(in_it, decisions)
        specificity = _share(out_of_it, ~decisions)
        change = np.abs(np.stack([sensitivity - before[0], specificity - before[1]]))
        if not change.max() > _TOLERANCE or np.isnan(change).any():
            break
    return Staple(probability, sensitivity, specificity)


def _share(weights: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    total = weights.sum()
    return (weights * decisions).sum(1) / total if total > 0 else np.full(len(decisions), math.nan)


def decide(found: np.ndarray, readers: int, near: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Returns the consensus of the readers, (x, y, z) bool: what STAPLE finds likelier than not.

    What all readers say stays. STAPLE of two is not determined (three free counts for four performances): their
    consensus is the surface midway, the mean of the two signed distances (Rohlfing and Maurer 2007, shape-based
    averaging). That of one is the mask.

    Args:
      found: (x, y, z) patterns.
      readers: their number.
      near: (2^R,) counts of the patterns in the `band`.
      spacing: voxel size in mm.
    """
    if readers == 2 and near[1:3].any():
        distance = _signed(found & 1 != 0, spacing) + _signed(found & 2 != 0, spacing)
        return ((distance < 0) | (found == 3)) & (found != 0)
    inside = staple(near).probability >= 0.5 if readers > 2 and near.any() else np.zeros(near.size, bool)
    inside[0], inside[-1] = False, True
    return inside[found]


def _signed(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Returns the distance in mm to the surface between voxels, negative inside; of an empty mask, infinity."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    sizes = tuple(np.asarray(spacing, float))
    inner, outer = (np.ascontiguousarray(one).view(np.uint8) for one in (mask, ~mask))
    return edt.edt(outer, anisotropy=sizes) - edt.edt(inner, anisotropy=sizes)


def majority(readers: int) -> np.ndarray:
    """Returns (2^R,) bool: patterns that more than half of the readers have in the mask; a tie is outside."""
    return votes(readers) * 2 > readers


def without(counts: np.ndarray, reader: int) -> np.ndarray:
    """Returns (2^(R-1),) the counts of the patterns of all readers but one."""
    readers = int(counts.size).bit_length() - 1
    return np.bincount(drop(np.arange(counts.size), reader), counts, 2 ** (readers - 1))


def drop(found: np.ndarray, reader: int) -> np.ndarray:
    """Returns patterns without the bit of one reader; the bits above move down."""
    low = (1 << reader) - 1
    return (found & low) | ((found >> (reader + 1)) << reader)


def voxel_agreement(counts: np.ndarray) -> tuple[float, float]:
    """Returns Fleiss' kappa and Krippendorff's alpha of the two classes, in and outside the mask.

    Args:
      counts: (2^R,) voxels of each pattern, of a `band`: with all background of a scan both would be near 1.

    Returns:
      NaN of no voxels, or if all readers have all of them in the mask, or none.
    """
    readers = int(counts.size).bit_length() - 1
    inside = votes(readers)
    table = np.stack([readers - inside, inside], axis=1)
    return rater_agreement.weighted_kappa(table, counts), rater_agreement.krippendorff_alpha(table, counts)
