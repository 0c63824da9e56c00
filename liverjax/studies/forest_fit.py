"""A lesion filter from measured candidates: forests on folds of patients, operating point, importance of features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from liverjax import __version__
from liverjax.errors import ConfigError, InputError
from liverjax.objects.candidates import CandidateOptions
from liverjax.objects.features import feature_names
from liverjax.objects.filter import LesionFilter
from liverjax.objects.forest import TREES, Forest, grow
from liverjax.scoring import froc
from liverjax.scoring.statistics import auroc

#: Folds of patients, or as many as there are patients.
FOLDS = 5
#: Features by which candidates are ranked without a forest.
RIVALS = {"p_max": "greatest probability", "volume_ml": "volume"}
# Times that a feature is shuffled.
_SHUFFLES = 3


@dataclasses.dataclass(frozen=True)
class FilterFit:
    """A filter, and how well it does on candidates of patients that its forest did not see.

    Attributes:
      lesion_filter: grown on all candidates.
      cohort: the candidates and lesions.
      probabilities: (n,) of each candidate, by the forest of the folds that its patient is not in.
      kept: (n,) bool, at the operating point that was chosen on the other folds.
      importance: for each feature "feature", "permutation" (loss of AUROC when its values are shuffled among the
        candidates of a fold) and "impurity" (share of the forest's decrease of Gini impurity), the largest first.
      effect: of `froc.effect` of ``kept``.
      auroc: of ``probabilities``.
      rivals: the scores (n,) of single features, by what they are.
    """

    lesion_filter: LesionFilter
    cohort: froc.Cohort
    probabilities: np.ndarray
    kept: np.ndarray
    importance: list[dict[str, str | float]]
    effect: dict[str, tuple[float, float, float]]
    auroc: float
    rivals: dict[str, np.ndarray]


def fit_filter(
    features: np.ndarray,
    cohort: froc.Cohort,
    *,
    views: Sequence[str] = (),
    candidates: CandidateOptions = CandidateOptions(),  # noqa: B008  (frozen)
    recall_share: float = 0.95,
    seed: int = 0,
    trees: int = TREES,
) -> FilterFit:
    """Grows a lesion filter, and judges it by folds of patients.

    Args:
      features: (n, k) of `objects.features.measure`, of all cases in turn.
      cohort: their candidates, of `scoring.froc.gather`.
      views: names of the views whose maps were measured.
      candidates: with which they were found.
      recall_share: the operating point is the highest that keeps this share of the recall.
      seed: of the forests.
      trees: number of trees.

    Raises:
      InputError: no candidates, no lesions in any reference, candidates of one class, fewer than two patients with
        true or with false candidates, or features that are not finite.
      ConfigError: a recall share that is not in (0, 1].
      LiverjaxError: scikit-learn is not installed.
    """
    check_share(recall_share)
    _check(cohort)
    names = feature_names(bool(views))
    fold = _folds(cohort)
    forests = {
        one: grow(features[fold != one], cohort.true[fold != one], names, seed=seed, trees=trees)
        for one in np.unique(fold).tolist()
    }
    probabilities = np.empty(len(features))
    for one, forest in forests.items():
        probabilities[fold == one] = forest.probabilities(features[fold == one])
    kept = _kept(cohort, probabilities, fold, recall_share)
    grown = grow(features, cohort.true, names, seed=seed, trees=trees)
    point = froc.operating_point(cohort, probabilities, recall_share)
    importance = _importance(forests, features, cohort.true, fold, probabilities, grown, seed)
    found = froc.effect(cohort, kept)
    area = auroc(probabilities, cohort.true)
    facts = {
        "cases": len(cohort.cases),
        "patients": len(set(cohort.patients)),
        "lesions": len(cohort.lesion_case),
        "true_candidates": int(cohort.true.sum()),
        "false_candidates": int((~cohort.true).sum()),
        "recall_share": recall_share,
        "auroc": area,
        "effect": {
            name: [value if np.isfinite(value) else None for value in row] for name, row in found.items()
        },
        "liverjax": __version__,
    }
    lesion_filter = LesionFilter(grown, point, candidates, tuple(views), facts)
    rivals = {text: features[:, names.index(name)] for name, text in RIVALS.items()}
    return FilterFit(lesion_filter, cohort, probabilities, kept, importance, found, area, rivals)


def check_share(recall_share: float) -> None:
    """Refuses a share of the recall that is not in (0, 1].

    Raises:
      ConfigError: it is not.
    """
    if not 0 < recall_share <= 1:
        raise ConfigError(f"recall_share is {recall_share}, expected a share above 0 and up to 1")


def _check(cohort: froc.Cohort) -> None:
    where = f"{len(cohort.cases)} cases"
    if not len(cohort.lesion_case):
        raise InputError(f"no tumour in the references of {where}, expected some; give cases with tumours")
    if not len(cohort.true):
        raise InputError(
            f"no tumour candidate in {where}: no probability in a liver reaches the threshold; lower --threshold"
        )
    for kind, chosen, remedy in (
        ("true", cohort.true, "give more cases whose tumours the networks find at least in part"),
        ("false", ~cohort.true, "lower --threshold, or give more cases: there is nothing to filter"),
    ):
        patients = set(cohort.patient[chosen].tolist())
        if len(patients) < 2:
            raise InputError(
                f"{int(chosen.sum())} {kind} candidates of {len(patients)} patients in {where}, expected two patients "
                f"or more with {kind} ones; {remedy}"
            )


def _folds(cohort: froc.Cohort) -> np.ndarray:
    """Returns the fold of each candidate; patients are dealt out in turn, those with most true candidates first."""
    patients, index = np.unique(cohort.patient.astype(str), return_inverse=True)
    true = np.bincount(index, cohort.true, minlength=len(patients))
    false = np.bincount(index, ~cohort.true, minlength=len(patients))
    order = np.lexsort((-false, -true))
    folds = np.empty(len(patients), int)
    folds[order] = np.arange(len(patients)) % min(FOLDS, len(patients))
    return folds[index]


def _kept(cohort: froc.Cohort, probabilities: np.ndarray, fold: np.ndarray, share: float) -> np.ndarray:
    """Returns which candidates are kept, each by an operating point to which its patient did not contribute."""
    kept = np.zeros(len(fold), bool)
    for one in np.unique(fold):
        # A score that no threshold reaches leaves the fold's own lesions out.
        others = np.where(fold == one, -np.inf, probabilities)
        kept[fold == one] = probabilities[fold == one] >= froc.operating_point(cohort, others, share)
    return kept


def _importance(
    forests: dict[int, Forest],
    features: np.ndarray,
    true: np.ndarray,
    fold: np.ndarray,
    probabilities: np.ndarray,
    grown: Forest,
    seed: int,
) -> list[dict[str, str | float]]:
    rng = np.random.default_rng(seed)
    whole = auroc(probabilities, true)
    rows: list[dict[str, str | float]] = []
    for column, name in enumerate(grown.names):
        losses = []
        for _ in range(_SHUFFLES):
            shuffled = np.empty(len(true))
            for one, forest in forests.items():
                own = features[fold == one].copy()
                own[:, column] = rng.permutation(own[:, column])
                shuffled[fold == one] = forest.probabilities(own)
            losses.append(whole - auroc(shuffled, true))
        rows.append(
            {
                "feature": name,
                "permutation": float(np.mean(losses)),
                "impurity": float(grown.impurity[column]),
            }
        )
    return sorted(rows, key=lambda row: row["permutation"], reverse=True)
