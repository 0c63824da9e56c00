"""What correcting automatic masks takes: slices, volume, contour, minutes; and whether slice quality foretold it."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import edt
import nibabel as nib
import numpy as np

from liverjax.errors import ConfigError, InputError
from liverjax.labels import REGIONS
from liverjax.objects.components import bounding_box
from liverjax.progress import followed
from liverjax.scoring import statistics
from liverjax.scoring.metrics import Region
from liverjax.studies import corrections_tables
from liverjax.studies.correction_order import Slices, curves, looked_at
from liverjax.studies.readers import (
    Reader,
    figure_row,
    find_corrected,
    mean_row,
    open_folder,
    patients_of,
    read_all,
)
from liverjax.volume import Volume

#: World axis across which the slices of a view are taken.
_VIEWS = {"axial": 2, "coronal": 1, "sagittal": 0}


@dataclasses.dataclass(frozen=True)
class Corrections:
    """What was corrected.

    Attributes:
      automatic: the masks before.
      readers: who corrected.
      region: of which the masks are.
      cases: a row per case and reader.
      slices: a row per axial slice with the region, case and reader.
      summary: a row per figure over all cases: value, interval, number of patients.
      curves: of each order in which slices are corrected: rows of `share`, `dice`, `low`, `high`.
      notes: what a reader of the study should know.
    """

    automatic: Reader
    readers: tuple[Reader, ...]
    region: str
    cases: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    curves: dict[str, list[dict[str, float]]]
    notes: list[str]

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the rows as CSV files, and all as ``corrections.json``, each atomically."""
        return corrections_tables.save(self, folder)

    def table(self) -> str:
        """Returns the figures as lines of text, for a terminal."""
        return corrections_tables.text(self)


