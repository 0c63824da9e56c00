"""Charts of several readers: their volumes, and what correcting takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.report.figures.canvas import PALETTE, new_figure, plain, png


def reader_volumes(rows: Sequence[Mapping], readers: Sequence[str], unit: str) -> bytes:
    """Draws how far each reader's volume lies from what it relates to, case by case.

    Args:
      rows: a row per case and reader, with `case`, `reader` and `rve_percent`; values that are not finite are left out.
      readers: their names.
      unit: what the axis is called.
    """
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure = new_figure(min(max(5.0, 2.2 + 0.3 * len(cases)), 12.0), 3.6)
    axes = figure.subplots()
    axes.axhline(0, color="0.6", linewidth=1)
    for place, (reader, color) in enumerate(zip(readers, itertools.cycle(PALETTE), strict=False)):
        own = {row["case"]: row["rve_percent"] for row in rows if row["reader"] == reader}
        shift = (place - (len(readers) - 1) / 2) * 0.6 / max(len(readers), 1)
        points = [(cases.index(case) + shift, value) for case, value in own.items() if np.isfinite(value)]
        x, y = np.reshape(points, (-1, 2)).T
        axes.plot(
            x, y, "o", color=color, markersize=6, markeredgecolor="0.3", markeredgewidth=0.5, label=reader
        )
    rotation = 90 if len(cases) > 5 else 0
    axes.set_xticks(range(len(cases)), cases, rotation=rotation, fontsize=8, parse_math=False)
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.set_ylabel(unit, parse_math=False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    plain(axes)
    return png(figure)


def correction_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Draws the Dice after a share of the slices was corrected, for each order of correction.

    Args:
      curves: for each order rows of `share`, `dice` and its interval `low`, `high`, of which NaN is not drawn.
    """
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for (name, rows), color in zip(curves.items(), PALETTE, strict=False):
        share, dice, low, high = (
            np.array([row[key] for row in rows]) for key in ("share", "dice", "low", "high")
        )
        axes.plot(100 * share, dice, color=color, linewidth=1.8, label=name)
        axes.fill_between(100 * share, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="slices corrected [%]", ylabel="Dice with the corrected mask", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plain(axes)
    return png(figure)
