"""`volumes.csv` beside predicted masks: their volumes, kept up to date by every run that writes there."""

from __future__ import annotations

import csv
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from liverjax.datasets.layouts import natural_key
from liverjax.errors import InputError
from liverjax.files import write_csv
from liverjax.labels import LIVER, NAMES
from liverjax.scans import nifti

_LOG = logging.getLogger("liverjax")

#: Stands in every row.
USE = "Research use only, not for treatment"
#: ``liver_ml`` is the liver with its tumours. Where the networks know no tumours, the columns of tumours are empty.
COLUMNS = ("case", "mask", "liver_ml", "tumor_ml", "liver_without_tumor_ml", "tumor_load_percent", "use")


def write_volumes(path: pathlib.Path, records: Sequence[Mapping[str, Any]], tumors: bool) -> None:
    """Writes the table of volumes of the masks beside it.

    A row for each mask that this run wrote; rows of others stay as long as their masks are there. A mask that has
    changed since its row was written, by a run that was killed or by hand, is measured anew, and so is one that this
    run skipped and no row names. A file of the same name that is no such table is left alone, with a warning. Callers
    see to it that one process at a time does this in a folder.

    Args:
      path: of the table, in the folder of the masks.
      records: of `predict.Outcome.record`.
      tumors: whether the networks know tumours.
    """
    try:
        rows = {row["mask"]: row for row in rows_of(path, COLUMNS, "volumes")}
    except InputError as error:
        _LOG.warning("%s", error)
        return
    written = path.stat().st_mtime_ns if rows else 0
    done = {pathlib.Path(r["mask"]).name: r for r in records if r["status"] == "done"}
    others = {mask: (row["case"].removeprefix("'"), row["tumor_ml"] != "") for mask, row in rows.items()}
    others |= {pathlib.Path(r["mask"]).name: (r["id"], tumors) for r in records if r["status"] == "skipped"}
    for mask, (id, with_tumors) in others.items():
        file = path.parent / mask
        if mask in done or (mask in rows and file.exists() and file.stat().st_mtime_ns <= written):
            continue
        rows.pop(mask, None)
        if file.exists() and (measured := _measured(file, with_tumors)):
            rows[mask] = _row(id, mask, measured)
    rows |= {mask: _row(r["id"], mask, r["millilitres"]) for mask, r in done.items()}
    if rows or path.exists():
        ordered = sorted(rows, key=natural_key)
        write_csv(path, [{**rows[mask], "mask": cell(mask)} for mask in ordered], COLUMNS)


def rows_of(path: pathlib.Path, columns: Sequence[str], what: str) -> list[dict[str, Any]]:
    """Returns the rows of an earlier table beside masks, none if there is no file.

    Args:
      path: of the table.
      columns: that it has, "mask" among them, which loses the apostrophe of `cell`.
      what: it is of, for the message.

    Raises:
      InputError: it is no such file.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            ours = reader.fieldnames == list(columns) and all(None not in row and row["mask"] for row in rows)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error):
        ours, rows = False, []
    if not ours:
        raise InputError(
            f"{path}: is not a table of {what} of this library and left as it is; the manifest has what it would say; "
            "move it away, and the next run writes one"
        )
    return [{**row, "mask": str(row["mask"]).removeprefix("'")} for row in rows]


def _row(id: str, mask: str, millilitres: Mapping[str, float]) -> dict[str, Any]:
    liver, tumor = millilitres["liver"], millilitres.get("tumor")
    row: dict[str, Any] = {"case": cell(id), "mask": cell(mask), "liver_ml": f"{liver:.3f}", "use": USE}
    if tumor is not None:
        row["tumor_ml"] = f"{tumor:.3f}"
        # Of the rounded values, so that the columns add up.
        row["liver_without_tumor_ml"] = f"{round(liver, 3) - round(tumor, 3):.3f}"
        row["tumor_load_percent"] = f"{100 * tumor / liver:.3f}" if liver else ""
    return row


def cell(text: str) -> str:
    """Returns a text with an apostrophe before what a spreadsheet would run, as in the tables of an evaluation."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'")) else text


def _measured(mask: pathlib.Path, tumors: bool) -> dict[str, float]:
    """Returns the volumes of a mask file, none if it cannot be read."""
    try:
        volume = nifti.read_mask(mask)
    except InputError as error:
        _LOG.warning("%s; its volumes are not in the table", error)
        return {}
    return volume.region_millilitres(len(NAMES) if tumors else LIVER + 1)
