"""The picture of a learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.report.figures.canvas import PALETTE, RED, new_figure, plain, png


def learning_curve(
    rows: Sequence[Mapping],
    patients: Sequence[Mapping],
    name: str,
    fit: tuple[np.ndarray, np.ndarray] | None = None,
) -> bytes:
    """Draws the score against the number of training patients: mean and interval, each test patient, and a law.

    Args:
      rows: a row per size with `size`, `mean`, `ci_low` and `ci_high`; NaN is not drawn.
      patients: a row per test patient with `score_<size>`.
      name: what is scored.
      fit: numbers of patients (n,) and (3, n): the law there with its range; None draws none.
    """
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    sizes = [row["size"] for row in rows]
    for row in patients:
        axes.plot(sizes, [row[f"score_{size}"] for size in sizes], color="0.65", linewidth=0.8, zorder=1)
    if fit is not None:
        at, (value, low, high) = fit
        axes.plot(at, value, color=PALETTE[0], linewidth=1.6, label="law", zorder=2)
        axes.fill_between(at, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, zorder=2)
    for row in rows:
        axes.plot([row["size"]] * 2, [row["ci_low"], row["ci_high"]], color="black", linewidth=1.4, zorder=3)
    axes.plot(sizes, [row["mean"] for row in rows], "o", color=RED, markersize=6, label="mean", zorder=4)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("training patients")
    axes.set_ylabel(name, parse_math=False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plain(axes)
    return png(figure)
