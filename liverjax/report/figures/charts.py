"""Charts of scores and of training, as PNG bytes. Scores come as plain numbers and rows."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from liverjax.report.figures.canvas import PALETTE, RED, new_figure, plain, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size classes of lesions, by the diameter of the sphere of their volume.
_SIZES = {"small": "< 10 mm", "medium": "10-20 mm", "large": "> 20 mm"}


def training_curves(runs: Mapping[str, Sequence[Mapping]]) -> bytes:
    """Draws loss and validation Dice against the step.

    Args:
      runs: for each name (a view) its log records, with ``step`` and any of ``loss``, ``validation_dice``.
    """
    figure = new_figure(10, 3.4)
    left, right = figure.subplots(1, 2)
    panels = {"loss": "training loss", "validation_dice": "validation Dice"}
    for axes, (key, name) in zip((left, right), panels.items(), strict=True):
        for (run, records), color in zip(runs.items(), itertools.cycle(PALETTE), strict=False):
            points = [(record["step"], record[key]) for record in records if key in record]
            axes.plot(*np.reshape(points, (-1, 2)).T, color=color, label=run, linewidth=1.4)
        axes.set(xlabel="step", ylabel=name)
        plain(axes)
    right.legend(frameon=False)
    return png(figure)


def score_distribution(scores: Mapping[str, Sequence[float]], name: str) -> bytes:
    """Draws every score as a dot, with median and quartiles, one column per group.

    Args:
      scores: the scores of each group, one per case; values that are not finite are left out, and counted.
      name: what is scored, with its unit.
    """
    figure = new_figure(max(1.2 + 1.4 * len(scores), 3.6), 3.3)
    axes = figure.subplots()
    ticks = []
    for column, (group, values) in enumerate(scores.items()):
        values = np.asarray(values, float)
        shown = values[np.isfinite(values)]
        missing = len(values) - len(shown)
        ticks.append(f"{group}\nn = {len(shown)}" + (f" ({missing} not shown)" if missing else ""))
        axes.plot(
            column + _jitter(shown), shown, "o", color=PALETTE[0], markersize=5, alpha=0.75, markeredgewidth=0
        )
        if shown.size:
            low, median, high = np.percentile(shown, (25, 50, 75))
            axes.plot([column, column], [low, high], color="black", linewidth=1)
            axes.plot([column - 0.25, column + 0.25], [median, median], color="black", linewidth=2)
    axes.set(ylabel=name, xlim=(-0.6, len(scores) - 0.4))
    axes.set_xticks(range(len(scores)), ticks, parse_math=False)
    plain(axes)
    return png(figure)


def bland_altman(a: npt.ArrayLike, b: npt.ArrayLike, unit: str, names: tuple[str, str] = ("a", "b")) -> bytes:
    """Draws the difference a - b against the mean of both, with bias and 95 % limits of agreement.

    The limits are bias +- 1.96 standard deviations of the differences (Bland and Altman 1986).
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    finite = np.isfinite(a) & np.isfinite(b)
    difference, mean = (a - b)[finite], ((a + b) / 2)[finite]
    figure = new_figure(4.5, 3.4)
    axes = figure.subplots()
    axes.axhline(0, color="0.8", linewidth=1)
    axes.plot(mean, difference, "o", color=PALETTE[0], markersize=5, markeredgewidth=0)
    bias, sd = (difference.mean(), difference.std(ddof=1)) if len(difference) > 1 else (np.nan, np.nan)
    for factor, style, name in (
        (0, "solid", "bias"),
        (1.96, "dashed", "+1.96 sd"),
        (-1.96, "dashed", "-1.96 sd"),
    ):
        value = bias + factor * sd
        if np.isfinite(value):
            axes.axhline(value, color=RED, linestyle=style, linewidth=1.2)
            beside = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
            axes.annotate(f"{name} {value:.4g}", (1, value), va="center", fontsize=9, **beside)
    axes.set_xlabel(f"mean of {names[0]} and {names[1]} [{unit}]", parse_math=False)
    axes.set_ylabel(f"{names[0]} - {names[1]} [{unit}]", parse_math=False)
    plain(axes)
    return png(figure)


