"""Clean-up of predicted masks in the scan's own grid."""

from __future__ import annotations

import cc3d
import numpy as np

from liverjax import labels as label_ids


def largest_liver_component(labels: np.ndarray) -> np.ndarray:
    """Returns labels with only the largest connected piece of the liver, tumours included; the rest is background.

    Voxels that touch by a face, an edge or a corner are connected (26 neighbours).

    Args:
      labels: (x, y, z) uint8.
    """
    if not labels.any():
        return labels
    largest = cc3d.largest_k(labels != label_ids.BACKGROUND, k=1, connectivity=26)
    return np.where(largest.astype(bool), labels, np.uint8(label_ids.BACKGROUND))
