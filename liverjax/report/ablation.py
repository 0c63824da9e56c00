"""The report of an ablation: a table and a chart for each region, and the method."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from liverjax.report import figures
from liverjax.report.html import Page

_METHOD = {
    "Unit": "The patient: scores are averaged over seeds, then over a patient's cases.",
    "95 % interval": "Bootstrap over patients (BCa).",
    "Difference": "Paired by patient, from the first variant, which is the baseline.",
    "p": "Permutation test; in the next column adjusted for the number of variants (Holm).",
    "Worst": "The patient of the worst score.",
}


def ablation_report(
    folder: str | os.PathLike,
    title: str,
    about: str,
    *,
    metric: str,
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    trials: Sequence[Mapping[str, Any]],
) -> pathlib.Path:
    """Writes ``report.html``, and the chart of each region as ``<region>.png``, into a folder.

    Args:
      folder: where both go.
      title: heading.
      about: what is varied.
      metric: what the metric is called.
      tables: for each region, rows of text by title.
      rows: for each region and variant the numbers that the chart shows.
      scores: region -> variant -> patient -> score.
      trials: a row per trial, with ``scored``.

    Returns:
      The file of the report.
    """
    folder = pathlib.Path(folder)
    page = Page(title).text(about)
    missing = sum(not trial["scored"] for trial in trials)
    if missing:
        page.warning(f"NOT COMPLETE: {missing} of {len(trials)} trials are not scored; see the list below.")
    for (heading, table), (region, by_variant) in zip(tables.items(), scores.items(), strict=True):
        of_region = [row for row in rows if row["region"] == region]
        name = f"{metric} of the {region}"
        picture = figures.variants(by_variant, of_region, name, folder / f"{region}.png")
        page.chart(
            picture,
            f"{name}. Each dot is a patient; diamonds: means, and differences from the baseline, with 95 % intervals; "
            "red: adjusted p below 0.05.",
            f"Which variant is better for the {region}?",
        )
        page.section(heading).table(table)
    page.section("All trials").table(trials, sortable=True)
    return page.definitions(_METHOD).write(folder / "report.html")
