"""From intensities to the network's input: a window per scan, scaled to [-1, 1]; and whether they can be a scan's."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from liverjax.options import Preprocess

#: Percentiles that `body_quantiles` holds: every tenth, and every hundredth in the outermost percent at either end.
PERCENTILES = np.unique(np.r_[np.arange(1001) / 10, np.arange(100) / 100, np.arange(9900, 10000) / 100])
# A voxel brighter than so many times the 99.5th percentile is an artefact, and enters no mean.
_ARTEFACT = 100.0

# --- doubts: measured on 35 CT and 28 MR scans of five sources, see docs/inference.md.
# Voxels that are looked at, about: their shares are exact to a tenth of a percent.
_SAMPLE = 200_000
# Fewer values than this are labels: a CT stored in steps of 5 HU within [-160, 240] has 81.
_FEWEST_VALUES = 20
# Below this there is air, lung and fat in a CT (17 % of the voxels or more), in an MR scan noise (0.05 % at most).
_FAT_HU = -50.0
_LEAST_FAT = 0.01
# Below this there is nothing in a patient: scanners fill with -2000 or -3024 what lies outside the round field.
_PADDING_HU = -1500.0
# In a CT 8 % of the voxels or more are within these; less than _LEAST_TISSUE is no CT.
_TISSUE_HU = (0.0, 100.0)
_LEAST_TISSUE = 0.02


def for_scan(options: Preprocess, voxels: np.ndarray) -> Preprocess:
    """Returns the options with the modality of a scan, where they are for any: "ct" if its voxels are HU, else "mr".

    Args:
      options: those of a config.
      voxels: (x, y, z) as read. Of 35 CT scans, clipped ones and a box around a liver among them, and of 28 MR scans
        all are told right; a CT that is not in HU is scaled as MR is, by its percentiles.
    """
    if options.modality != "any":
        return options
    return dataclasses.replace(options, modality="ct" if _are_hu(*_shares(_sample(voxels))) else "mr")


class Window(NamedTuple):
    """How intensities become the network's input, by `normalise`.

    Attributes:
      low: intensity that becomes -1, as what is below.
      high: intensity that becomes 1, as what is above.
      gamma: power of the share of the way from ``low`` to ``high``.
    """

    low: float
    high: float
    gamma: float = 1.0


def intensity_window(voxels: np.ndarray, options: Preprocess) -> Window:
    """Returns the window of a scan: CT that in HU, MR percentiles of the body's voxels and `Preprocess.gamma`.

    The options are those of `for_scan`.
    """
    if options.modality == "ct":
        return Window(*options.window)
    low, high = np.percentile(_body(voxels), options.percentiles)
    return Window(float(low), float(high), options.gamma)


def body_quantiles(voxels: np.ndarray) -> np.ndarray:
    """Returns the intensities at each of `PERCENTILES` of an MR scan's body, float64: all that its windows need."""
    return np.percentile(_body(voxels), PERCENTILES).astype(np.float64)


def window_from_quantiles(quantiles: np.ndarray, options: Preprocess) -> Window:
    """Returns the window of an MR scan from its `body_quantiles`.

    It is that of `intensity_window` where the percentiles are among `PERCENTILES`. Between two of them it is
    interpolated, and differs by less than the intensities at these two do.
    """
    low, high = np.interp(options.percentiles, PERCENTILES, quantiles)
    return Window(float(low), float(high), options.gamma)


def doubts(voxels: np.ndarray, modality: str) -> list[str]:
    """Returns what speaks against intensities being a scan of a modality, each in a few words with the values.

    A constant image, a label map, a CT that is not in Hounsfield units, a scan of the other modality. Other
    intensities of MR, scaled or shifted, are as good as any.

    Args:
      voxels: (x, y, z) as read, for CT in HU.
      modality: "ct" or "mr".

    Returns:
      Nothing, of a sound scan.
    """
    sample = _sample(voxels)
    if len(np.unique(sample[:: max(1, sample.size // 10_000)])) < _FEWEST_VALUES:
        if voxels.min() == voxels.max():
            return [f"every voxel is {voxels.min():g}"]
        few = np.unique(sample)
        if len(few) < min(_FEWEST_VALUES, voxels.size) and np.array_equal(few, np.round(few)):
            named = ", ".join(f"{value:g}" for value in few)
            return [f"next to nothing but the values {named}, as in a mask: expected a scan"]
    fat, tissue = _shares(sample)
    if _are_hu(fat, tissue) == (modality == "ct"):
        return []
    values = f"values from {voxels.min():g} to {voxels.max():g}, {fat:.1%} of them below {_FAT_HU:g}"
    if modality == "mr":
        tissues = f"{tissue:.1%} within {_TISSUE_HU[0]:g} to {_TISSUE_HU[1]:g}"
        return [f"{values} and {tissues}, as Hounsfield units have them: use a model for CT"]
    if fat < _LEAST_FAT:
        expected = "where Hounsfield units have air at -1000 and fat at -100"
    else:
        expected = (
            f"{tissue:.1%} within {_TISSUE_HU[0]:g} to {_TISSUE_HU[1]:g}, where Hounsfield units have tissues"
        )
    return [f"{values}, {expected}: convert them to Hounsfield units, or use a model for MR"]


def _sample(voxels: np.ndarray) -> np.ndarray:
    """Returns about `_SAMPLE` of the voxels, evenly spaced."""
    step = max(1, int((voxels.size / _SAMPLE) ** (1 / voxels.ndim)))
    return voxels[(slice(None, None, step),) * voxels.ndim].ravel()


def _shares(sample: np.ndarray) -> tuple[float, float]:
    """Returns which shares of the voxels would be air, lung or fat, and which tissue, if they were HU."""
    inside = sample[sample > _PADDING_HU]
    if not inside.size:
        return 0.0, 0.0
    fat = np.mean(inside < _FAT_HU)
    return float(fat), float(np.mean((inside >= _TISSUE_HU[0]) & (inside <= _TISSUE_HU[1])))


def _are_hu(fat: float, tissue: float) -> bool:
    return fat >= _LEAST_FAT and tissue >= _LEAST_TISSUE


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


def normalise(voxels: np.ndarray, low: float, high: float, gamma: float = 1.0) -> np.ndarray:
    """Returns float32 voxels in [-1, 1]: 2 ((v - low) / (high - low))^gamma - 1 within a `Window`, the rest clipped.

    An empty window (`low` equal to `high`, as of a constant image) is taken as the middle of the scale at `low`, and -1
    and 1 beside it.
    """
    half = max((high - low) / 2, 1e-30)
    # In place: new memory for each step would take longer than the step.
    out = np.subtract(voxels, np.float32((low + high) / 2), dtype=np.float32)
    np.divide(out, np.float32(half), out=out)
    np.clip(out, -1, 1, out=out)
    if gamma != 1:
        out = 2 * ((out + 1) / 2) ** np.float32(gamma) - 1
    return out
