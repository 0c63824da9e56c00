"""Clean-up of predicted masks in the scan's own grid, step by step as the config asks for it.

Voxels of the liver or a tumour are connected if they touch by a face, an edge or a corner (26 neighbours), those
of the background only by a face (6): then no piece of the one is cut through by a piece of the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np

from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.options import Predict


def clean(labels: np.ndarray, spacing: Sequence[float], options: Predict) -> np.ndarray:
    """Returns the labels after the steps that the options ask for, in the order of this function.

    Args:
      labels: (x, y, z) uint8.
      spacing: voxel size in mm.
      options: which steps.
    """
    foreground = labels != BACKGROUND
    if not foreground.any():
        return labels
    # All that can change lies within the box around the liver, a small part of the scan.
    box = tuple(_span(foreground, axis) for axis in range(3))
    cleaned = labels.copy()
    part = cleaned[box]
    voxel = float(np.prod(spacing))
    if options.tumor_within_liver:
        part = tumor_within_liver(part)
    if options.fill_holes:
        part = fill_holes(part)
    if options.largest_component:
        part = largest_liver_component(part)
    part = drop_small(part, options.min_liver_mm3 / voxel, options.min_tumor_mm3 / voxel)
    cleaned[box] = part
    return cleaned


def tumor_within_liver(labels: np.ndarray) -> np.ndarray:
    """Returns the labels without the tumours that touch no liver."""
    pieces = cc3d.connected_components(_bytes(labels != BACKGROUND), connectivity=26)
    with_liver = np.zeros(pieces.max() + 1, bool)
    with_liver[pieces[labels == LIVER]] = True
    return np.where(with_liver[pieces], labels, np.uint8(BACKGROUND))


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Returns the labels with enclosed background filled: with tumour where a tumour alone encloses it."""
    filled = np.where(_holes(labels == TUMOR) & (labels == BACKGROUND), np.uint8(TUMOR), labels)
    return np.where(_holes(filled != BACKGROUND), np.uint8(LIVER), filled)


def largest_liver_component(labels: np.ndarray) -> np.ndarray:
    """Returns the labels with only the largest connected piece of the liver, tumours included."""
    largest = cc3d.largest_k(_bytes(labels != BACKGROUND), k=1, connectivity=26)
    return np.where(largest.astype(bool), labels, np.uint8(BACKGROUND))


def drop_small(labels: np.ndarray, min_liver: float, min_tumor: float) -> np.ndarray:
    """Returns the labels without pieces of fewer voxels: of the liver to background, of tumours to liver."""
    small_tumors = (labels == TUMOR) & ~_large(labels == TUMOR, min_tumor)
    labels = np.where(small_tumors, np.uint8(LIVER), labels)
    return np.where(_large(labels != BACKGROUND, min_liver), labels, np.uint8(BACKGROUND))


def _large(mask: np.ndarray, voxels: float) -> np.ndarray:
    if voxels <= 1:
        return mask
    # dust removes the pieces below its threshold, which it takes as a whole number.
    return cc3d.dust(_bytes(mask), threshold=int(np.ceil(voxels)), connectivity=26).astype(bool)


def _holes(mask: np.ndarray) -> np.ndarray:
    """Returns the voxels outside the mask from which no way through faces leads out of the array."""
    # The rim joins everything that reaches the border into one piece, the first.
    outside = cc3d.connected_components(_bytes(np.pad(~mask, 1, constant_values=True)), connectivity=6)
    return ((outside != outside[0, 0, 0]) & (outside != 0))[1:-1, 1:-1, 1:-1]


def _bytes(mask: np.ndarray) -> np.ndarray:
    # cc3d takes too little memory for bool arrays of 1 x 1 x 3 voxels, and then fails.
    return mask.view(np.uint8)


def _span(mask: np.ndarray, axis: int) -> slice:
    along = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    return slice(int(along[0]), int(along[-1]) + 1)
