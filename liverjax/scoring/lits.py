"""The table of the LiTS board for a set of tumour segmentations.

Bilic et al. 2023 (Med Image Anal 84:102680). Overlap and distances of lesions are means over the detected
pairs (IoU above 0.5) of the whole set, precision and recall are pooled over its cases. What the scorer of
2017 computed instead, by mistake, is `lits_compat`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from liverjax import labels
from liverjax.scoring import overlap, statistics, surface
from liverjax.scoring.lesions import THRESHOLDS, Lesion, detection, find
from liverjax.scoring.overlap import Overlap

#: Metrics of a detected pair: Dice, VOE and RVD in percent, distances (18 neighbours) in mm.
PAIR_METRICS = ("dice", "voe", "rvd", "assd", "rmsd", "msd")


@dataclasses.dataclass(frozen=True)
class Case:
    """What the table needs of a case.

    Attributes:
      tumor: voxel counts of the tumour masks.
      lesions: records of the lesions.
      corresponding_dice: Dice of each match, detected or not.
      pairs: `PAIR_METRICS` of each detected match.
      burden_error: tumour burden of the prediction minus that of the reference; see `burden_error`.
      false_positive_ml: volume of predicted tumour if the reference has none, else None.
    """

    tumor: Overlap
    lesions: list[Lesion]
    corresponding_dice: list[float]
    pairs: list[dict[str, float]]
    burden_error: float
    false_positive_ml: float | None


def score(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> Case:
    """Scores one case.

    Args:
      prediction: (x, y, z) label ids.
      reference: (x, y, z) label ids, of the same shape.
      spacing: voxel size in mm along x, y, z.
    """
    tumors = prediction == labels.TUMOR, reference == labels.TUMOR
    found = find(*tumors, spacing)
    counted = overlap.count(*tumors)
    return Case(
        tumor=counted,
        lesions=found.records,
        corresponding_dice=[match.overlap.dice for match in found.matches],
        pairs=[
            pair_metrics(*found.masks(match), spacing)
            for match in found.matches
            if match.overlap.iou > THRESHOLDS[-1]
        ],
        burden_error=burden_error(prediction, reference),
        false_positive_ml=None if counted.reference else counted.prediction * math.prod(spacing) / 1000,
    )


def pair_metrics(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Returns `PAIR_METRICS` of (x, y, z) masks of a match."""
    counted = overlap.count(prediction, reference)
    distances = surface.between_voxels(prediction, reference, spacing)
    values = (counted.dice, counted.voe, counted.rvd, distances.assd, distances.rmsd, distances.msd)
    return dict(zip(PAIR_METRICS, values, strict=True))


def burden(mask: np.ndarray) -> float:
    """Returns the tumour burden of label ids: tumour voxels over those of the liver with its tumours."""
    liver = np.count_nonzero(mask >= labels.LIVER)
    return np.count_nonzero(mask == labels.TUMOR) / liver if liver else math.nan


def burden_error(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the burden of the prediction minus that of the reference.

    NaN if the reference has no liver; infinite if the prediction alone has none, for a liver that was
    missed must not improve a mean.
    """
    predicted, referenced = burden(prediction), burden(reference)
    if math.isnan(predicted) and not math.isnan(referenced):
        return math.inf
    return predicted - referenced


def table(cases: Sequence[Case]) -> dict:
    """Returns the board's table, and what it leaves out.

    Keys: ``dice_per_case``, ``dice_per_case_lits`` (both empty counts 1, as on the board), ``dice_global``;
    ``dice_per_lesion`` (mean over all reference lesions, 0 for one without match), ``dice_per_corresponding_
    lesion`` (mean over matches); ``dice``, ``voe``, ``rvd``, ``assd``, ``rmsd``, ``msd`` (mean over detected
    pairs; VOE and RVD in percent where the board has fractions); ``detection``: for each threshold and size
    the counts, precision, recall and F1; ``burden_rmse`` and ``burden_max`` (largest absolute error), in
    shares of the liver, and ``burden_undefined``; ``tumor_free``: number of cases without tumour in the
    reference, how many of them have a false lesion, number and volume in ml of these.
    """
    tumors = [case.tumor for case in cases]
    records = [record for case in cases for record in case.lesions]
    pairs = [pair for case in cases for pair in case.pairs]
    errors = np.array([case.burden_error for case in cases if not math.isnan(case.burden_error)])
    free = [case for case in cases if case.false_positive_ml is not None]
    referenced = [record.dice for record in records if record.side == "reference"]
    return {
        "cases": len(cases),
        "dice_per_case": overlap.dice_per_case(tumors),
        "dice_per_case_lits": overlap.dice_per_case_lits(tumors),
        "both_empty": sum(math.isnan(tumor.dice) for tumor in tumors),
        "dice_global": overlap.dice_global(tumors),
        "dice_per_lesion": statistics.describe(referenced)["mean"],
        "dice_per_corresponding_lesion": statistics.describe(
            [dice for case in cases for dice in case.corresponding_dice]
        )["mean"],
        "detected_pairs": len(pairs),
        **{name: statistics.describe([pair[name] for pair in pairs])["mean"] for name in PAIR_METRICS},
        "detection": {
            f"iou_above_{threshold:g}": {
                size: _detection([record for record in records if size in ("all", record.size)], threshold)
                for size in ("all", "small", "medium", "large")
            }
            for threshold in THRESHOLDS
        },
        "burden_rmse": math.sqrt(np.square(errors).mean()) if errors.size else math.nan,
        "burden_max": float(np.abs(errors).max()) if errors.size else math.nan,
        "burden_undefined": len(cases) - errors.size,
        "tumor_free": {
            "cases": len(free),
            "with_false_lesion": sum(case.tumor.prediction > 0 for case in free),
            "false_lesions": sum(len(case.lesions) for case in free),
            "false_ml": math.fsum(case.false_positive_ml for case in free),
        },
    }


def _detection(records: list[Lesion], threshold: float) -> dict[str, float]:
    counted = detection(records, threshold)
    scores = {"precision": counted.precision, "recall": counted.recall, "f1": counted.f1}
    return {**dataclasses.asdict(counted), **scores}
