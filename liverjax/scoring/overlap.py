"""Overlap of two masks: Dice, IoU, volumetric overlap error, relative volume difference.

A is the prediction, B the reference. Masks are arrays of one shape, of any dimension; the voxel size does not matter.
Where a value is not defined (both masks empty) it is NaN, never a flattering 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Voxel counts of a pair of masks, from which every overlap metric follows.

    Attributes:
      intersection: |A∩B|, the true positives.
      prediction: |A|.
      reference: |B|.
    """

    intersection: int
    prediction: int
    reference: int

    @property
    def union(self) -> int:
        """|A∪B| in voxels."""
        return self.prediction + self.reference - self.intersection

    @property
    def dice(self) -> float:
        """2|A∩B| / (|A|+|B|), in [0, 1]; see `metrics.dice`."""
        return _ratio(2 * self.intersection, self.prediction + self.reference)

    @property
    def iou(self) -> float:
        """|A∩B| / |A∪B|, in [0, 1]; see `metrics.iou`."""
        return _ratio(self.intersection, self.union)

    @property
    def voe(self) -> float:
        """100 (1 - |A∩B|/|A∪B|) in percent; see `metrics.voe`. The LiTS board prints it as a fraction."""
        return 100 * (1 - self.iou)

    @property
    def rvd(self) -> float:
        """100 (|A|-|B|)/|B| in percent; see `metrics.rvd`."""
        if self.reference:
            return 100 * (self.prediction - self.reference) / self.reference
        return math.inf if self.prediction else math.nan


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def count(prediction: np.ndarray, reference: np.ndarray) -> Overlap:
    """Counts the voxels of two masks of the same shape; any value but 0 is in the mask.

    Raises:
      ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, reference {reference.shape}")
    prediction, reference = prediction.astype(bool, copy=False), reference.astype(bool, copy=False)
    return Overlap(
        intersection=int(np.count_nonzero(prediction & reference)),
        prediction=int(np.count_nonzero(prediction)),
        reference=int(np.count_nonzero(reference)),
    )


def dice_per_case(overlaps: Sequence[Overlap]) -> float:
    """Returns the mean Dice over the cases in which it is defined (not both masks empty); NaN if there is none."""
    values = [overlap.dice for overlap in overlaps if not math.isnan(overlap.dice)]
    return _ratio(math.fsum(values), len(values))


def dice_per_case_lits(overlaps: Sequence[Overlap]) -> float:
    """Returns the mean Dice as the LiTS board counts it: a case in which both masks are empty adds 1.

    Only for comparison with the board's figures: a set with many tumour-free cases flatters every method.
    Bilic et al. 2023 (Med Image Anal 84:102680).
    """
    values = [1.0 if math.isnan(overlap.dice) else overlap.dice for overlap in overlaps]
    return _ratio(math.fsum(values), len(values))


def dice_global(overlaps: Sequence[Overlap]) -> float:
    """Returns 2 Σ|A∩B| / Σ(|A|+|B|), as if all cases were one; NaN if all masks are empty. Bilic et al. 2023."""
    return _ratio(
        2 * sum(overlap.intersection for overlap in overlaps),
        sum(overlap.prediction + overlap.reference for overlap in overlaps),
    )
