"""What a trained lesion filter gains, as rows, as text and as curves."""

from __future__ import annotations

import numpy as np

from liverjax.scoring.froc import EFFECTS, Froc, froc
from liverjax.studies.forest_fit import FilterFit


def summary(fit: FilterFit) -> str:
    """Returns a line on the candidates and the operating point."""
    cohort = fit.cohort
    return (
        f"{len(cohort.true)} candidates ({int(cohort.true.sum())} true) of {len(cohort.lesion_case)} lesions in "
        f"{len(cohort.cases)} cases of {len(set(cohort.patients))} patients; AUROC {fit.auroc:.3f}; candidates with a "
        f"probability of {fit.lesion_filter.lesion_probability:.3f} or more are kept"
    )


def effect_rows(fit: FilterFit) -> list[dict[str, object]]:
    """Returns a row per figure: what it is, its value, and its 95 % interval."""
    return [
        {"figure": EFFECTS[name], "value": value, "low": low, "high": high}
        for name, (value, low, high) in fit.effect.items()
    ]


def table(fit: FilterFit) -> str:
    """Returns these rows as text."""
    width = max(map(len, EFFECTS.values()))
    return "\n".join(
        f"{row['figure']:{width}}  {row['value']:7.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in effect_rows(fit)
    )


def curves(fit: FilterFit) -> dict[str, tuple[list[float], list[float]]]:
    """Returns false positives per case and recall of each score that a reader may want to compare.

    Beside the forest these are single features, which need no training: the greatest probability, and the volume.
    """
    scores = {"forest": fit.probabilities, **fit.rivals}
    return {name: _points(froc(fit.cohort, score)) for name, score in scores.items()}


def _points(curve: Froc) -> tuple[list[float], list[float]]:
    return [0.0, *np.asarray(curve.false_positives).tolist()], [0.0, *np.asarray(curve.recall).tolist()]
