"""`lesions.csv` beside masks of a cascade: every lesion, and every candidate that the lesion filter dropped."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liverjax.datasets.layouts import natural_key
from liverjax.errors import InputError
from liverjax.files import write_csv
from liverjax.inference.volumes import USE, cell, rows_of
from liverjax.prediction import FoundLesion

_LOG = logging.getLogger("liverjax")

#: A mask without lesions has one row, in which ``lesion`` is 0: so every mask of the table was looked at.
COLUMNS = (
    *("case", "mask", "lesion", "kept", "lesion_probability", "ml", "candidate_ml", "diameter_mm"),
    *("x_mm", "y_mm", "z_mm", "use"),
)


def as_json(lesions: Sequence[FoundLesion]) -> list[dict[str, Any]]:
    """Returns the cells of a row for each lesion, as JSON takes them."""
    return [
        {
            "lesion": number,
            "kept": int(one.kept),
            "lesion_probability": None if one.probability is None else round(one.probability, 4),
            "ml": round(one.ml, 4),
            "candidate_ml": round(one.candidate_ml, 4),
            "diameter_mm": round(one.diameter_mm, 2),
            **{f"{axis}_mm": round(place, 2) for axis, place in zip("xyz", one.centre_mm, strict=True)},
        }
        for number, one in enumerate(lesions, start=1)
    ]


def write_lesions(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table of the lesions of a cascade's masks beside them.

    Rows of masks that this run did not write stay as long as their masks are there and no newer than the table. Masks
    that were skipped and are not in the table are named in a warning. A file of the same name that is no such table is
    left alone, with a warning. Callers see to it that one process at a time does this in a folder.

    Args:
      path: of the table, in the folder of the masks.
      records: of `predict.Outcome.record`.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in rows_of(path, COLUMNS, "lesions"):
            rows.setdefault(row["mask"], []).append({**row, "mask": cell(row["mask"])})
    except InputError as error:
        _LOG.warning("%s", error)
        return
    written = path.stat().st_mtime_ns if rows else 0
    done = {pathlib.Path(r["mask"]).name: r for r in records if r["status"] == "done"}

    def stays(mask: str) -> bool:
        file = path.parent / mask
        return mask not in done and file.exists() and file.stat().st_mtime_ns <= written

    kept = {mask: of_mask for mask, of_mask in rows.items() if stays(mask)}
    kept |= {mask: list(_new_rows(mask, record)) for mask, record in done.items()}
    skipped = [pathlib.Path(r["mask"]).name for r in records if r["status"] == "skipped"]
    if absent := [mask for mask in skipped if mask not in kept]:
        _LOG.warning(
            "%s: the lesions of %d masks that were skipped are not in it, such as %s; predict them again, without "
            "--skip_existing",
            path, len(absent), absent[0],
        )  # fmt: skip
    if kept or path.exists():
        write_csv(path, [row for mask in sorted(kept, key=natural_key) for row in kept[mask]], COLUMNS)


def _new_rows(mask: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for facts in record.get("lesions") or [{"lesion": 0, "kept": 0}]:
        row = {name: value for name, value in facts.items() if value is not None}
        yield {"case": cell(record["id"]), "mask": cell(mask), **row, "use": USE}
