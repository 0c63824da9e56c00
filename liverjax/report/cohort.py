"""The report of an evaluated set of cases."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax.report import figures
from liverjax.report.html import Page


def cohort_report(
    path: str | os.PathLike,
    title: str,
    cases: Sequence[Mapping],
    *,
    summary: Sequence[Mapping] = (),
    metric: str = "dice",
    curves: Mapping[str, Sequence[Mapping]] | None = None,
    pictures: Sequence[tuple[str, bytes]] = (),
    notes: Sequence[str] = (),
) -> pathlib.Path:
    """Writes a page with the scores of a set of cases, and pictures of some.

    Args:
      path: the HTML file.
      title: its heading.
      cases: one row per case and region, with `case`, `region` and metrics by name.
      summary: rows of a table that stands before those of the cases.
      metric: the one whose distribution over the cases is drawn, by region.
      curves: log records of training, as for `figures.training_curves`.
      pictures: captions and PNG bytes.
      notes: paragraphs that stand under the heading.
    """
    page = Page(title)
    for note in notes:
        page.text(note)
    page.section("Scores")
    if summary:
        page.table(summary)
    regions = dict.fromkeys(row["region"] for row in cases)
    scores = {region: [row[metric] for row in cases if row["region"] == region] for region in regions}
    page.figure(
        figures.score_distribution(scores, metric), f"{metric} of each case; line: median and quartiles"
    )
    if pictures:
        page.section("Pictures")
    for caption, png in pictures:
        page.figure(png, caption)
    page.section("Cases").table(cases)
    if curves:
        page.section("Training").figure(figures.training_curves(curves))
    return page.write(path)
