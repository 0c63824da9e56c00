"""From a liver and what is decided to be tumour to the mask of both, with its lesions as a list."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from liverjax.inference.postprocess import fill_holes
from liverjax.labels import BACKGROUND, TUMOR
from liverjax.objects import components
from liverjax.objects.filter import Filtered
from liverjax.options import Predict
from liverjax.prediction import FoundLesion
from liverjax.volume import Volume


def accepted(liver: Volume, decided: np.ndarray, options: Predict) -> tuple[Volume, list[FoundLesion]]:
    """Returns the mask of a liver united with tumours, and the lesions in it.

    Args:
      liver: (x, y, z), not 0 in the liver, which stays as it is.
      decided: (x, y, z) bool, tumour.
      options: ``min_tumor_mm3`` (smaller tumours are dropped), ``tumor_within_liver`` (those that touch no liver are)
        and ``fill_holes``.
    """
    labels = _united(liver, decided, options)
    tumors = labels.voxels == TUMOR
    box = components.bounding_box(tumors)
    ids = components.label(tumors[box])
    found = components.lesions(ids, labels.spacing, [along.start or 0 for along in box])
    return labels, [
        FoundLesion(one.volume_ml, one.volume_ml, one.diameter_mm, _placed(liver, one.centre))
        for one in found
    ]


def filtered(
    liver: Volume, decided: np.ndarray, found: Filtered, options: Predict
) -> tuple[Volume, list[FoundLesion]]:
    """Returns the mask of a liver united with the tumours that a lesion filter keeps, and all candidates as lesions.

    Of a candidate that is kept, tumour is what was decided to be; if nothing of it was, all of it.

    Args:
      liver: as of `accepted`.
      decided: likewise.
      found: what the filter says.
      options: likewise.
    """
    frame, ids = found.candidates.frame, found.candidates.ids
    inside = frame.crop(decided)
    kept = np.append(False, found.kept)
    unseen = kept & (np.bincount(ids[inside], minlength=len(kept)) == 0)
    labels = _united(liver, frame.on_scan((inside & kept[ids]) | unseen[ids]), options)
    voxels = np.bincount(ids[frame.crop(labels.voxels == TUMOR)], minlength=len(kept))
    mm3 = math.prod(labels.spacing.tolist())
    each = zip(components.lesions(ids, frame.spacing), voxels[1:], found.probabilities, strict=True)
    return labels, [
        FoundLesion(
            float(count) * mm3 / 1000,
            one.volume_ml,
            one.diameter_mm,
            _placed(liver, frame.index_on_scan(one.centre)),
            float(chance),
        )
        for one, count, chance in each
    ]


def _united(liver: Volume, decided: np.ndarray, options: Predict) -> Volume:
    foreground = (liver.voxels != 0) | decided
    labels = np.zeros(liver.shape, np.uint8, order="F")
    box = components.bounding_box(foreground)
    own = liver.voxels[box] != 0
    least = options.min_tumor_mm3 / math.prod(liver.spacing.tolist())
    within = own.astype(np.uint8)
    within[components.without_small(decided[box], least)] = TUMOR
    if options.tumor_within_liver:
        # Of the liver model: tumours may cover all of a small one.
        within[~components.touching(within != BACKGROUND, own)] = BACKGROUND
    labels[box] = fill_holes(within) if options.fill_holes else within
    return liver.with_voxels(labels)


def _placed(scan: Volume, index: Iterable[float]) -> tuple[float, float, float]:
    """Returns the place in mm (RAS+) of a voxel index, fractions included."""
    x, y, z = (scan.affine[:3, :3] @ np.array([*index]) + scan.affine[:3, 3]).tolist()
    return x, y, z