def study_corrections(
    automatic: str | os.PathLike,
    corrected: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    *,
    region: str = "liver",
    values: Sequence[int] = (),
    tolerance_mm: float = 0.0,
    times: str | os.PathLike | None = None,
    quality: str | os.PathLike | None = None,
    scans: str | os.PathLike | None = None,
    cases: Sequence[str] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Corrections:
    """Compares automatic masks with what became of them.

    Args:
      automatic: folder of the masks before.
      corrected: for each reader a folder of the masks after, FOLDER or NAME=FOLDER.
      output: folder for the tables; None writes nothing.
      region: "liver" (with its tumours) or "tumor".
      values: of the mask files that are the region, if they are not the library's labels.
      tolerance_mm: a slice is changed, and contour added, by edits that reach farther than this; 0 counts every voxel.
      times: CSV file with the columns case, minutes_manual, minutes_corrected, and reader if there are several.
      quality: folder of ``CASE_quality.csv`` of `liverjax predict --save_uncertainty`.
      scans: data set of the scans, which says which cases belong to a patient.
      cases: ids; by default those of the corrected masks.
      seed: of the bootstrap.
      quiet: show no progress bar.

    Raises:
      ConfigError: there is no such region, or the tolerance is below 0.
      InputError: masks that are missing, cannot be read or do not lie voxel on voxel; times or qualities that cannot be
        used; an output folder of another study.
    """
    if region not in REGIONS:
        raise ConfigError(f"region is {region!r}, expected one of {', '.join(REGIONS)}")
    if not 0 <= tolerance_mm < math.inf:
        raise ConfigError(f"tolerance_mm is {tolerance_mm}, expected a distance in mm, 0 or more")
    before, readers, ids = find_corrected(automatic, corrected, cases)
    minutes = {} if times is None else corrections_tables.read_times(times, readers, ids)
    expected = {} if quality is None else {id: _read_quality(pathlib.Path(quality), id) for id in ids}
    if output is not None:
        open_folder(output, "corrections", [before, *readers], region, ids)
    patients = patients_of(scans, ids)
    rows, slices = [], []
    for id in followed(ids, "corrections", "case", quiet=quiet):
        first, *others = read_all([before, *readers], id, region, values)
        for reader, after in zip(readers, others, strict=True):
            who = {"case": id, "patient": patients[id], "reader": reader.name}
            own = _slice_rows(first, after, tolerance_mm, expected.get(id))
            rows.append(
                {**who, **_case_row(first, after, tolerance_mm), **minutes.get((id, reader.name), {})}
            )
            slices += [{**who, **row} for row in own]
    summary, drawn = _over_cases(rows, slices, bool(expected), seed)
    notes = _notes(rows, times is not None, tolerance_mm)
    found = Corrections(before, tuple(readers), region, rows, slices, summary, drawn, notes)
    if output is not None:
        found.save(output)
    return found


# --- one case -----------------------------------------------------------------------------------------------


def _axis(volume: Volume, view: str) -> int:
    """Returns the array axis across which the slices of a view are taken."""
    return nib.orientations.io_orientation(volume.affine)[:, 0].tolist().index(_VIEWS[view])


def _far(before: np.ndarray, after: np.ndarray, spacing: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns the edited voxels whose centre lies farther than a tolerance from the nearest on its side before."""
    edited = before != after
    if not tolerance or not before.any() or before.all():
        return edited
    sizes = tuple(float(size) for size in spacing)
    to_mask = edt.edt(np.ascontiguousarray(~before).view(np.uint8), anisotropy=sizes)
    to_rest = edt.edt(np.ascontiguousarray(before).view(np.uint8), anisotropy=sizes)
    return edited & (np.where(before, to_rest, to_mask) > tolerance * (1 + 1e-6))


def _case_row(before: Volume, after: Volume, tolerance: float) -> dict[str, Any]:
    box = _padded(before, after)
    a, b = before.voxels[box], after.voxels[box]
    compared = Region(b, a, before.spacing)
    voxel_ml = compared.voxel_ml
    far = _far(a, b, before.spacing, tolerance)
    shares: dict[str, Any] = {}
    for view in _VIEWS:
        others = tuple(axis for axis in range(3) if axis != _axis(before, view))
        present = (a | b).any(axis=others)
        changed = far.any(axis=others) & present
        shares[f"slices_{view}"] = int(present.sum())
        shares[f"changed_{view}_percent"] = (
            float(100 * changed.sum() / present.sum()) if present.any() else math.nan
        )
    added, removed = (float(np.count_nonzero(one)) * voxel_ml for one in (b & ~a, a & ~b))
    after_ml = compared.overlap.prediction * voxel_ml
    return {
        **shares,
        "dice": compared.overlap.dice,
        "automatic_ml": compared.overlap.reference * voxel_ml,
        "corrected_ml": after_ml,
        "added_ml": added,
        "removed_ml": removed,
        "edited_percent": 100 * (added + removed) / after_ml if after_ml else math.nan,
        "moved_mean_mm": compared.voxels.assd,
        "moved_hd95_mm": compared.voxels.hd95,
        "added_path_mm": added_path(a, b, before.spacing, _axis(before, "axial"), tolerance),
    }


def _padded(before: Volume, after: Volume) -> tuple[slice, ...]:
    """Returns the box of both masks with a voxel of background around, so that distances see the outside."""
    box = bounding_box(before.voxels | after.voxels)
    return tuple(slice(max((along.start or 0) - 1, 0), along.stop + 1) for along in box)


def added_path(
    before: np.ndarray,
    after: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    axis: int,
    tolerance: float = 0.0,
) -> float:
    """Returns the added path length in mm (Vaassen 2020, phiRO 13:1): contour of the corrected mask that is new.

    In each slice, the pixels of the corrected contour (of the mask, with background among their four neighbours) that
    lie farther than a tolerance from every pixel of the automatic contour, times the size of a pixel.

    Args:
      before: (x, y, z) bool, the automatic mask.
      after: the corrected mask.
      spacing: voxel size in mm.
      axis: across which the slices are drawn.
      tolerance: in mm.
    """
    in_plane = np.delete(np.asarray(spacing, float), axis)
    length = 0
    for a, b in zip(np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0), strict=True):
        new, old = _contour(b), _contour(a)
        if old.any() and new.any():
            distance = edt.edt(np.ascontiguousarray(~old).view(np.uint8), anisotropy=tuple(in_plane))
            new &= distance > tolerance * (1 + 1e-6)
        length += int(new.sum())
    return length * float(np.sqrt(in_plane.prod()))


def _contour(plane: np.ndarray) -> np.ndarray:
    padded = np.pad(plane, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return plane & ~inner


def _slice_rows(
    before: Volume, after: Volume, tolerance: float, expected: Mapping[int, float] | None
) -> list[dict[str, Any]]:
    axis, box = _axis(before, "axial"), _padded(before, after)
    a, b = before.voxels[box], after.voxels[box]
    far = np.moveaxis(_far(a, b, before.spacing, tolerance), axis, 0)
    first, rows = box[axis].start, []
    for index, (one, other, moved) in enumerate(
        zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), far, strict=True), first
    ):
        counts = int(one.sum()), int(other.sum()), int((one & other).sum())
        if counts[0] + counts[1]:
            names = ("automatic", "corrected", "both")
            row: dict[str, Any] = {
                "slice": index,
                **dict(zip(names, counts, strict=True)),
                "changed": bool(moved.any()),
            }
            row["edited"] = counts[0] + counts[1] - 2 * counts[2]
            if expected is not None:
                row["expected_dice"] = expected.get(index, math.nan)
            rows.append(row)
    return rows


def _read_quality(folder: pathlib.Path, case: str) -> dict[int, float]:
    path = folder / f"{case}_quality.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {int(row["slice"]): float(row["expected_dice"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        reason = (
            "no such file"
            if isinstance(error, FileNotFoundError)
            else "cannot be read as slice,expected_dice"
        )
        raise InputError(
            f"{path}: {reason}, expected the folder uncertainty/ of `liverjax predict --save_uncertainty`"
        ) from None


# --- over all cases -----------------------------------------------------------------------------------------

_FIGURES = {
    "changed_axial_percent": "axial slices changed [%]",
    "changed_coronal_percent": "coronal slices changed [%]",
    "changed_sagittal_percent": "sagittal slices changed [%]",
    "dice": "Dice of automatic and corrected",
    "edited_percent": "edited volume, of the corrected [%]",
    "added_ml": "volume added [ml]",
    "removed_ml": "volume removed [ml]",
    "moved_mean_mm": "surface moved, mean [mm]",
    "moved_hd95_mm": "surface moved, HD95 [mm]",
    "added_path_mm": "added path length [mm]",
    "minutes_corrected": "minutes to correct",
    "minutes_manual": "minutes by hand",
    "minutes_saved": "minutes saved",
}


def _over_cases(rows, slices, known: bool, seed: int):
    patients = [row["patient"] for row in rows]
    summary = [
        mean_row(label, [row.get(name, math.nan) for row in rows], patients, seed)
        for name, label in _FIGURES.items()
        if any(name in row for row in rows)
    ]
    found = Slices.of(slices)
    if known:
        ranked = np.isfinite(found.expected)
        quality, changed, clusters = -found.expected[ranked], found.changed[ranked], found.patient[ranked]

        def areas(chosen: np.ndarray) -> np.ndarray:
            return np.array([statistics.auroc(quality[chosen], changed[chosen])])

        value = areas(np.arange(quality.size))[0] if quality.size else math.nan
        low, high = (
            statistics.clustered_interval(areas, clusters, seed=seed) if quality.size else ([math.nan],) * 2
        )
        label = "slice quality: AUROC of changed slices"
        summary.append(figure_row(label, float(value), float(low[0]), float(high[0]), len(set(clusters))))
        shares = looked_at(found, 0.95)
        label = "slices to look at for 95 % of the edits, lowest quality first [%]"
        summary.append(mean_row(label, [100 * share for share in shares], patients, seed))
        minutes = [row.get("minutes_corrected", math.nan) for row in rows]
        if not all(map(math.isnan, minutes)):
            each = [share * minute for share, minute in zip(shares, minutes, strict=True)]
            label = "minutes for those, if each slice took the same"
            summary.append(mean_row(label, each, patients, seed))
    return summary, curves(found, seed)


def _notes(rows, timed: bool, tolerance: float) -> list[str]:
    patients, readers = (len({row[name] for row in rows}) for name in ("patient", "reader"))
    notes = [
        f"Patients: {patients}; readers: {readers}; masks: {len(rows)}. Intervals are drawn over patients; readers are "
        "not drawn, so that they hold for these readers.",
        "A changed slice is one in which a voxel was edited"
        + (f" farther than {tolerance:g} mm from its side of the automatic contour." if tolerance else "."),
    ]
    untimed = [
        f"{row['case']} ({row['reader']})" for row in rows if math.isnan(row.get("minutes_saved", math.nan))
    ]
    if timed and untimed:
        notes.append(f"no saved time of {', '.join(untimed)}: a time is missing; left out of the means.")
    same = sum(row["added_ml"] + row["removed_ml"] == 0 for row in rows)
    if same:
        notes.append(f"{same} of {len(rows)} masks were not changed at all.")
    return notes
