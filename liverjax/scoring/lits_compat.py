"""The tumour table as the LiTS scorer of 2017 computed it, mistakes included, for comparison with its figures.

Use `lits` for anything else. The differences, as read in the published scorer:

- A pair's IoU is divided by a union taken with the wrong lesion ids: the prediction's own id is looked up
  among ids that had been replaced by those of the reference. Where the two differ and no other lesion
  happens to have that id, the test is |A∩B|/|B| > 0.5.
- A pair that fails subtracts as many from the true positives as reference lesions were merged in it, though it
  was counted once: precision can be negative. A pair that passes counts once, whatever was merged.
- A case without a reference tumour makes it crash. Such cases are left out here, and counted.
- A prediction without the label 1 has a tumour burden of 9001, and the largest error of the burden is that
  of reference minus prediction with its sign: an over-estimate never counts.
- Lesion metrics are fractions, and 9001 (VOE 1, Dice 0) if no lesion of the set was detected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from liverjax import labels
from liverjax.objects.components import Spacing
from liverjax.objects.matching import Match, match_lesions, shared_voxels
from liverjax.scoring import lits, overlap

#: Stands for "very wrong" in the scorer's means.
LARGE = 9001.0


@dataclasses.dataclass(frozen=True)
class Case:
    """What the table needs of a case.

    Attributes:
      counts: true positives, false positives, false negatives for an overlap above 0 and above 0.5.
      pairs: metrics of each pair that passed 0.5; VOE and RVD as fractions.
      tumor: voxel counts of the tumour masks.
      burden_error: tumour burden of the reference minus that of the prediction.
    """

    counts: dict[float, tuple[int, int, int]]
    pairs: list[dict[str, float]]
    tumor: overlap.Overlap
    burden_error: float


def score(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Case | None:
    """Scores one case from (x, y, z) label ids and the voxel size in mm; None where the scorer crashes."""
    tumors = prediction == labels.TUMOR, reference == labels.TUMOR
    if not tumors[1].any():
        return None
    matching = match_lesions(*tumors, spacing)
    shared = shared_voxels(matching.predicted_ids, matching.referenced_ids)
    n, m = len(matching.predicted), len(matching.referenced)
    counts, kept = {}, []
    for threshold in (0.0, 0.5):
        detected, kept = _detected(matching.matches, shared, threshold)
        counts[threshold] = (detected, n - detected, m - detected)
    pairs = []
    for match in kept:
        pair = lits.pair_metrics(*matching.masks(match), spacing)
        pairs.append(pair | {"voe": pair["voe"] / 100, "rvd": pair["rvd"] / 100})
    of_prediction = lits.burden(prediction) if (prediction == labels.LIVER).any() else LARGE
    return Case(counts, pairs, overlap.count(*tumors), lits.burden(reference) - of_prediction)


def _detected(matches: list[Match], shared: np.ndarray, threshold: float) -> tuple[int, list[Match]]:
    """Returns the scorer's number of detected lesions, and the matches that it keeps."""
    # The mask of detected lesions: the predictions that have a reference lesion's id.
    bearers = {match.references[0]: list(match.predictions) for match in matches}
    detected = len(matches)
    # The scorer visits the pairs in the order of their first predictions, and drops those that fail.
    for match in sorted(matches, key=lambda match: match.predictions):
        mistaken, references = bearers.get(match.predictions[0], []), list(match.references)
        union = (
            shared[mistaken].sum() + shared[:, references].sum() - shared[np.ix_(mistaken, references)].sum()
        )
        if match.voxels_both / union <= threshold:
            del bearers[references[0]]
            detected -= len(references)
    return detected, [match for match in matches if match.references[0] in bearers]


def table(cases: Sequence[Case | None]) -> dict:
    """Returns the scorer's tumour table over the cases on which it does not crash, and the numbers of both kinds.

    Without such a case the table holds only these numbers.
    """
    scored = [case for case in cases if case is not None]
    rows = {"cases": len(scored), "crashes_on": len(cases) - len(scored)}
    if not scored:
        return rows
    tumors = [case.tumor for case in scored]
    rows |= {
        "dice_per_case": overlap.dice_per_case_lits(tumors),
        "dice_global": overlap.dice_global(tumors),
    }
    nothing = {"dice": 0.0, "voe": 1.0} | dict.fromkeys(("rvd", "assd", "rmsd", "hausdorff"), LARGE)
    pairs = [pair for case in scored for pair in case.pairs] or [nothing]
    rows |= {name: float(np.mean([pair[name] for pair in pairs])) for name in lits.PAIR_METRICS}
    for threshold, suffix in ((0.5, ""), (0.0, "_greater_zero")):
        tp, fp, fn = (sum(case.counts[threshold][i] for case in scored) for i in range(3))
        rows[f"precision{suffix}"] = tp / (tp + fp) if tp + fp else 0.0
        rows[f"recall{suffix}"] = tp / (tp + fn) if tp + fn else 0.0
    errors = np.array([case.burden_error for case in scored])
    rows |= {"burden_rmse": float(np.sqrt(np.square(errors).mean())), "burden_max": float(errors.max())}
    return rows
