"""Scores of one case: every metric of its liver and its tumours, and its lesions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from liverjax import labels
from liverjax.objects.components import bounding_box
from liverjax.scans import nifti
from liverjax.scoring import lits, lits_compat
from liverjax.scoring.metrics import Region, metric
from liverjax.scoring.pairing import Pair
from liverjax.volume import Volume

#: Why a region of a case is not scored as usual; the empty string if it is.
STATES = ("both empty", "reference empty", "prediction empty", "prediction missing", "not labelled")

#: Columns of a lesion's row. Its centre is in RAS+ world coordinates; lesions with the same match correspond.
LESION_COLUMNS = (
    "case", "side", "lesion", "size", "diameter_mm", "volume_ml", "x_mm", "y_mm", "z_mm", "match",
    "dice", "iou", "detected_0", "detected_0.5",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CaseScores:
    """The scores of a case.

    Attributes:
      regions: a row per region, with the metrics and voxel counts.
      lesions: a row per lesion; none if tumours are not labelled.
      lits: what the LiTS table needs, or None if tumours are not labelled.
      lits_compat: what the table of the 2017 scorer needs, or None if that scorer crashes on the case.
    """

    regions: list[dict]
    lesions: list[dict]
    lits: lits.Case | None
    lits_compat: lits_compat.Case | None


def score(pair: Pair, metrics: Sequence[str], regions: Sequence[str] = tuple(labels.REGIONS)) -> CaseScores:
    """Scores one case from its files, in the geometry of its reference.

    Args:
      pair: the files.
      metrics: names of metrics.
      regions: out of `liverjax.labels.REGIONS`; lesions belong to "tumor".

    Raises:
      InputError: a mask cannot be read or holds other labels, or the grids of the two masks differ.
    """
    reference = pair.reference.read_mask()
    prediction = pair.read_prediction()
    if prediction is None:
        predicted = np.zeros_like(reference.voxels)
    else:
        nifti.require_same_geometry(prediction, reference)
        predicted = prediction.voxels
    # All metrics count what is outside the box as background.
    box = bounding_box(predicted | reference.voxels)
    predicted, referenced, spacing = predicted[box], reference.voxels[box], reference.spacing
    rows = []
    for name in regions:
        ids = labels.REGIONS[name]
        if pair.reference.liver_only and labels.LIVER not in ids:
            nothing = np.zeros((0, 0, 0), bool)
            region, state = Region(nothing, nothing, spacing), "not labelled"
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
    if pair.reference.liver_only or "tumor" not in regions:
        return CaseScores(rows, [], None, None)
    table = lits.score(predicted, referenced, spacing)
    corner = [along.start or 0 for along in box]
    return CaseScores(
        rows,
        [_lesion_row(pair.reference.id, lesion, reference, corner) for lesion in table.lesions],
        table,
        lits_compat.score(predicted, referenced, spacing),
    )


def _mask(voxels: np.ndarray, ids: Iterable[int]) -> np.ndarray:
    return np.logical_or.reduce([voxels == id for id in ids])


def _lesion_row(case: str, scored: lits.ScoredLesion, reference: Volume, corner: Sequence[int]) -> dict:
    lesion = scored.lesion
    centre = (reference.affine @ [*np.add(lesion.centre, corner), 1])[:3].tolist()
    match = "" if scored.match is None else scored.match + 1
    detected = (scored.iou > threshold for threshold in lits.THRESHOLDS)
    values = (case, scored.side, lesion.id, scored.size, lesion.diameter_mm, lesion.volume_ml, *centre, match)
    return dict(zip(LESION_COLUMNS, (*values, scored.dice, scored.iou, *detected), strict=True))
