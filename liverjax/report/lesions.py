"""The report of a lesion filter: before and after, its curve, and the importance of its features."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax.report.figures.detection import froc
from liverjax.report.html import Page

#: Features that the report lists; all are in the filter's table.
_SHOWN = 20


def lesion_filter_report(
    path: str | os.PathLike,
    title: str,
    effect: Sequence[Mapping],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    importance: Sequence[Mapping],
    notes: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the report of a lesion filter as one HTML file.

    Args:
      path: the file.
      title: its heading.
      effect: a row per figure, before and after the filter.
      curves: for each score the false positives per case and the recall, point by point.
      importance: a row per feature, the most important first.
      notes: paragraphs below the heading.
    """
    page = Page(title)
    for note in notes:
        page.text(note)
    page.chart(
        froc(curves),
        "FROC curve: recall of lesions against false candidates per case, at every threshold.",
        "How many lesions are kept at how many false candidates?",
    )
    page.section("Before and after").text(
        "Of candidates of patients that neither the forest nor the operating point has seen; 95 % intervals by "
        "bootstrap over patients."
    ).table(effect)
    page.section("Importance of the features").text(
        "Permutation: how much the area under the ROC curve falls if a feature is shuffled, on patients that the "
        "forest has not seen. Impurity: share of the decrease of the Gini impurity, on those that grew it; it favours "
        "features of many values. Of features that say the same, neither loses much if one is shuffled."
    ).table(importance[:_SHOWN], sortable=True)
    return page.write(path)
