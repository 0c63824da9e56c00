"""Statistics of per-case scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def describe(values: Sequence[float]) -> dict[str, float]:
    """Summarises one metric over cases; what is undefined is left out and counted, infinities are kept.

    Args:
      values: one number per case; NaN where the metric is not defined, infinite where a structure was missed.

    Returns:
      mean, median, sd (with n - 1; NaN below two values), min, max, n (defined values), undefined (NaN) and
      infinite (how many of n). With infinite values the mean is infinite and the sd NaN: a missed case must not
      improve a mean.
    """
    values = np.asarray(values, float)
    defined = values[~np.isnan(values)]
    infinite = int(np.isinf(defined).sum())
    spread = defined.size > 1 and not infinite
    return {
        "mean": float(defined.mean()) if defined.size else np.nan,
        "median": float(np.median(defined)) if defined.size else np.nan,
        "sd": float(defined.std(ddof=1)) if spread else np.nan,
        "min": float(defined.min()) if defined.size else np.nan,
        "max": float(defined.max()) if defined.size else np.nan,
        "n": int(defined.size),
        "undefined": int(values.size - defined.size),
        "infinite": infinite,
    }
