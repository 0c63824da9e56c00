"""How observers agree: intraclass correlation, kappa, alpha, limits of agreement.

Cases are rows and raters columns. For the agreement of masks voxel by voxel see `liverjax.scoring.consensus`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from liverjax.scoring import statistics

#: Most raters of whom each pair has limits of agreement of its own.
MOST_IN_PAIRS = 20
#: Mean squares below this share of the total are rounding: raters who give the same values agree fully.
_ROUNDING = 1e-24


def icc(values: npt.ArrayLike, confidence: float = 0.95) -> dict[str, tuple[float, float, float]]:
    """Returns the intraclass correlation of single raters: value and confidence interval.

    Shrout and Fleiss 1979 (Psychol Bull 86:420); intervals of McGraw and Wong 1996 (Psychol Methods 1:30), that of
    ICC(2,1) by Satterthwaite's approximation. The unit must be the patient: cases of one patient are no independent
    rows.

    Args:
      values: (cases, raters), each rater with a value of each case; cases with one that is not finite are left out.
      confidence: of the interval.

    Returns:
      "ICC(2,1)", absolute agreement, of raters who stand for others (a bias between raters counts as disagreement),
      and "ICC(3,1)", consistency of these very raters (it does not): value, lower and upper bound. 1, with bounds of 1,
      if all raters give the same (for ICC(3,1): but for a constant); NaN with fewer than two cases or raters, or if
      the cases do not differ at all.
    """
    table = np.asarray(values, float)
    table = table[np.isfinite(table).all(axis=1)]
    cases, raters = table.shape
    nothing_known = (math.nan, math.nan, math.nan)
    undefined = {"ICC(2,1)": nothing_known, "ICC(3,1)": nothing_known}
    if cases < 2 or raters < 2:
        return undefined
    total = float(((table - table.mean()) ** 2).sum())
    rows = raters * float(table.mean(1).var(ddof=1))
    columns = cases * float(table.mean(0).var(ddof=1))
    freedom = (cases - 1) * (raters - 1)
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    error = float((residual**2).sum()) / freedom
    nothing = _ROUNDING * max(float((table**2).sum()), total)
    rows, columns, error = (0.0 if square <= nothing else square for square in (rows, columns, error))
    if not rows:
        return undefined
    tail = (1 - confidence) / 2
    if not error:
        consistency = (1.0, 1.0, 1.0)
        if not columns:
            return {"ICC(2,1)": consistency, "ICC(3,1)": consistency}
    else:
        ratio = rows / error
        low = ratio / stats.f.ppf(1 - tail, cases - 1, freedom)
        high = ratio * stats.f.ppf(1 - tail, freedom, cases - 1)
        consistency = (
            (rows - error) / (rows + (raters - 1) * error),
            (low - 1) / (low + raters - 1),
            (high - 1) / (high + raters - 1),
        )
    n, k = cases, raters
    value = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    # Both sides of Satterthwaite's ratio times the error squared, so that an error of 0 divides nothing.
    own = n * (1 + (k - 1) * value) - k * value
    numerator = freedom * (k * value * columns + own * error) ** 2
    divisor = (n - 1) * (k * value * columns) ** 2 + (own * error) ** 2
    degrees = numerator / divisor
    above, below = stats.f.ppf(1 - tail, n - 1, degrees), stats.f.ppf(1 - tail, degrees, n - 1)
    rest = k * columns + (k * n - k - n) * error
    agreement = (
        value,
        n * (rows - above * error) / (above * rest + n * rows),
        n * (below * rows - error) / (rest + n * below * rows),
    )
    return {"ICC(2,1)": _floats(agreement), "ICC(3,1)": _floats(consistency)}


def _floats(values: tuple[Any, Any, Any]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def fleiss_kappa(counts: np.ndarray) -> float:
    """Returns Fleiss' kappa (Fleiss 1971): agreement beyond chance of any number of raters.

    Args:
      counts: (cases, classes) how many raters gave each class; the same number of raters, at least two, in each case.

    Returns:
      1 for full agreement, 0 for that of chance; NaN if all raters gave one class in all cases.
    """
    counts = np.asarray(counts, float)
    return weighted_kappa(counts, np.ones(len(counts)))


def weighted_kappa(counts: np.ndarray, times: np.ndarray) -> float:
    """Returns Fleiss' kappa of rows of `fleiss_kappa` that occur several times each, (cases,); NaN of none."""
    counts, times = np.asarray(counts, float), np.asarray(times, float)
    if not times.sum():
        return math.nan
    raters = counts[0].sum()
    agreeing = ((counts**2).sum(1) - raters) / (raters * (raters - 1))
    agreement = float((times * agreeing).sum() / times.sum())
    by_chance = float(((times @ counts / (times.sum() * raters)) ** 2).sum())
    return (agreement - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def krippendorff_alpha(counts: np.ndarray, times: np.ndarray | None = None) -> float:
    """Returns Krippendorff's alpha of classes without order (Krippendorff 2011, Computing Krippendorff's alpha).

    1 - D_o / D_e, the observed disagreement over that of chance. Units that fewer than two raters classified are left
    out.

    Args:
      counts: (units, classes) how many raters gave each class.
      times: (units,) how often such a unit occurs; by default once.

    Returns:
      1 for full agreement, 0 for that of chance; NaN if all raters gave one class.
    """
    counts = np.asarray(counts, float)
    times = np.ones(len(counts)) if times is None else np.asarray(times, float)
    raters = counts.sum(1)
    several = raters > 1
    counts, times, raters = counts[several], times[several], raters[several]
    totals = times @ counts
    pairable = totals.sum()
    observed = float((times * (raters**2 - (counts**2).sum(1)) / (raters - 1)).sum())
    by_chance = float(pairable**2 - (totals**2).sum())
    return 1 - (pairable - 1) * observed / by_chance if by_chance > 0 else math.nan


def limits_of_agreement(rows: Sequence[Mapping[str, Any]], raters: Sequence[str]) -> list[dict[str, Any]]:
    """Returns Bland and Altman's limits of agreement: of each pair of raters, and over all of them.

    Of more than `MOST_IN_PAIRS` raters, whose pairs nobody can read, each is compared with the mean of all others.
    The last row is of any two raters: the within-lesion standard deviation s is that of a one-way analysis of variance,
    and the difference of two raters lies within 1.96 sqrt(2) s in 95 % (Bland and Altman 1999), a bias between raters
    included.

    Args:
      rows: with a value of each rater by name; NaN is left out.
      raters: their names.

    Returns:
      Rows with `raters`, `n`, `bias`, `sd`, `lower`, `upper`.
    """
    table = np.array([[row[rater] for rater in raters] for row in rows], float).reshape(-1, len(raters))
    if len(raters) <= MOST_IN_PAIRS:
        compared = {
            f"{raters[a]} - {raters[b]}": (table[:, a], table[:, b])
            for a, b in itertools.combinations(range(len(raters)), 2)
        }
    else:
        known = np.isfinite(table)
        total, count = np.where(known, table, 0).sum(1), known.sum(1)
        compared = {
            f"{rater} - mean of the others": (
                own,
                np.divide(
                    total - own, count - 1, out=np.full(len(table), math.nan), where=known[:, i] & (count > 1)
                ),
            )
            for i, (rater, own) in enumerate(zip(raters, table.T, strict=True))
        }
    found = []
    for name, (a, b) in compared.items():
        pair = statistics.agreement(a, b)
        found.append({"raters": name, **{key: pair[key] for key in ("n", "bias", "sd", "lower", "upper")}})
    values = [of_row[np.isfinite(of_row)] for of_row in table]
    several = [of_row for of_row in values if of_row.size > 1]
    freedom = sum(of_row.size - 1 for of_row in several)
    squares = sum(float(((of_row - of_row.mean()) ** 2).sum()) for of_row in several)
    sd = math.sqrt(2 * squares / freedom) if freedom else math.nan
    found.append(
        {
            "raters": "any two",
            "n": len(several),
            "bias": 0.0,
            "sd": sd,
            "lower": -1.96 * sd,
            "upper": 1.96 * sd,
        }
    )
    return found
