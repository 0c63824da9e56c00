"""Lesions that were detected, and the table of the LiTS board for a set of tumour segmentations.

Bilic et al. 2023 (Med Image Anal 84:102680). Lesions correspond as `liverjax.objects.matching` defines it; a pair is
detected if its IoU is above a threshold: 0 (any overlap) or 0.5. Overlap and distances of lesions are means over the
detected pairs (IoU above 0.5) of the whole set, precision and recall are pooled over its cases. `lits_compat` computes
what the scorer of 2017 computed instead, by mistake.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from liverjax import labels
from liverjax.objects.components import Lesion, Spacing
from liverjax.objects.matching import Matching, match_lesions
from liverjax.scoring import overlap, statistics, surface
from liverjax.scoring.overlap import Overlap

#: IoU above which a pair counts as detected.
THRESHOLDS = (0.0, 0.5)

#: Diameters in mm that divide small, medium and large; both bounds are medium.
SIZE_BOUNDS = (10.0, 20.0)

#: Metrics of a detected pair: Dice, VOE and RVD in percent, distances (18 neighbours) in mm.
PAIR_METRICS = ("dice", "voe", "rvd", "assd", "rmsd", "hausdorff")


@dataclasses.dataclass(frozen=True)
class ScoredLesion:
    """A lesion of the reference or of the prediction, and how well it was matched.

    Attributes:
      side: "reference" or "prediction".
      lesion: its number, size and place.
      match: position of its match in `Matching.matches`, or None.
      dice: Dice of its match; 0 without one.
      iou: IoU of its match; 0 without one.
    """

    side: str
    lesion: Lesion
    match: int | None
    dice: float
    iou: float

    @property
    def size(self) -> str:
        """``small`` (diameter below 10 mm), ``medium``, or ``large`` (above 20 mm)."""
        low, high = SIZE_BOUNDS
        diameter = self.lesion.diameter_mm
        return "small" if diameter < low else "large" if diameter > high else "medium"


def scored_lesions(matching: Matching) -> list[ScoredLesion]:
    """Returns every lesion with the overlap of its match, those of the reference first."""
    scored = []
    for side, lesions in (("reference", matching.referenced), ("prediction", matching.predicted)):
        of_match = {id: i for i, match in enumerate(matching.matches) for id in getattr(match, f"{side}s")}
        for lesion in lesions:
            index = of_match.get(lesion.id)
            match = None if index is None else matching.matches[index]
            dice, iou = (match.dice, match.iou) if match else (0.0, 0.0)
            scored.append(ScoredLesion(side, lesion, index, dice, iou))
    return scored


@dataclasses.dataclass(frozen=True)
class Detection:
    """How many lesions were detected.

    Attributes:
      references: number of reference lesions.
      found: how many of them are part of a detected match.
      predictions: number of predicted lesions.
      confirmed: how many of them are part of a detected match.
    """

    references: int
    found: int
    predictions: int
    confirmed: int

    @property
    def recall(self) -> float:
        """Share of the reference lesions that were found; NaN if there are none."""
        return self.found / self.references if self.references else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are confirmed; NaN if there are none."""
        return self.confirmed / self.predictions if self.predictions else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing was found, NaN if there are no lesions."""
        if not (self.references or self.predictions):
            return math.nan
        if not (self.found and self.confirmed):
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def detection(lesions: Iterable[ScoredLesion], threshold: float) -> Detection:
    """Counts the lesions whose match has an IoU above ``threshold``: of a case, a set, or a size class."""
    detected: dict[str, list[bool]] = {"reference": [], "prediction": []}
    for lesion in lesions:
        detected[lesion.side].append(lesion.iou > threshold)
    references, predictions = detected["reference"], detected["prediction"]
    return Detection(len(references), sum(references), len(predictions), sum(predictions))


@dataclasses.dataclass(frozen=True)
class Case:
    """What the table needs of a case.

    Attributes:
      tumor: voxel counts of the tumour masks.
      lesions: every lesion of the two masks.
      corresponding_dice: Dice of each match, detected or not.
      pairs: `PAIR_METRICS` of each detected match.
      burden_error: tumour burden of the prediction minus that of the reference; see `burden_error`.
      false_positive_ml: volume in ml of predicted tumour if the reference has none, else None.
    """

    tumor: Overlap
    lesions: list[ScoredLesion]
    corresponding_dice: list[float]
    pairs: list[dict[str, float]]
    burden_error: float
    false_positive_ml: float | None


def score(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Case:
    """Scores one case.

    Args:
      prediction: (x, y, z) label ids.
      reference: (x, y, z) label ids, of the same shape.
      spacing: voxel size in mm along x, y, z.
    """
    tumors = prediction == labels.TUMOR, reference == labels.TUMOR
    matching = match_lesions(*tumors, spacing)
    counted = overlap.count(*tumors)
    return Case(
        tumor=counted,
        lesions=scored_lesions(matching),
        corresponding_dice=[match.dice for match in matching.matches],
        pairs=[
            pair_metrics(*matching.masks(match), spacing)
            for match in matching.matches
            if match.iou > THRESHOLDS[-1]
        ],
        burden_error=burden_error(prediction, reference),
        false_positive_ml=None if counted.reference else counted.prediction * math.prod(spacing) / 1000,
    )


def pair_metrics(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Returns `PAIR_METRICS` of (x, y, z) masks of a match."""
    counted = overlap.count(prediction, reference)
    distances = surface.between_voxels(prediction, reference, spacing)
    values = (counted.dice, counted.voe, counted.rvd, distances.assd, distances.rmsd, distances.hausdorff)
    return dict(zip(PAIR_METRICS, values, strict=True))


