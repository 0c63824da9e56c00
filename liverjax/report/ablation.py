"""The report of an ablation: a table and a chart for each region, and the method."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from liverjax.report import figures
from liverjax.report.html import Page

_METHOD = (
    "The unit is the patient: Dice is averaged over seeds, then over a patient's cases. Intervals: bootstrap over "
    "patients (BCa, 95 %). Differences are paired by patient; p: permutation test, in the next column adjusted for the "
    "number of variants (Holm). Worst: the patient of the lowest Dice. Red: adjusted p below 0.05."
)


def ablation_report(
    folder: str | os.PathLike,
    title: str,
    about: str,
    tables: Mapping[str, Sequence[Mapping]],
    rows: Sequence[Mapping],
    dice: Mapping[str, Mapping[str, Mapping[str, float]]],
    runs: Sequence[Mapping],
) -> pathlib.Path:
    """Writes ``report.html``, and the chart of each region as ``<region>.png``, into a folder.

    Args:
      folder: where both go.
      title: heading.
      about: what is varied.
      tables: for each region, rows of text by title.
      rows: for each region and variant the values that `figures.variants` draws.
      dice: region -> variant -> patient -> Dice.
      runs: a row per run, with ``scored``.
    """
    folder = pathlib.Path(folder)
    page = Page(title).text(about)
    missing = sum(not run["scored"] for run in runs)
    if missing:
        page.text(f"NOT COMPLETE: {missing} of {len(runs)} runs are not scored; see the list below.")
    for (heading, table), (region, by_variant) in zip(tables.items(), dice.items(), strict=True):
        of_region = [row for row in rows if row["region"] == region]
        name = f"Dice of the {region}"
        picture = figures.variants(by_variant, of_region, name, folder / f"{region}.png")
        page.section(heading).figure(picture, "Each dot is a patient; means and differences with intervals")
        page.table(table)
    page.text(_METHOD)
    page.section("Runs").table(runs)
    return page.write(folder / "report.html")
