"""Where the networks are unsure: maps over the working grid."""

from __future__ import annotations

import numpy as np

from liverjax.inference.fuse import Fused
from liverjax.prediction import Uncertainty


def uncertainty_maps(fused: Fused) -> Uncertainty:
    """Returns the maps of a fusion with ``member_entropy``."""
    classes = fused.probabilities.shape[-1]
    total = _entropy(fused.probabilities)
    most = np.float32(np.log(classes))
    # Rounding can put the mean's entropy a trifle below the mean entropy, which it never is.
    return Uncertainty(total / most, np.maximum(total - fused.member_entropy, 0) / most)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy in nats over the last axis, class by class: few arrays of a volume's size at once."""
    total = np.zeros(probabilities.shape[:-1], np.float32)
    for share in np.moveaxis(probabilities, -1, 0):
        total -= share * np.log(np.maximum(share, np.finfo(np.float32).tiny))
    return np.maximum(total, 0)