def burden(mask: np.ndarray) -> float:
    """Returns the tumour burden of label ids: tumour voxels over those of the liver with its tumours."""
    liver = np.count_nonzero(mask >= labels.LIVER)
    return np.count_nonzero(mask == labels.TUMOR) / liver if liver else math.nan


def burden_error(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the burden of the prediction minus that of the reference.

    NaN if the reference has no liver; infinite if the prediction alone has none: a missed liver must not improve a
    mean.
    """
    predicted, referenced = burden(prediction), burden(reference)
    if math.isnan(predicted) and not math.isnan(referenced):
        return math.inf
    return predicted - referenced


def table(cases: Sequence[Case]) -> dict:
    """Returns the board's table, and what it leaves out.

    Keys: ``dice_per_case``, ``dice_per_case_lits`` (both empty counts 1, as on the board), ``dice_global``;
    ``dice_per_lesion`` (mean over all reference lesions, 0 for one without match), ``dice_per_corresponding_
    lesion`` (mean over matches); ``dice``, ``voe``, ``rvd``, ``assd``, ``rmsd``, ``hausdorff`` (mean over
    detected pairs; VOE and RVD in percent where the board has fractions); ``detection``: for each threshold and size
    the counts, precision, recall and F1; ``burden_rmse`` and ``burden_max`` (largest absolute error), in
    shares of the liver, and ``burden_undefined``; ``tumor_free``: number of cases without tumour in the
    reference, how many of them have a false lesion, number and volume in ml of these.
    """
    tumors = [case.tumor for case in cases]
    lesions = [lesion for case in cases for lesion in case.lesions]
    pairs = [pair for case in cases for pair in case.pairs]
    errors = np.array([case.burden_error for case in cases if not math.isnan(case.burden_error)])
    free = [case for case in cases if case.false_positive_ml is not None]
    referenced = [lesion.dice for lesion in lesions if lesion.side == "reference"]
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
                size: _detection([lesion for lesion in lesions if size in ("all", lesion.size)], threshold)
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
            "false_ml": math.fsum(case.false_positive_ml or 0.0 for case in free),
        },
    }


def _detection(lesions: list[ScoredLesion], threshold: float) -> dict[str, float]:
    counted = detection(lesions, threshold)
    scores = {"precision": counted.precision, "recall": counted.recall, "f1": counted.f1}
    return {**dataclasses.asdict(counted), **scores}
