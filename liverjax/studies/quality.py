"""Whether slice quality finds the slices that need correction, on held-out cases whose masks are known.

Over the axial slices with liver in prediction or reference, those with a Dice of the liver below `GOOD_DICE` are to
be found, by a low expected Dice (`Prediction.slice_quality`). The rival is the predicted area, small first: slices at
the liver's ends are small, and hard. Slices of one case are alike, so intervals are bootstrapped over whole cases.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np

from liverjax.errors import InputError
from liverjax.prediction import Prediction
from liverjax.pretrained.load import load_model
from liverjax.scans import AS_STORED, Reading
from liverjax.scoring import overlap
from liverjax.scoring.statistics import auroc, clustered_interval
from liverjax.studies.calibration import labelled_scans

#: Dice of a slice from which it is good enough to be left alone.
GOOD_DICE = 0.9


class Slices(NamedTuple):
    """Axial slices with liver in prediction or reference; all (n,).

    Attributes:
      case: id of the case.
      dice: of the liver with its tumours, prediction against reference.
      quality: of `Prediction.slice_quality`, the expected Dice.
      area: predicted, in mm2.
    """

    case: np.ndarray
    dice: np.ndarray
    quality: np.ndarray
    area: np.ndarray

    @property
    def poor(self) -> np.ndarray:
        """(n,) bool, which slices are to be found."""
        return self.dice < GOOD_DICE


def held_out_slices(
    models: Sequence[str | os.PathLike],
    source: str | os.PathLike,
    *,
    reading: Reading = AS_STORED,
    quiet: bool = False,
) -> Slices:
    """Predicts the test cases of each model; returns the slices of all together.

    Args:
      models: folders of runs, such as the folds of a cross-validation.
      source: data set with their test cases and masks.
      reading: phase, series and spacing of all scans, where their files leave them open.
      quiet: show no progress bar.

    Raises:
      InputError: there is no model, or the data set holds no test case of one of them with its mask.
      CheckpointError: one of them cannot be loaded.
    """
    if not models:
        raise InputError("no model was given, expected the folder of one or more runs")
    found = []
    for path in models:
        model = load_model(path)
        for case, scan, mask in labelled_scans(model, source, "test", reading=reading, quiet=quiet):
            found.append(scored_slices(case.id, model.predict(scan), mask.voxels))
    return Slices(*(np.concatenate(column) for column in zip(*found, strict=True)))


def scored_slices(case: str, prediction: Prediction, reference: np.ndarray) -> Slices:
    """Returns the slices of one case, along the scan's axis nearest to superior.

    Args:
      case: its id.
      prediction: of the case.
      reference: labels, voxel on voxel with the scan.
    """
    labels = prediction.labels
    axis = nib.orientations.io_orientation(labels.affine)[:, 0].tolist().index(2)
    pairs = zip(*(np.moveaxis(mask != 0, axis, 0) for mask in (labels.voxels, reference)), strict=True)
    counts = [overlap.count(*pair) for pair in pairs]
    dice = np.array([count.dice for count in counts])
    area = np.array([count.prediction for count in counts]) * np.delete(labels.spacing, axis).prod()
    columns = np.full(len(counts), case), dice, prediction.slice_quality(), area
    return Slices(*(column[~np.isnan(dice)] for column in columns))


def ranking(slices: Slices) -> dict[str, tuple[float, float, float]]:
    """Returns how well the poor slices are ranked first, by AUROC with its 95 % interval.

    Keys: "slice quality" (low first), "predicted area" (small first), and their "difference".
    """

    def both(chosen: np.ndarray) -> np.ndarray:
        quality, area = _aurocs(Slices(*(column[chosen] for column in slices)))
        return np.array([quality, area, quality - area])

    values = both(np.arange(len(slices.case)))
    low, high = clustered_interval(both, slices.case)
    names = ("slice quality", "predicted area", "difference")
    rows = np.stack([values, low, high], axis=1)
    return dict(zip(names, map(tuple, rows.tolist()), strict=True))


def _aurocs(slices: Slices) -> tuple[float, float]:
    return auroc(-slices.quality, slices.poor), auroc(-slices.area, slices.poor)


def table(slices: Slices) -> str:
    """Returns the ranking as text: of each case by itself, then of all."""
    lines = [f"{'case':14} slices  Dice < {GOOD_DICE}  slice quality  predicted area"]
    for case in dict.fromkeys(slices.case.tolist()):
        own = Slices(*(column[slices.case == case] for column in slices))
        quality, area = _aurocs(own)
        lines.append(f"{case:14} {len(own.dice):6} {own.poor.sum():11} {quality:14.2f} {area:15.2f}")
    lines.append(f"{'all':14} {len(slices.dice):6} {slices.poor.sum():11}")
    for name, (value, low, high) in ranking(slices).items():
        lines.append(f"AUROC, {name:15} {value:5.2f} ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
