"""What observers differ in, as files and as text."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liverjax import __version__, files
from liverjax.scoring import tables
from liverjax.scoring.summary import cell, make_folder

if TYPE_CHECKING:
    from liverjax.studies.observers import Observers

USE = "research use only"


def save(found: Observers, folder: str | os.PathLike) -> pathlib.Path:
    """Writes the tables of a study, each atomically.

    A CSV file for each of `rows_of` that has rows, and ``observers.json``.
    """
    folder = make_folder(folder)
    for name, rows in rows_of(found).items():
        if rows:
            safe = [{k: cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
            files.write_csv(folder / f"{name}.csv", safe, list(rows[0]))
    document = {"use": USE, "liverjax_version": __version__, "region": found.region, "notes": found.notes}
    files.write_json(folder / "observers.json", finite({**document, **rows_of(found)}))
    return folder


def rows_of(found: Observers) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each table by its name."""
    pairs = [{key: value for key, value in row.items() if key != "modes"} for row in found.pairs]
    return {
        "cases": found.cases,
        "pairs": pairs,
        "readers": found.each,
        "summary": found.summary,
        "limits": found.limits,
        "tests": found.tests,
    }


def shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns figures with intervals as rows of text."""
    return [
        {
            "": row["figure"],
            "value": tables.number(row["value"]),
            "95 % interval": tables.interval(dict(row)),
            "patients": str(row["patients"]),
        }
        for row in rows
    ]


def shown_tests(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns paired tests between modes as rows of text."""
    return [
        {
            "": f"{row['measure']}, {row['modes']}",
            "pairs": str(row["n"]),
            "difference": tables.number(row["mean_difference"]),
            "95 % interval": tables.interval(dict(row)),
            "p permutation": tables.p_value(row["p_permutation"]),
            "(Holm)": tables.p_value(row["p_holm"]),
        }
        for row in rows
    ]


def text(found: Observers) -> str:
    """Returns the figures as lines of text."""
    blocks = [tables.aligned(shown(found.summary))]
    if found.tests:
        blocks.append(tables.aligned(shown_tests(found.tests)))
    return "\n\n".join([*blocks, "\n".join(found.notes)])


def finite(value: Any) -> Any:
    """Returns a value as JSON has it, at any depth: NaN and infinity are None, tuples are lists."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
