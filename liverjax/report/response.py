"""The report of response: tables, sums of diameters, pictures of lesions with their diameters; and that of raters."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from liverjax.report import figures
from liverjax.report.html import Page

#: Stands at the top of each page, beside the footer.
_USE = "Research use only, not for treatment decisions."
# Of more raters, their own rows and columns are in the tables beside the page.
_MOST_COLUMNS = 12
_METHOD = (
    "Longest axial diameters from edge to edge of the outline (halfway between pixels in and outside), in the slice "
    "in which they are longest, and the longest perpendicular to them. RECIST 1.1: PD is a sum 20 % and 5 mm above the "
    "smallest sum before, or an unequivocal new lesion; PR one 30 % below the baseline; progression of lesions that "
    "are not targets is a reader's judgement, which masks do not hold."
)
_RESPONSE = (
    "time_point", "date", "sum_mm", "nadir_mm", "change_percent", "change_from_nadir_percent", "target", "non_target",
    "new_lesions", "overall", "who", "mrecist",
)  # fmt: skip
_LESION = (
    "time_point", "lesion", "part", "target", "state", "longest_mm", "perpendicular_mm", "volume_ml", "slice_axis",
    "slice",
)  # fmt: skip


def response_report(
    path: str | os.PathLike,
    responses: Mapping[str, Sequence[Mapping[str, Any]]],
    lesions: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Mapping[str, Sequence[str]],
    pictures: Iterable[tuple[str, str, Sequence[Mapping[str, Any] | str]]] = (),
) -> pathlib.Path:
    """Writes the report of one or more patients as one HTML file.

    Args:
      path: the file.
      responses: for each patient a row per time point.
      lesions: for each patient a row per lesion and time point.
      notes: for each patient what a reader should know.
      pictures: of lesions: the patient, a caption, and for each time point the arguments of `figures.lesion_slice`, or
        a text where the lesion is not there.
    """
    page = Page("Response by RECIST 1.1").text(_USE)
    if any(len(rows) > 1 for rows in responses.values()):
        page.chart(
            figures.sums_of_diameters(responses),
            "Sum of diameters, change from the baseline.",
            "Do the target lesions shrink?",
        )
    drawn = [(patient, _course(seen, caption), caption) for patient, caption, seen in pictures]
    for patient, rows in responses.items():
        optional = [c for c in _RESPONSE if any(str(row[c]) not in ("", "nan") for row in rows)]
        page.section(f"{patient}: lesions")
        for png, caption in ((png, caption) for of_patient, png, caption in drawn if of_patient == patient):
            page.figure(png, caption)
        page.table(rows, optional, heading=f"{patient}: response")
        for note in notes[patient]:
            page.text(note)
        page.table(
            [{**row, "target": "yes" if row["target"] else ""} for row in lesions[patient]],
            _LESION,
            sortable=True,
        )
    return page.section("Method").text(_METHOD).write(path)


def _course(seen: Sequence[Mapping[str, Any] | str], caption: str) -> bytes:
    return figures.lesion_course(
        [one if isinstance(one, str) else figures.lesion_slice(**one) for one in seen], caption
    )


def raters_report(
    path: str | os.PathLike,
    raters: Sequence[str],
    classes: Sequence[Mapping[str, Any]],
    kappas: Sequence[Mapping[str, Any]],
    limits: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Sequence[Mapping[str, Any]]],
    choices: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the report of the agreement of raters as one HTML file.

    Args:
      path: the file.
      raters: their names.
      classes: a row per case and time point, with the share of raters of each class.
      kappas: a row per time point.
      limits: limits of agreement of each kind of value.
      values: rows of the values of each rater, by the same kinds.
      choices: a row per case and rater, on the choice of target lesions.
      notes: what a reader should know.
    """
    page = Page("Response and its variability over raters").text(_USE)
    few = len(raters) <= _MOST_COLUMNS
    page.text(f"Raters: {', '.join(raters) if few else f'{len(raters)}, {raters[0]} to {raters[-1]}'}.")
    for note in notes:
        page.text(note)
    for name in dict.fromkeys(row["time_point"] for row in classes):
        rows = [row for row in classes if row["time_point"] == name]
        page.chart(
            figures.class_shares(rows, f"{len(raters)} raters"),
            "Share of raters of each response class, least agreement first.",
            f"Do raters agree on the response at {name}?",
        )
    if kappas:
        page.section("Fleiss' kappa").text("Intervals: 95 %, bootstrap over cases.").table(kappas)
    if choices:
        page.section("Choice of target lesions").text(
            "Classes at the last time point with the rater's own target lesions, and with those of most raters."
        )
        page.table(choices) if few else page.text("The choice of each rater is in choices.csv.")
    for kind, rows in limits.items():
        if rows[-1]["n"]:
            unit = "ml" if kind == "volumes" else "mm"
            page.section(f"Agreement of {kind} [{unit}]")
            page.text(
                "Limits of agreement (95 %) of two raters: bias and 1.96 standard deviations of differences."
            )
            page.table(rows if few else rows[-1:])
            if len(raters) == 2:
                pair = [[row[rater] for row in values[kind]] for rater in raters]
                page.chart(
                    figures.bland_altman(pair[0], pair[1], unit, (raters[0], raters[1])), "Bland-Altman"
                )
            if few:
                page.table(values[kind])
            else:
                page.text(f"Limits of each rater are in limits.csv, the values in {kind}.csv.")
    return page.write(path)
