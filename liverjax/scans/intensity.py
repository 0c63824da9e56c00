"""From intensities to the network's input: a window per scan, scaled to [-1, 1]."""

from __future__ import annotations

import numpy as np

from liverjax.options import Preprocess

#: Percentiles that `body_quantiles` holds: every tenth, and every hundredth in the outermost percent at either end.
PERCENTILES = np.unique(np.r_[np.arange(1001) / 10, np.arange(100) / 100, np.arange(9900, 10000) / 100])
# A voxel brighter than so many times the 99.5th percentile is an artefact, and enters no mean.
_ARTEFACT = 100.0


def intensity_window(voxels: np.ndarray, options: Preprocess) -> tuple[float, float]:
    """Returns the intensities that become -1 and 1: CT the HU window, MR percentiles of the body's voxels."""
    if options.modality == "ct":
        return options.window
    low, high = np.percentile(_body(voxels), options.percentiles)
    return float(low), float(high)


def body_quantiles(voxels: np.ndarray) -> np.ndarray:
    """Returns the intensities at each of `PERCENTILES` of an MR scan's body, float64: all that its windows need."""
    return np.percentile(_body(voxels), PERCENTILES).astype(np.float64)


def window_from_quantiles(quantiles: np.ndarray, options: Preprocess) -> tuple[float, float]:
    """Returns the window of an MR scan from its `body_quantiles`.

    It is that of `intensity_window` where the percentiles are among `PERCENTILES`. Between two of them it is
    interpolated, and differs by less than the intensities at these two do.
    """
    low, high = np.interp(options.percentiles, PERCENTILES, quantiles)
    return float(low), float(high)


def _body(voxels: np.ndarray) -> np.ndarray:
    """Returns the intensities of the body: those above a quarter of the way from the darkest to the mean intensity.

    That leaves out air, which fills some half of an abdominal scan, and keeps dark tissue: a threshold at the mean
    itself, or Otsu's, cuts into dim livers.
    """
    darkest = float(voxels.min())
    # Of every seventh voxel, since only the order of magnitude matters.
    bright = _ARTEFACT * (float(np.percentile(voxels.ravel(order="K")[::7], 99.5)) - darkest)
    counted = np.minimum(voxels, darkest + bright) if bright else voxels
    return voxels[voxels >= darkest + (counted.mean(dtype=np.float64) - darkest) / 4]


def normalise(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns float32 voxels of which `low` to `high` is scaled to [-1, 1], the rest clipped.

    An empty window (`low` equal to `high`, as of a constant image) gives 0 at `low`, and -1 and 1 beside it.
    """
    half = max((high - low) / 2, 1e-30)
    # In place: new memory for each step would take longer than the step.
    out = np.subtract(voxels, np.float32((low + high) / 2), dtype=np.float32)
    np.divide(out, np.float32(half), out=out)
    return np.clip(out, -1, 1, out=out)