def detection_by_size(sizes: Sequence[str], detected: npt.ArrayLike) -> bytes:
    """Draws the share of reference lesions that were detected, by the size classes of LiTS.

    Args:
      sizes: of each reference lesion: "small", "medium" or "large".
      detected: whether it was found.
    """
    detected = np.asarray(detected, bool)
    figure = new_figure(4.5, 3.3)
    axes = figure.subplots()
    ticks = []
    for column, (size, name) in enumerate(_SIZES.items()):
        members = np.asarray(sizes) == size
        found, count = int(detected[members].sum()), int(members.sum())
        ticks.append(f"{name}\n{found} of {count}")
        axes.bar(column, found / max(count, 1), color=PALETTE[0], width=0.6)
    axes.set(ylabel="lesions detected", ylim=(0, 1))
    axes.set_xticks(range(len(_SIZES)), ticks)
    plain(axes)
    return png(figure)


def variants(
    scores: Mapping[str, Mapping[str, float]],
    rows: Sequence[Mapping],
    name: str,
    path: str | os.PathLike | None = None,
) -> bytes:
    """Draws the variants of an ablation below each other: scores with their mean, and differences from the first.

    Args:
      scores: of each variant, by patient; values that are not finite are left out.
      rows: for each variant in the same order ``mean``, ``difference`` and their intervals (``ci_low``, ``ci_high``,
        ``difference_low``, ``difference_high``), of which NaN is not drawn; and ``p_holm``, below 0.05 drawn in red.
      name: what is scored.
      path: also writes the PNG there.
    """
    figure = new_figure(10, 1.1 + 0.42 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for line, (values, row) in enumerate(zip(scores.values(), rows, strict=True)):
        shown = np.asarray([value for value in values.values() if np.isfinite(value)])
        left.plot(
            shown, line + _jitter(shown), "o", color=PALETTE[0], markersize=4, alpha=0.7, markeredgewidth=0
        )
        _estimate(left, line, row["mean"], row["ci_low"], row["ci_high"], "black")
        if line:
            color = RED if row["p_holm"] < 0.05 else "black"
            _estimate(right, line, row["difference"], row["difference_low"], row["difference_high"], color)
    left.set_xlabel(name, parse_math=False)
    left.set_yticks(range(len(rows)), list(scores), parse_math=False)
    left.set_ylim(len(rows) - 0.5, -0.5)
    right.axvline(0, color="0.6", linewidth=1)
    right.set_xlabel(f"difference from {next(iter(scores))}", parse_math=False)
    for axes in (left, right):
        plain(axes, "x")
    return png(figure, path)


def _jitter(values: np.ndarray) -> np.ndarray:
    """Returns an offset in (-0.2, 0.2) for each value by its rank, so that dots of equal values stay visible."""
    return (np.argsort(np.argsort(values)) * 0.618 % 1 - 0.5) * 0.4


def _estimate(axes: Axes, line: float, value: float, low: float, high: float, color: str) -> None:
    axes.plot([low, high], [line, line], color=color, linewidth=1.6, solid_capstyle="butt")
    axes.plot([value], [line], "D", color=color, markersize=5)


def reliability(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | os.PathLike | None = None
) -> bytes:
    """Draws accuracy against confidence; a calibrated model lies on the grey line.

    Args:
      curves: for each name the mean confidence (n,) and the accuracy (n,) of the bins.
      path: where the picture is written as well.
    """
    figure = new_figure(4.5, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for (name, points), color in zip(curves.items(), itertools.cycle(PALETTE), strict=False):
        axes.plot(*points, "o-", color=color, markersize=4, linewidth=1.2, label=name)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.3, 1), ylim=(0.3, 1))
    axes.legend(frameon=False, fontsize=8)
    return png(figure, path)
