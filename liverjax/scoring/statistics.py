"""Statistics of scores: location and spread, confidence intervals, paired tests, ranking, agreement of volumes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

#: Resamples of a bootstrap or permutation test; with few cases a test counts all permutations instead.
RESAMPLES = 9999


def describe(values: npt.ArrayLike) -> dict[str, float]:
    """Summarises one metric over cases; undefined values are left out and counted, infinite ones are kept.

    Args:
      values: one number per case; NaN if the metric is not defined, infinite if a structure was missed.

    Returns:
      mean, median, sd (with n - 1), min and max of the defined values; n, their number; undefined, the number of NaN;
      infinite, how many of the n are. With infinite values the mean is infinite and the sd NaN: a missed case must not
      improve a mean. A mean of +inf and -inf is NaN, and so is all that too few values leave undefined.
    """
    values = np.asarray(values, float)
    defined = values[~np.isnan(values)]
    infinite = int(np.isinf(defined).sum())
    has_spread = defined.size > 1 and not infinite
    return {
        "mean": _location(defined),
        "median": _location(defined, np.median),
        "sd": float(defined.std(ddof=1)) if has_spread else math.nan,
        "min": float(defined.min()) if defined.size else math.nan,
        "max": float(defined.max()) if defined.size else math.nan,
        "n": int(defined.size),
        "undefined": int(values.size - defined.size),
        "infinite": infinite,
    }


def confidence_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Returns the bootstrap confidence interval of the mean over cases; NaN values are left out.

    Cases are resampled with replacement; the interval is bias-corrected and accelerated (BCa, Efron 1987), by scipy.
    It is (NaN, NaN) with infinite values, and with so few that resamples of the smallest alone, one in n^n, outweigh
    the tail: with two or three values a "95 % interval" would be their range.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if values.size == 0 or values.size**-values.size > (1 - confidence) / 2 or np.isinf(values).any():
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        method="BCa",
        confidence_level=confidence,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Returns the share of pairs of a positive and a negative in which the positive has the larger score.

    The area under the ROC curve, as Mann and Whitney's U over the number of pairs; ties count half. NaN without pairs.
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    n, m = np.count_nonzero(positive), np.count_nonzero(~positive)
    if not n or not m:
        return math.nan
    return float((stats.rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def clustered_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns percentile bootstrap intervals of statistics of items that come in clusters, such as slices of cases.

    Whole clusters are drawn with replacement (Davison and Hinkley 1997, section 3.8): items of one cluster are alike,
    and drawn one by one they would give intervals that are too narrow.

    Args:
      statistic: maps indices of items, with repeats, to values (k,); draws that leave one NaN are left out.
      clusters: (n,) the cluster of each item.
      confidence: of the interval.
      seed: of the draws.

    Returns:
      Lower and upper bounds, (k,) each; NaN with fewer than two clusters.
    """
    clusters = np.asarray(clusters)
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    draws = np.random.default_rng(seed).integers(len(members), size=(RESAMPLES, len(members)))
    values = np.stack([statistic(np.concatenate([members[i] for i in draw])) for draw in draws])
    values = values[~np.isnan(values).any(axis=1)]
    if len(members) < 2 or not len(values):
        return np.full(values.shape[1], math.nan), np.full(values.shape[1], math.nan)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high


def compare(a: npt.ArrayLike, b: npt.ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Compares a metric of two methods on the same cases, in pairs.

    Args:
      a: one number per case.
      b: the other method's numbers, in the same order.
      seed: of the bootstrap, and of the permutation test if there are too many permutations to count.

    Returns:
      n, the number of pairs; undefined, that of pairs left out since one value is NaN; mean_difference of a - b with
      its bootstrap interval (ci_low, ci_high); p_wilcoxon of the signed-rank test (differences of 0 left out; 1 if all
      are 0) and p_permutation of the test of the mean difference that exchanges a and b within pairs. Two infinite
      values are equal; other infinite differences have a rank, but leave the interval and p_permutation NaN, and
      differences of both signs also the mean. Both tests are two-sided.

    Raises:
      ValueError: the numbers of cases differ.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values of one method and {b.size} of the other; expected pairs")
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    difference = np.where(a == b, 0.0, a - np.where(a == b, 0.0, b))
    low, high = confidence_interval(difference, seed=seed)
    return {
        "n": int(difference.size),
        "undefined": int(defined.size - difference.size),
        "mean_difference": _location(difference),
        "ci_low": low,
        "ci_high": high,
        "p_wilcoxon": _wilcoxon(difference),
        "p_permutation": _permutation(difference, seed),
    }


def _location(values: np.ndarray, statistic: Callable[[np.ndarray], np.floating] = np.mean) -> float:
    """Returns the mean, or the median; NaN of nothing, and between infinite values of both signs."""
    with np.errstate(invalid="ignore"):
        return float(statistic(values)) if values.size else math.nan


def _wilcoxon(difference: np.ndarray) -> float:
    if not difference.size:
        return math.nan
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def _permutation(difference: np.ndarray, seed: int) -> float:
    if not difference.size or np.isinf(difference).any():
        return math.nan
    if difference.size == 1:
        return 1.0  # Either sign is as far from 0; scipy needs two pairs.
    # Exchanging a and b within a pair changes the sign of its difference.
    test = stats.permutation_test(
        (difference,),
        lambda signed, axis: signed.mean(axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Adjusts p-values of several tests for their number (Holm 1979); NaN stays NaN and is not counted."""
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, math.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts last.
    steps = p_values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted.tolist()


def agreement(a: npt.ArrayLike, b: npt.ArrayLike) -> dict[str, float]:
    """Returns how well volumes a (predicted) agree with volumes b (reference), over cases.

    Returns:
      n, pairs of finite values; bias, the mean of a - b; sd of the differences (with n - 1); lower and
      upper, the 95 % limits of agreement bias ± 1.96 sd (Bland and Altman 1986); r, Pearson's correlation;
      relative_error and absolute_relative_error, the means of 100 (a - b)/b and of its absolute value in
      percent over pairs with b above 0. Values that too few pairs leave undefined are NaN.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    difference = a - b
    bias = _location(difference)
    sd = float(difference.std(ddof=1)) if difference.size > 1 else math.nan
    varies = a.size > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    relative = 100 * difference[b > 0] / b[b > 0]
    return {
        "n": int(a.size),
        "bias": bias,
        "sd": sd,
        "lower": bias - 1.96 * sd,
        "upper": bias + 1.96 * sd,
        "r": float(stats.pearsonr(a, b).statistic) if varies else math.nan,
        "relative_error": _location(relative),
        "absolute_relative_error": _location(np.abs(relative)),
    }
