"""What a model says of scans whose masks are known: the material to fit a calibration with, and to judge doubt."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from liverjax import labels as label_ids
from liverjax.datasets.layouts import Case, find_cases
from liverjax.errors import InputError
from liverjax.inference.segmenter import Segmenter
from liverjax.prediction import Prediction
from liverjax.scans import nifti
from liverjax.scans.grid import to_grid
from liverjax.volume import Volume

#: Voxels looked at lie in the box around the liver with this margin, in mm: elsewhere all is air and no doubt.
MARGIN = 30.0
_VOXELS_PER_CASE = 100_000
_TINY = np.float32(1e-7)


@dataclasses.dataclass(frozen=True)
class Voxels:
    """A sample of a case's voxels on the working grid.

    Attributes:
      logs: (members, n, C) float32, logarithm of the softmax of each view's networks, all members of a view in turn.
      labels: (n,) uint8, class of the reference.
    """

    logs: np.ndarray
    labels: np.ndarray


def labelled_cases(model: Segmenter, source: str | os.PathLike, subset: str) -> list[Case]:
    """Returns the cases of a data set that have a mask and were in a subset of the model's split.

    Raises:
      InputError: there are none.
    """
    cases = [case for case in find_cases(source) if case.id in model.subsets[subset] and case.label]
    if not cases:
        raise InputError(f"{source}: holds no {subset} case with a mask, expected {model.subsets[subset]}")
    return cases


def sample(model: Segmenter, case: Case) -> Voxels:
    """Returns voxels of a case in the box around its liver, drawn evenly, at most a fixed number."""
    scan, mask = _scan_and_mask(case)
    alone, grid = model.view_probabilities(scan)
    labels = to_grid(mask, model.config.preprocess.spacing, labels=True).voxels
    labels = np.minimum(labels, len(model.config.labels) - 1)
    if not labels.any():
        raise InputError(f"{case.label}: holds no liver, expected one to calibrate on")
    margin = np.ceil(MARGIN / np.linalg.norm(grid.affine[:3, :3], axis=0)).astype(int)
    places = np.nonzero(labels != label_ids.BACKGROUND)
    box = tuple(slice(max(p.min() - m, 0), p.max() + m + 1) for p, m in zip(places, margin, strict=True))
    inside = labels[box].ravel()
    count = min(_VOXELS_PER_CASE, inside.size)
    chosen = np.random.default_rng(0).choice(inside.size, count, replace=False)
    shares = np.stack(
        [own[box].reshape(inside.size, -1)[chosen] for view in model.config.views for own in alone[view]]
    )
    return Voxels(np.log(np.maximum(shares, _TINY)), inside[chosen])


def predicted_and_reference(model: Segmenter, case: Case) -> tuple[Prediction, np.ndarray]:
    """Returns the prediction of a case, and the labels of its reference, voxel on voxel with the scan."""
    scan, mask = _scan_and_mask(case)
    return model.predict(scan), mask.voxels


def _scan_and_mask(case: Case) -> tuple[Volume, Volume]:
    scan, mask = nifti.read(case.image), case.read_mask()
    nifti.require_same_geometry(scan, mask)
    return scan, mask
