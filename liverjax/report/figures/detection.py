"""Charts of detection, as PNG bytes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from liverjax.report.figures.canvas import PALETTE, new_figure, plain, png


def froc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> bytes:
    """Draws free-response ROC curves.

    Args:
      curves: for each score the false positives per case and the recall, point by point.
    """
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    for (name, (false, recall)), color in zip(curves.items(), itertools.cycle(PALETTE), strict=False):
        axes.step(false, recall, where="post", color=color, label=name, linewidth=1.4)
    axes.set(xlabel="false candidates per case", ylabel="recall of lesions", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    plain(axes)
    axes.legend(frameon=False, loc="lower right")
    return png(figure)
