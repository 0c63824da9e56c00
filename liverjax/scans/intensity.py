"""From intensities to the network's input: a window per scan, scaled to [-1, 1]."""

from __future__ import annotations

import numpy as np

from liverjax.options import Preprocess


def intensity_window(voxels: np.ndarray, options: Preprocess) -> tuple[float, float]:
    """Returns the intensities that become -1 and 1: CT the HU window, MR percentiles of the body's voxels.

    The body are the voxels above a quarter of the way from the darkest to the mean intensity. That leaves out
    air, which fills some half of an abdominal scan, and keeps dark tissue: a threshold at the mean itself, or
    Otsu's, cuts into dim livers.
    """
    if options.modality == "ct":
        return options.window
    darkest = float(voxels.min())
    body = voxels[voxels >= darkest + (voxels.mean(dtype=np.float64) - darkest) / 4]
    low, high = np.percentile(body, options.percentiles)
    return float(low), float(high)


def normalise(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns float32 voxels of which `low` to `high` is scaled to [-1, 1], the rest clipped.

    An empty window (`low` equal to `high`, as of a constant image) gives 0 at `low`, and -1 and 1 beside it.
    """
    half = max((high - low) / 2, 1e-30)
    # In place: new memory for each step would take longer than the step.
    out = np.subtract(voxels, np.float32((low + high) / 2), dtype=np.float32)
    np.divide(out, np.float32(half), out=out)
    return np.clip(out, -1, 1, out=out)
