"""The report of an evaluation: worst, median and best case to look at, then figures, tables, definitions."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from liverjax import labels
from liverjax.report import figures
from liverjax.report.figures.canvas import BLUE, RED, YELLOW
from liverjax.report.html import Page
from liverjax.report.training import add_curves
from liverjax.volume import Volume

#: Gives the scan of a case and the label ids (x, y, z) of its prediction and of its reference.
ReadCase = Callable[[str], tuple[Volume, np.ndarray, np.ndarray]]

#: Metrics whose distribution is drawn, if they were computed, and the question that it answers.
_DISTRIBUTIONS = {
    "dice": "How much do the masks overlap?",
    "assd": "How far apart are the surfaces?",
    "miccai": "How close to a human are the scores?",
}
#: Metrics by which cases are ranked, the first of them that was computed; -1: small is good.
_RANKS = {"dice": 1, "iou": 1, "voe": -1, "assd": -1, "hd95": -1, "miccai": 1}
#: Plain words.
_REGIONS = {"liver": "liver", "tumor": "tumours"}


def evaluation_report(
    path: str | os.PathLike,
    title: str,
    *,
    tables: Mapping[str, Sequence[Mapping]],
    cases: Sequence[Mapping],
    lesions: Sequence[Mapping],
    read: ReadCase,
    names: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
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
      read: gives the scan and the label ids of a case, for its pictures.
      names: headings of the columns of ``cases``.
      meanings: what the metrics mean, by their headings.
      facts: where the results come from, such as the model and the data.
      curves: for each network the log records of its training; None draws none.
      notes: paragraphs below the heading.
    """
    page, names = Page(title), names or {}
    for note in notes:
        page.text(note)
    _add_pictures(page, cases, read, names)
    page.section("The figures")
    _add_distributions(page, cases, names)
    _add_volumes(page, cases)
    _add_detection(page, lesions)
    page.section("The scores")
    for heading, rows in tables.items():
        page.table(rows, heading=heading.replace("the tumor", "the tumours"))
    columns = sorted(cases[0], key=lambda column: column.startswith("voxels_"))  # The least asked for last.
    if all(row["state"] == "" for row in cases):
        columns.remove("state")
    if len({row["region"] for row in cases}) == 1:
        columns.remove("region")
    page.section("All cases").text("A click on a heading sorts by it; the same table is in cases.csv.")
    page.table([_plain(row) for row in cases], columns, names=names, sortable=True)
    if curves:
        page.section("Training")
        add_curves(page, curves)
    return page.definitions(meanings or {}).provenance(facts or {}).write(path)


def _plain(row: Mapping) -> Mapping:
    return {**row, "region": _REGIONS.get(row["region"], row["region"])}


def _regions(cases: Sequence[Mapping]) -> list[str]:
    return list(dict.fromkeys(row["region"] for row in cases))


def _of_region(cases: Sequence[Mapping], metric: str) -> dict[str, list[float]]:
    """Returns a metric's values by region, for the regions in which it is defined in some case."""
    values = {region: [row[metric] for row in cases if row["region"] == region] for region in _regions(cases)}
    return {region: found for region, found in values.items() if np.isfinite(found).any()}


def _add_distributions(page: Page, cases: Sequence[Mapping], names: Mapping[str, str]) -> None:
    for metric, question in _DISTRIBUTIONS.items():
        values = _of_region(cases, metric) if metric in cases[0] else {}
        if values:
            name = names.get(metric, metric)
            shown = {_REGIONS.get(region, region): found for region, found in values.items()}
            page.chart(
                figures.score_distribution(shown, name),
                f"{name}. Each dot is a case; lines: median and quartiles.",
                question,
            )


def _add_volumes(page: Page, cases: Sequence[Mapping]) -> None:
    if not {"prediction_ml", "reference_ml"} <= set(cases[0]):
        return
    predicted, referenced = (_of_region(cases, f"{side}_ml") for side in ("prediction", "reference"))
    for region, volumes in referenced.items():
        if any(volumes) or any(predicted[region]):
            picture = figures.bland_altman(predicted[region], volumes, "ml", ("prediction", "reference"))
            page.chart(
                picture,
                "Bland-Altman: bias and limits of agreement of the volumes. Each dot is a case.",
                f"Is the volume of the {_REGIONS.get(region, region)} right?",
            )


def _add_detection(page: Page, lesions: Sequence[Mapping]) -> None:
    referenced = [row for row in lesions if row["side"] == "reference"]
    if referenced:
        picture = figures.detection_by_size(
            [row["size"] for row in referenced], [row["detected_0.5"] for row in referenced]
        )
        page.chart(
            picture,
            "Lesions of the reference that were detected at an IoU above 0.5, by diameter of a sphere of their volume.",
            "Which lesions are found?",
        )


def _add_pictures(page: Page, cases: Sequence[Mapping], read: ReadCase, names: Mapping[str, str]) -> None:
    metric = next((metric for metric in _RANKS if metric in cases[0]), None)
    if metric is None:
        return
    for region in _regions(cases):
        ranked = _ranked(cases, region, metric)
        if not ranked:
            continue
        name = _REGIONS.get(region, region)
        page.section(f"The {name}: {', '.join(ranked)}" if len(ranked) > 1 else f"The {name}")
        for badge, row in ranked.items():
            value = f"{names.get(metric, metric)} {row[metric]:.3f}"
            strips = _strips(region, *read(row["case"]))
            page.slices(strips, f"{row['case']}: {value}", row["state"], badge)


def _ranked(cases: Sequence[Mapping], region: str, metric: str) -> dict[str, Mapping]:
    """Returns the rows of the worst, the median and the best case of a region; of fewer than three cases, those."""
    rows = [row for row in cases if row["region"] == region and not np.isnan(row.get(metric, np.nan))]
    rows.sort(key=lambda row: _RANKS[metric] * row[metric])  # Stable: of equals the first.
    if len(rows) < 2:
        return {"only case": rows[0]} if rows else {}
    middle = {"median": rows[(len(rows) - 1) // 2]} if len(rows) > 2 else {}
    return {"worst": rows[0], **middle, "best": rows[-1]}


def _strips(region: str, scan: Volume, predicted: np.ndarray, reference: np.ndarray):
    masks, colors = {}, {}
    for side, ids, liver, tumor, dashed in (
        ("prediction", predicted, BLUE, RED, False),
        ("reference", reference, YELLOW, YELLOW, True),
    ):
        masks[side] = ids > labels.BACKGROUND
        colors[side] = liver, dashed
        if (ids == labels.TUMOR).any():
            masks[f"{side}, tumour"] = ids == labels.TUMOR
            colors[f"{side}, tumour"] = tumor, dashed
    # Where masks alone are known, the reference is drawn in greys.
    empty = not scan.voxels.any()
    drawn = scan.with_voxels(np.asarray(reference, np.uint8)) if empty else scan
    of_region = [np.isin(ids, labels.REGIONS[region]) for ids in (predicted, reference)]
    window = (0.0, 3.0) if empty else None
    return figures.slice_strips(drawn, masks, shown=of_region[0] | of_region[1], colors=colors, window=window)
