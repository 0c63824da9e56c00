"""What was corrected, as files and as text; and the times that it took, from a CSV file."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from liverjax import __version__, files
from liverjax.errors import InputError
from liverjax.scoring import tables
from liverjax.scoring.summary import cell, make_folder
from liverjax.studies.observers_tables import USE, finite, shown
from liverjax.studies.readers import Reader

if TYPE_CHECKING:
    from liverjax.studies.corrections import Corrections

_MINUTES = ("minutes_manual", "minutes_corrected")


def read_times(
    path: str | os.PathLike, readers: Sequence[Reader], cases: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Returns the minutes of each case and reader, and those saved; an empty cell is a time that is not known.

    Raises:
      InputError: the file cannot be read, lacks a column, holds what is no number of minutes, names a case or reader
        that is not compared or one twice, or holds no case with both times.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
            columns = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    wanted = ["case", *_MINUTES] + (["reader"] if len(readers) > 1 else [])
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}, expected {', '.join(wanted)}")
    found: dict[tuple[str, str], dict[str, float]] = {}
    names = [reader.name for reader in readers]
    for number, line in enumerate(lines, 2):
        who = (
            line["case"] or "",
            (line.get("reader") or names[0]) if len(readers) == 1 else line["reader"] or "",
        )
        if who[1] not in names:
            raise InputError(f"{path}, line {number}: reader {who[1]!r}, expected one of {', '.join(names)}")
        if who in found:
            raise InputError(
                f"{path}, line {number}: case {who[0]!r} by {who[1]} a second time, expected one line"
            )
        manual, corrected = (_minutes(line[name], f"{path}, line {number}: {name}") for name in _MINUTES)
        if who[0] in cases:
            found[who] = dict(
                zip((*_MINUTES, "minutes_saved"), (manual, corrected, manual - corrected), strict=True)
            )
    if all(math.isnan(times["minutes_saved"]) for times in found.values()):
        raise InputError(
            f"{path}: no case that is compared ({', '.join(cases)}) has both times, expected {' and '.join(_MINUTES)}"
        )
    return found


def _minutes(text: str | None, where: str) -> float:
    if not (text or "").strip():
        return math.nan
    try:
        minutes = float(text or "")
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < math.inf:
        raise InputError(f"{where} is {text!r}, expected minutes, 0 or more, or an empty cell")
    return minutes


def rows_of(found: Corrections) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each table by its name."""
    curves = [{"order": name, **row} for name, rows in found.curves.items() for row in rows]
    return {"cases": found.cases, "slices": found.slices, "summary": found.summary, "curves": curves}


def save(found: Corrections, folder: str | os.PathLike) -> pathlib.Path:
    """Writes a CSV file for each of `rows_of` that has rows, and ``corrections.json``, each atomically."""
    folder = make_folder(folder)
    for name, rows in rows_of(found).items():
        if rows:
            columns = dict.fromkeys(key for row in rows for key in row)
            safe = [{k: cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
            files.write_csv(folder / f"{name}.csv", safe, list(columns))
    facts = {"use": USE, "liverjax_version": __version__, "region": found.region, "notes": found.notes}
    document = {name: rows for name, rows in rows_of(found).items() if name != "slices"}
    files.write_json(folder / "corrections.json", finite({**facts, **document}))
    return folder


def text(found: Corrections) -> str:
    """Returns the figures as lines of text."""
    return "\n\n".join([tables.aligned(shown(found.summary)), "\n".join(found.notes)])
