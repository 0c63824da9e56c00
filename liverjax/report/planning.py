"""The reports of planning: volumes, and the worksheet of SIRT."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from liverjax.report.html import Page
from liverjax.report.pictures import Strip

#: Stands at the top of each page, beside the footer.
_USE = "Research use only, not for treatment."
_VOLUMES = (
    "The liver includes its tumours; tumour load is tumours / liver. A volume is a number of voxels times the volume "
    "of one voxel. Intervals: from the ratios of predicted to reference volumes on scans that did not train the model; "
    "they hold the true volume in 90 % or more of further scans from where these come from. Definitions: docs/sirt.md."
)
_WORKSHEET = (
    "The activity is computed from the measured volumes; its interval is that of the activity which the true volumes "
    "ask for. Intervals of doses are of this one activity, for the true volumes. Lung shunt, ratio and density count "
    "as exact. Definitions and sources: docs/sirt.md."
)


def volumetry_report(
    path: str | os.PathLike,
    cases: Mapping[str, Sequence[Mapping[str, Any]]],
    calibration: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    pictures: Iterable[tuple[str, Sequence[Strip]]] = (),
) -> pathlib.Path:
    """Writes the volumes of cases as one HTML file.

    Args:
      path: the file.
      cases: rows by case, with `quantity`, `region`, `voxels`, `value`, `unit`, `low`, `high` and `interval`.
      calibration: what the intervals rest on.
      notes: of each case, what a reader should know.
      pictures: slices by case, as `figures.slice_strips` cuts them.
    """
    page = Page("Volumes of the liver").text(_USE).text(f"Intervals: {'; '.join(calibration)}.")
    for case, strips in pictures:
        liver = next(row for row in cases[case] if row["quantity"] == "liver")
        page.slices(strips, f"{case}: liver {_value(liver)}")
    table = [
        {
            "case": case,
            "quantity": row["quantity"].replace("_", " ").replace("tumor", "tumour"),
            "region": row["region"],
            "voxels": row["voxels"],
            "value": _value(row),
            "90 % interval": _interval(row),
        }
        for case, rows in cases.items()
        for row in rows
    ]
    columns = [column for column in table[0] if len(cases) > 1 or column != "case"]
    page.section("All cases" if len(cases) > 1 else next(iter(cases))).table(table, columns, sortable=True)
    for case, said in notes.items():
        for note in said:
            page.text(f"Note on {case}: {note}.")
    return page.section("Method").text(_VOLUMES).write(path)


def worksheet_report(
    path: str | os.PathLike,
    title: str,
    inputs: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    warnings: Sequence[str],
    notes: Sequence[str],
    pictures: Iterable[tuple[str, Sequence[Strip]]] = (),
) -> pathlib.Path:
    """Writes a worksheet of SIRT as one HTML file.

    Args:
      path: the file.
      title: its heading.
      inputs: rows with `input`, `symbol`, `value`, `unit` and `from`.
      steps: rows with `section`, `quantity`, `symbol`, `value`, `unit`, `low`, `high`, `interval`, `formula` and
        `numbers`.
      warnings: what is beyond usual limits.
      notes: what a reader should know.
      pictures: captions, and slices as above.
    """
    page = Page(title).text(_USE)
    for warning in warnings:
        page.warning(f"Warning: {warning}.")
    for caption, strips in pictures:
        page.slices(strips, caption)
    page.section("Inputs").table([{**row, "value": _number(row["value"])} for row in inputs])
    for section in dict.fromkeys(step["section"] for step in steps):
        page.section(section).table(
            [
                {
                    "": step["quantity"],
                    "calculation": _calculation(step),
                    "result": _value(step),
                    "90 % interval": _interval(step),
                }
                for step in steps
                if step["section"] == section
            ]
        )
    for note in notes:
        page.text(f"Note: {note}.")
    return page.text(_WORKSHEET).write(path)


def _calculation(step: Mapping[str, Any]) -> str:
    if not step["formula"]:
        return step["symbol"]
    text = f"{step['symbol']} = {step['formula']} = {step['numbers']}"
    return text.replace("*", "\N{MULTIPLICATION SIGN}")


def _value(row: Mapping[str, Any]) -> str:
    return f"{_number(row['value'])}\N{NO-BREAK SPACE}{row['unit']}".strip()


def _interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return row["interval"].replace(" ", "\N{NO-BREAK SPACE}", 1)
    return f"{_number(row['low'])} to {_number(row['high'])}"


def _number(value: float) -> str:
    """Returns a number with four digits, or all before the point."""
    value = float(value)
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
