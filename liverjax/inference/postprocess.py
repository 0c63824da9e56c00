"""Clean-up of predicted masks in the scan's own grid, step by step as the config asks for it.

Voxels of the liver or a tumour are connected if they touch by a face, an edge or a corner (26 neighbours), those of
the background only by a face (6): then no component of the one is cut through by a component of the other.
"""

from __future__ import annotations

import math

import numpy as np

from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.objects import components
from liverjax.objects.components import Spacing
from liverjax.options import Predict


def clean(labels: np.ndarray, spacing: Spacing, options: Predict) -> np.ndarray:
    """Returns the labels after the steps that the options ask for, in the order of this function.

    Args:
      labels: (x, y, z) uint8.
      spacing: voxel size in mm along x, y, z.
      options: which steps.
    """
    foreground = labels != BACKGROUND
    if not foreground.any():
        return labels
    # Nothing changes outside the box around the liver, a small share of the scan.
    box = components.bounding_box(foreground)
    within = labels[box]
    voxel_mm3 = math.prod(spacing)
    if options.tumor_within_liver:
        within = tumor_within_liver(within)
    if options.fill_holes:
        within = fill_holes(within)
    if options.largest_component:
        within = largest_liver_component(within)
    within = remove_small(within, options.min_liver_mm3 / voxel_mm3, options.min_tumor_mm3 / voxel_mm3)
    cleaned = labels.copy()
    cleaned[box] = within
    return cleaned


def tumor_within_liver(labels: np.ndarray) -> np.ndarray:
    """Returns the labels without the tumours that touch no liver."""
    with_liver = components.touching(labels != BACKGROUND, labels == LIVER)
    return np.where(with_liver, labels, np.uint8(BACKGROUND))


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Returns the labels with enclosed background filled: with tumour where a tumour alone encloses it."""
    enclosed = components.holes(labels == TUMOR) & (labels == BACKGROUND)
    filled = np.where(enclosed, np.uint8(TUMOR), labels)
    return np.where(components.holes(filled != BACKGROUND), np.uint8(LIVER), filled)


def largest_liver_component(labels: np.ndarray) -> np.ndarray:
    """Returns the labels of the largest connected component of the liver, tumours included, alone."""
    return np.where(components.largest(labels != BACKGROUND), labels, np.uint8(BACKGROUND))


def remove_small(labels: np.ndarray, min_liver: float, min_tumor: float) -> np.ndarray:
    """Returns the labels without components of fewer voxels: liver becomes background, tumour becomes liver."""
    tumors = labels == TUMOR
    small_tumors = tumors & ~components.without_small(tumors, min_tumor)
    labels = np.where(small_tumors, np.uint8(LIVER), labels)
    return np.where(components.without_small(labels != BACKGROUND, min_liver), labels, np.uint8(BACKGROUND))
