"""Scores of one case: every metric of its liver and its tumours, and its lesions."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from liverjax import labels
from liverjax.errors import InputError, did_you_mean
from liverjax.scans import nifti
from liverjax.scoring import lesions, lits, lits_compat, miccai, overlap, surface
from liverjax.scoring.pairing import Pair
from liverjax.volume import Volume

#: What may keep a region of a case from being scored as usual; the empty string where nothing does.
STATES = ("both empty", "reference empty", "prediction empty", "prediction missing", "not labelled")

#: Columns of a lesion's row. Its centre is in RAS+ world coordinates; lesions of one match correspond.
LESION_COLUMNS = (
    "case", "side", "lesion", "size", "diameter_mm", "volume_ml", "x_mm", "y_mm", "z_mm", "match",
    "dice", "iou", "detected_0", "detected_0.5",
)  # fmt: skip


class Region:
    """One region's prediction and reference, and what its metrics share, computed once and if asked for.

    Attributes:
      overlap: voxel counts.
      voxel_ml: volume of a voxel in millilitres.
    """

    def __init__(self, prediction: np.ndarray, reference: np.ndarray, spacing: np.ndarray):
        self._masks = prediction, reference, spacing
        self.overlap = overlap.count(prediction, reference)
        self.voxel_ml = float(np.prod(spacing)) / 1000

    @functools.cached_property
    def voxels(self) -> surface.VoxelDistances:
        """Distances between the surface voxels."""
        return surface.between_voxels(*self._masks)

    @functools.cached_property
    def elements(self) -> surface.ElementDistances:
        """Distances between the surface elements."""
        return surface.between_elements(*self._masks)

    @property
    def miccai(self) -> float:
        """The MICCAI score."""
        return miccai.score({name: METRICS[name](self) for name in miccai.REFERENCES})

    @property
    def state(self) -> str:
        """Which of the masks is empty, in words."""
        empty = self.overlap.prediction == 0, self.overlap.reference == 0
        return {
            (True, True): "both empty",
            (True, False): "prediction empty",
            (False, True): "reference empty",
        }.get(empty, "")


#: Metrics of a region by name. Dice, IoU and NSD are shares, VOE and RVD percent, MICCAI points of 100,
#: distances millimetres, volumes millilitres. ``nsd_5mm`` and other tolerances are understood too.
METRICS: dict[str, Callable[[Region], float]] = {
    "dice": lambda region: region.overlap.dice,
    "iou": lambda region: region.overlap.iou,
    "voe": lambda region: region.overlap.voe,
    "rvd": lambda region: region.overlap.rvd,
    "assd": lambda region: region.voxels.assd,
    "rmsd": lambda region: region.voxels.rmsd,
    "msd": lambda region: region.voxels.msd,
    "hd95": lambda region: region.voxels.hd95,
    "hd95_max_of_directed": lambda region: region.voxels.hd95_max_of_directed,
    "hd95_area_weighted": lambda region: region.elements.hd95_area_weighted,
    "nsd_2mm": lambda region: region.elements.nsd(2.0),
    "miccai": lambda region: region.miccai,
    "prediction_ml": lambda region: region.overlap.prediction * region.voxel_ml,
    "reference_ml": lambda region: region.overlap.reference * region.voxel_ml,
}


def metric(name: str) -> Callable[[Region], float]:
    """Returns the metric of that name.

    Raises:
      InputError: there is none.
    """
    tolerance = re.fullmatch(r"nsd_(\d+(?:\.\d+)?)mm", name)
    if tolerance:
        return lambda region: region.elements.nsd(float(tolerance[1]))
    if name not in METRICS:
        raise InputError(f"metric {name!r} does not exist{did_you_mean(name, METRICS)}")
    return METRICS[name]


@dataclasses.dataclass(frozen=True)
class CaseScores:
    """What is known of a case once it is scored.

    Attributes:
      regions: a row per region, with the metrics and voxel counts.
      lesions: a row per lesion; none where tumours are not labelled.
      lits: what the LiTS table needs, or None where tumours are not labelled.
      lits_compat: what the table of the 2017 scorer needs, or None where that scorer crashes.
    """

    regions: list[dict]
    lesions: list[dict]
    lits: lits.Case | None
    lits_compat: lits_compat.Case | None


def score(pair: Pair, metrics: Sequence[str]) -> CaseScores:
    """Scores one case from its files, in the geometry of its reference.

    Raises:
      InputError: a mask cannot be read, holds other labels, or the two do not lie voxel on voxel.
    """
    reference = pair.reference.read_mask()
    if pair.prediction is None:
        predicted = np.zeros_like(reference.voxels)
    else:
        prediction = nifti.read_mask(pair.prediction)
        nifti.require_same_geometry(prediction, reference)
        predicted = prediction.voxels
    # Every metric holds what is outside the box for background.
    box = surface.bounding_box(predicted | reference.voxels)
    predicted, referenced, spacing = predicted[box], reference.voxels[box], reference.spacing
    rows = []
    for name, ids in labels.REGIONS.items():
        if pair.reference.liver_only and labels.LIVER not in ids:
            region, state = Region(*np.zeros((2, 0, 0, 0), bool), spacing), "not labelled"
            values = dict.fromkeys(metrics, math.nan)
        else:
            region = Region(_mask(predicted, ids), _mask(referenced, ids), spacing)
            state = region.state if pair.prediction else "prediction missing"
            values = {metric_name: metric(metric_name)(region) for metric_name in metrics}
        rows.append(
            {
                "case": pair.reference.id,
                "region": name,
                "state": state,
                **values,
                "voxels_both": region.overlap.intersection,
                "voxels_prediction": region.overlap.prediction,
                "voxels_reference": region.overlap.reference,
                "voxels_scan": reference.voxels.size,
            }
        )
    if pair.reference.liver_only:
        return CaseScores(rows, [], None, None)
    table = lits.score(predicted, referenced, spacing)
    corner = [part.start or 0 for part in box]
    return CaseScores(
        rows,
        [_lesion_row(pair.reference.id, lesion, reference, corner) for lesion in table.lesions],
        table,
        lits_compat.score(predicted, referenced, spacing),
    )


def _mask(voxels: np.ndarray, ids: Iterable[int]) -> np.ndarray:
    return np.logical_or.reduce([voxels == id for id in ids])


def _lesion_row(case: str, lesion: lesions.Lesion, reference: Volume, corner: Sequence[int]) -> dict:
    centre = (reference.affine @ [*np.add(lesion.centre, corner), 1])[:3].tolist()
    match = "" if lesion.match is None else lesion.match + 1
    detected = (lesion.iou > threshold for threshold in lesions.THRESHOLDS)
    values = (case, lesion.side, lesion.id, lesion.size, lesion.diameter_mm, lesion.volume_ml, *centre, match)
    return dict(zip(LESION_COLUMNS, (*values, lesion.dice, lesion.iou, *detected), strict=True))
