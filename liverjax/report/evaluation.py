"""The report of an evaluation: tables, distributions, agreement, and pictures of its worst and best cases."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from liverjax import labels
from liverjax.report import figures
from liverjax.report.html import Page
from liverjax.volume import Volume

#: Gives the scan of a case and the label ids (x, y, z) of its prediction and of its reference.
ReadCase = Callable[[str], tuple[Volume, np.ndarray, np.ndarray]]

#: Number of pictures of each region: cases of the lowest and of the highest Dice.
_WORST, _BEST = 2, 1
#: Metrics whose distribution is drawn, if they were computed.
_DISTRIBUTIONS = {"dice": "Dice", "assd": "ASSD [mm]", "miccai": "MICCAI score"}
#: Columns that the table of cases leaves out, to fit a page.
_LEFT_OUT = {"iou", "voe", "rmsd", "hd95_max_of_directed", "hd95_area_weighted"}


def evaluation_report(
    path: str | os.PathLike,
    title: str,
    tables: Mapping[str, Sequence[Mapping]],
    cases: Sequence[Mapping],
    lesions: Sequence[Mapping],
    read: ReadCase,
    curves: Mapping[str, Sequence[Mapping]] | None = None,
    notes: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the report of an evaluation as one HTML file.

    Args:
      path: the file.
      title: its heading.
      tables: rows by title.
      cases: a row per case and region, with `case`, `region`, `state` and metrics by name.
      lesions: a row per lesion, with `side`, `size` and `detected_0.5`.
      read: gives the scan and the label ids of a case, for its picture.
      curves: for each view the log records of its training, as for `figures.training_curves`; None draws none.
      notes: paragraphs below the heading.
    """
    page = Page(title)
    for note in notes:
        page.text(note)
    for heading, rows in tables.items():
        page.section(heading).table(rows)
    _add_distributions(page, cases)
    _add_volumes(page, cases)
    _add_detection(page, lesions)
    _add_pictures(page, cases, read)
    columns = [name for name in cases[0] if name not in _LEFT_OUT and not name.startswith("voxels_")]
    page.section("Cases").text("Every metric of each case is in cases.csv.").table(cases, columns)
    if curves:
        page.section("Training").chart(figures.training_curves(curves))
    return page.write(path)


def _of_region(cases: Sequence[Mapping], metric: str) -> dict[str, list[float]]:
    """Returns a metric's values by region, for the regions in which it is defined in some case."""
    values = {
        region: [row[metric] for row in cases if row["region"] == region]
        for region in dict.fromkeys(row["region"] for row in cases)
    }
    return {region: found for region, found in values.items() if np.isfinite(found).any()}


def _add_distributions(page: Page, cases: Sequence[Mapping]) -> None:
    shown = {metric: _of_region(cases, metric) for metric in _DISTRIBUTIONS if metric in cases[0]}
    shown = {metric: values for metric, values in shown.items() if values}
    if shown:
        page.section("Distributions").text("Each dot is a case; lines: median and quartiles.")
    for metric, values in shown.items():
        name = _DISTRIBUTIONS[metric]
        page.chart(figures.score_distribution(values, name), name)


def _add_volumes(page: Page, cases: Sequence[Mapping]) -> None:
    if not {"prediction_ml", "reference_ml"} <= set(cases[0]):
        return
    predicted, referenced = (_of_region(cases, f"{side}_ml") for side in ("prediction", "reference"))
    for region, volumes in referenced.items():
        if any(volumes) or any(predicted[region]):
            picture = figures.bland_altman(predicted[region], volumes, "ml", ("prediction", "reference"))
            page.section(f"Volume of the {region}").chart(
                picture, "Bland-Altman: bias and limits of agreement"
            )


def _add_detection(page: Page, lesions: Sequence[Mapping]) -> None:
    referenced = [row for row in lesions if row["side"] == "reference"]
    if referenced:
        picture = figures.detection_by_size(
            [row["size"] for row in referenced], [row["detected_0.5"] for row in referenced]
        )
        caption = (
            "Lesions of the reference detected at an IoU above 0.5, by diameter of a sphere of their volume"
        )
        page.section("Detection of lesions").chart(picture, caption)


def _add_pictures(page: Page, cases: Sequence[Mapping], read: ReadCase) -> None:
    chosen = [row for region in labels.REGIONS for row in _extremes(cases, region)]
    if chosen:
        page.section("Worst and best cases")
    for row in chosen:
        caption = f"{row['case']}: {row['region']}, Dice {row['dice']:.3f}"
        page.figure(_picture(row["case"], row["region"], read), caption)


def _extremes(cases: Sequence[Mapping], region: str) -> list[Mapping]:
    """Returns the rows of a region with the lowest and the highest Dice, from worst to best."""
    rows = [row for row in cases if row["region"] == region and np.isfinite(row.get("dice", np.nan))]
    rows.sort(key=lambda row: row["dice"])
    return rows[:_WORST] + rows[max(_WORST, len(rows) - _BEST) :]


def _picture(case: str, region: str, read: ReadCase) -> bytes:
    scan, predicted, reference = read(case)
    if region == "tumor":
        # `preview` shows the slices with most of all labels that it is given.
        predicted, reference = (np.where(ids == labels.TUMOR, ids, 0) for ids in (predicted, reference))
    return figures.preview(scan, predicted, reference=reference, title=f"{case}: {region}")
