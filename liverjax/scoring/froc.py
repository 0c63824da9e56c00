"""How well scores of tumour candidates tell true from false: FROC curves, operating points, what a filter removes.

A candidate is true if it shares a voxel with a lesion of the reference; a lesion is found if one of the candidates that
share a voxel with it is kept. So one candidate can find several lesions, and several can find one. Candidates of a case
are alike, and so are cases of a patient: intervals are bootstrapped over whole patients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from liverjax.objects.candidates import Truth
from liverjax.scoring.statistics import clustered_interval


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The candidates and lesions of a set of cases.

    Attributes:
      cases: id of each case, cases without candidates included.
      patients: patient of each case.
      case: (n,) int, position of each candidate's case.
      true: (n,) bool.
      hits: (k, 2) int, pairs of a candidate and a lesion that share voxels.
      lesion_case: (m,) int, position of each lesion's case; lesions that no candidate hits included.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    case: np.ndarray
    true: np.ndarray
    hits: np.ndarray
    lesion_case: np.ndarray

    @property
    def patient(self) -> np.ndarray:
        """(n,) patient of each candidate."""
        return np.array(self.patients, dtype=object)[self.case]


def gather(truths: Sequence[Truth], cases: Sequence[str], patients: Sequence[str]) -> Cohort:
    """Returns the cohort of cases, of which the candidates were compared with the reference one by one."""
    counts = [len(truth.true) for truth in truths]
    lesions = [truth.lesions for truth in truths]
    starts = np.stack([np.cumsum([0, *counts]), np.cumsum([0, *lesions])], axis=1)
    hits = [truth.hits + start for truth, start in zip(truths, starts, strict=False)]
    return Cohort(
        tuple(cases),
        tuple(patients),
        np.repeat(np.arange(len(truths)), counts),
        np.concatenate([truth.true for truth in truths]) if truths else np.zeros(0, bool),
        np.concatenate(hits).astype(int) if truths else np.zeros((0, 2), int),
        np.repeat(np.arange(len(truths)), lesions),
    )


def best_of_lesions(cohort: Cohort, score: np.ndarray) -> np.ndarray:
    """Returns for each lesion, (m,), the greatest score of the candidates that hit it; -inf where none does."""
    best = np.full(len(cohort.lesion_case), -math.inf)
    np.maximum.at(best, cohort.hits[:, 1], score[cohort.hits[:, 0]])
    return best


@dataclasses.dataclass(frozen=True)
class Froc:
    """A free-response ROC curve, from the strictest threshold to the one that keeps every candidate; all (t,).

    Attributes:
      threshold: candidates with at least this score are kept.
      recall: share of all lesions that are found; NaN without lesions.
      false_positives: false candidates per case.
    """

    threshold: np.ndarray
    recall: np.ndarray
    false_positives: np.ndarray


def froc(cohort: Cohort, score: np.ndarray) -> Froc:
    """Returns the curve of a score, (n,), at all of its values."""
    threshold = np.unique(score)[::-1]
    best = np.sort(best_of_lesions(cohort, score))
    false = np.sort(score[~cohort.true])
    found = len(best) - np.searchsorted(best, threshold)
    wrong = len(false) - np.searchsorted(false, threshold)
    lesions = len(best) or math.nan
    return Froc(threshold, found / lesions, wrong / max(len(cohort.cases), 1))


def operating_point(cohort: Cohort, score: np.ndarray, share: float = 0.95) -> float:
    """Returns the highest threshold that keeps a share of the recall: of the lesions that any candidate hits.

    Raises:
      ValueError: no candidate hits a lesion, or the share is not in (0, 1].
    """
    best = np.sort(best_of_lesions(cohort, score))[::-1]
    found = int(np.isfinite(best).sum())
    if not found or not 0 < share <= 1:
        raise ValueError(f"share {share} of {found} lesions that are found, expected 0 to 1 of one or more")
    # A hair less, so that 0.95 of 20 is 19 in spite of rounding.
    return float(best[math.ceil(share * found - 1e-9) - 1])


#: Rows of `effect`, with what they say.
EFFECTS = {
    "recall_before": "lesions found by any candidate, of all",
    "recall_after": "lesions found by a kept candidate, of all",
    "recall_lost": "recall before minus after",
    "false_positives_before": "false candidates per case",
    "false_positives_after": "false candidates per case that are kept",
    "false_positives_removed": "false candidates that are removed, of all",
}


def effect(cohort: Cohort, kept: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Returns what a filter does, as `EFFECTS` names it: value and 95 % interval (bootstrap over patients).

    Args:
      cohort: the candidates.
      kept: (n,) bool, those that the filter keeps.
    """
    columns = np.stack([_per_case(cohort, np.ones(len(kept), bool)), _per_case(cohort, kept)])

    def values(chosen: np.ndarray) -> np.ndarray:
        lesions, found, wrong = columns[:, chosen].sum(axis=1).T
        with np.errstate(invalid="ignore", divide="ignore"):
            recall, rate = found / lesions, wrong / len(chosen)
            removed = 1 - wrong[1] / wrong[0]
        return np.array([*recall, recall[0] - recall[1], *rate, removed])

    point = values(np.arange(len(cohort.cases)))
    low, high = clustered_interval(values, np.array(cohort.patients))
    rows = np.stack([point, low, high], axis=1).tolist()
    return {name: (row[0], row[1], row[2]) for name, row in zip(EFFECTS, rows, strict=True)}


def difference(cohort: Cohort, kept: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Returns the false positives per case that one filter keeps minus those of another, with the 95 % interval.

    The two are compared in pairs, case by case; patients are resampled.

    Args:
      cohort: the candidates.
      kept: (n,) bool, of the one.
      other: (n,) bool, of the other.
    """
    per_case = _per_case(cohort, kept)[:, 2] - _per_case(cohort, other)[:, 2]
    low, high = clustered_interval(lambda chosen: per_case[chosen].mean()[None], np.array(cohort.patients))
    return float(per_case.mean()), float(low[0]), float(high[0])


def _per_case(cohort: Cohort, kept: np.ndarray) -> np.ndarray:
    """Returns (cases, 3): lesions, lesions that are found, and false candidates that are kept."""
    size = len(cohort.cases)
    found = best_of_lesions(cohort, np.where(kept, 1.0, -math.inf)) > 0
    return np.stack(
        [
            np.bincount(cohort.lesion_case, minlength=size),
            np.bincount(cohort.lesion_case, found, minlength=size),
            np.bincount(cohort.case, kept & ~cohort.true, minlength=size),
        ],
        axis=1,
    )
