"""Volumes of the liver, its tumours, each lesion and regions of the liver, in ml, from masks of any tool.

The liver always includes its tumours, and tumour load is tumours / liver. Every volume is a whole number of voxels
times the volume of one voxel, so that parts add up to their whole exactly.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from liverjax import __version__, files
from liverjax.datasets import layouts
from liverjax.datasets.label_names import OWN_LABELS
from liverjax.errors import ConfigError, InputError
from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.objects.components import bounding_box, label
from liverjax.planning.intervals import NO_ERRORS, NO_INTERVAL, Interval, VolumeErrors, interval
from liverjax.scans import nifti
from liverjax.scoring import tables
from liverjax.scoring.summary import cell, make_folder
from liverjax.volume import Volume, label_voxels, value_counts

#: Stands on every output.
USE = "Research use only, not for treatment"
#: Columns of `volumetry.csv`.
COLUMNS = (
    *("case", "region", "quantity", "voxels", "value", "unit", "low", "high", "interval", "mask"),
    "use",
)
#: Region of rows of the whole liver, and of what no region holds.
WHOLE, REST = "whole liver", "outside the regions"


@dataclasses.dataclass(frozen=True)
class Part:
    """The liver, or a region of it.

    Attributes:
      name: of the region.
      liver: number of voxels of the liver, with its tumours.
      tumor: number of voxels of tumour.
    """

    name: str
    liver: int
    tumor: int


@dataclasses.dataclass(frozen=True)
class Volumes:
    """What a mask holds.

    Attributes:
      case: id of the case.
      mask: label ids, uint8: 0 background, 1 liver, 2 tumour.
      voxel_ml: volume of a voxel in ml.
      whole: the liver.
      lesions: number of voxels of each lesion (components by 6 neighbours), in order of their ids.
      regions: the liver in each region, and last in none of them; none where no regions are given.
      notes: what a reader should know.
    """

    case: str
    mask: Volume
    voxel_ml: float
    whole: Part
    lesions: tuple[int, ...]
    regions: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    mask: Volume, case: str = "mask", regions: Volume | None = None, names: Mapping[int, str] | None = None
) -> Volumes:
    """Counts the voxels of a mask.

    Args:
      mask: label ids: 0 background, 1 liver, 2 tumour.
      case: id of the case.
      regions: (x, y, z) on the same voxels: a number for each region of the liver, 0 elsewhere.
      names: of regions, by number; others are called "region 3".

    Raises:
      InputError: it is no mask, or holds no liver; regions on other voxels, or of which none lies in the liver; or
        names of none of them.
    """
    ids = label_voxels(mask, range(3))
    mask = mask.with_voxels(ids)
    count = value_counts(ids)
    if not count[LIVER]:
        raise InputError(
            f"{mask.name}: holds no liver, expected the liver beside {count[TUMOR]} voxels of tumour"
        )
    whole = Part(WHOLE, int(count[LIVER] + count[TUMOR]), int(count[TUMOR]))
    tumor = ids == TUMOR
    tumor = tumor[bounding_box(tumor)]
    lesions = tuple(np.bincount(label(tumor).ravel())[1:].tolist()) if whole.tumor else ()
    voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000
    parts, notes = ((), ()) if regions is None else _parts(mask, regions, names or {})
    return Volumes(case, mask, voxel_ml, whole, lesions, parts, notes)


def _parts(
    mask: Volume, regions: Volume, names: Mapping[int, str]
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Returns the liver in each region and in none, and notes."""
    nifti.require_same_geometry(regions, mask)
    numbers = label_voxels(regions, range(256))
    liver, tumor = (
        np.bincount(numbers[mask.voxels >= least], minlength=256).tolist() for least in (LIVER, TUMOR)
    )
    stated = value_counts(numbers)
    there = [number for number in range(1, 256) if stated[number]]
    if unknown := sorted(set(names) - set(there)):
        raise InputError(
            f"{regions.name}: holds no region {', '.join(map(str, unknown))} to be named, expected numbers of "
            f"{', '.join(map(str, there)) or 'regions, of which it holds none'}"
        )
    if not sum(liver[1:]):
        raise InputError(f"{regions.name}: no voxel of its regions lies in the liver of {mask.name}")
    outside = int(stated[1:].sum()) - sum(liver[1:])
    parts = [Part(names.get(n, f"region {n}"), liver[n], tumor[n]) for n in there]
    notes = (f"{outside} voxels of the regions lie outside the liver and are not counted",) if outside else ()
    return (*parts, Part(REST, liver[0], tumor[0])), notes


# --- reading ------------------------------------------------------------------------------------------------


def read_masks(
    path: str | os.PathLike,
    *,
    liver_labels: Sequence[int] = (),
    tumor_labels: Sequence[int] = (),
    tumor_masks: str | os.PathLike | None = None,
) -> Iterator[tuple[str, Volume]]:
    """Yields the case id and the label ids (0 background, 1 liver, 2 tumour) of masks of any tool.

    Args:
      path: a mask, or a folder of masks.
      liver_labels: values of liver; by default what a `dataset.json` or `cases.json` beside the masks states, else 1.
        If values are given, all that are not named are background.
      tumor_labels: values of tumour, likewise, else 2.
      tumor_masks: a mask of tumours on the same voxels, or a folder of them named as the masks; any value but 0 is
        tumour, whatever the liver's mask has there.

    Raises:
      InputError: a file cannot be used, or holds a value that nothing names; no liver; tumours on other voxels, or more
        of them than liver.
      ConfigError: a value is both liver and tumour.
    """
    found, stated = layouts.mask_files(path)
    if both := sorted(set(liver_labels) & set(tumor_labels)):
        raise ConfigError(f"{both[0]} is a value of liver and of tumour, expected one of them")
    if liver_labels or tumor_labels:
        map = [(v, LIVER) for v in liver_labels or {LIVER} - set(tumor_labels)]
        map += [(v, TUMOR) for v in tumor_labels or {TUMOR} - set(liver_labels)]
        meanings = dict.fromkeys(range(256), BACKGROUND) | dict(map)
    else:
        meanings = dict(stated.map if stated else OWN_LABELS)
    apart = {} if tumor_masks is None else layouts.mask_files(tumor_masks)[0]
    single = len(found) == len(apart) == 1
    if missing := [id for id in found if apart and not single and id not in apart]:
        raise InputError(f"{tumor_masks}: no mask of {', '.join(missing)}, expected files named as the masks")
    for id in sorted(found, key=layouts.natural_key):
        mask = _labels(found[id], meanings)
        if apart:
            mask = _with_tumors(mask, next(iter(apart.values())) if single else apart[id])
        if not (mask.voxels != BACKGROUND).any():
            raise InputError(_no_liver(found[id]))
        yield id, mask


def _labels(path: pathlib.Path, meanings: Mapping[int, int]) -> Volume:
    mask = nifti.read_mask(path, labels=range(256))
    values = [int(value) for value in np.flatnonzero(value_counts(mask.voxels))]
    if unknown := [value for value in values if value not in meanings]:
        raise InputError(
            f"{path}: holds the values {', '.join(map(str, unknown))}, which nothing names, expected 0 background, 1 "
            "liver, 2 tumour; name those that are liver, as --liver_labels=1,3, or tumour, as --tumor_labels=2"
        )
    if all(meanings[value] == value for value in values):
        return mask
    table = np.zeros(256, np.uint8)
    table[list(meanings)] = list(meanings.values())
    return mask.with_voxels(table[mask.voxels])


def _no_liver(path: pathlib.Path) -> str:
    values = np.unique(nifti.read_mask(path, labels=range(256)).voxels)
    others = [str(value) for value in values if value]
    if not others:
        return f"{path}: holds no liver: the mask is empty"
    return (
        f"{path}: holds no liver, but the values {', '.join(others)}; name those that are liver: "
        f"--liver_labels={others[0]}"
    )


def _with_tumors(mask: Volume, path: pathlib.Path) -> Volume:
    tumors = nifti.read_mask(path, labels=range(256))
    nifti.require_same_geometry(tumors, mask)
    inside, liver = np.count_nonzero(tumors.voxels), np.count_nonzero(mask.voxels)
    if inside > liver:
        raise InputError(
            f"{path}: {inside} voxels of tumour, more than the liver of {mask.name} has ({liver}), expected tumours of "
            "this liver"
        )
    return mask.with_voxels(
        np.where(tumors.voxels != 0, TUMOR, np.minimum(mask.voxels, LIVER)).astype(np.uint8)
    )


# --- rows ---------------------------------------------------------------------------------------------------


def samples(volumes: Volumes, part: Part, errors: VolumeErrors) -> dict[str, tuple[float, np.ndarray | None]]:
    """Returns the volumes of a part and what is computed from them, each with its samples.

    `liver`, `tumor` and `liver_without_tumor` in ml, `tumor_load` in percent. The errors of the whole liver and of all
    tumours are taken for those of a part. In a sample the tumours are at most the liver.
    """
    liver_ml, tumor_ml = part.liver * volumes.voxel_ml, part.tumor * volumes.voxel_ml
    alone, tumors, both = errors.factors("liver"), errors.factors("tumor"), errors.factors("liver", "tumor")
    joint = None if both is None else (liver_ml * both["liver"], tumor_ml * both["tumor"])
    if joint is not None:
        joint = joint[0], np.minimum(joint[1], joint[0])
    rest, load = None, None
    if joint is not None:
        rest, load = joint[0] - joint[1], 100 * _ratio(joint[1], joint[0])
    return {
        "liver": (liver_ml, None if alone is None else liver_ml * alone["liver"]),
        "liver_without_tumor": ((part.liver - part.tumor) * volumes.voxel_ml, rest),
        "tumor": (tumor_ml, None if tumors is None else tumor_ml * tumors["tumor"]),
        "tumor_load": (100 * part.tumor / part.liver if part.liver else 0.0, load),
    }


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def rows(volumes: Volumes, errors: VolumeErrors = NO_ERRORS) -> list[dict[str, Any]]:
    """Returns a row for each volume: of the whole liver, of each lesion, and of each region."""
    found = []
    for part in (volumes.whole, *volumes.regions):
        voxels = {"liver": part.liver, "liver_without_tumor": part.liver - part.tumor, "tumor": part.tumor}
        for quantity, (value, of_scans) in samples(volumes, part, errors).items():
            where = interval(value, of_scans)
            if not part.tumor and "tumor" in quantity:
                # What was not found has no ratio to the truth.
                where = Interval(None, None, "none: no tumour was found")
            found.append(_row(volumes, part.name, quantity, voxels.get(quantity), value, where))
        if part is volumes.whole:
            found += [
                _row(volumes, WHOLE, f"lesion_{id}", count, count * volumes.voxel_ml, NO_INTERVAL)
                for id, count in enumerate(volumes.lesions, 1)
            ]
    return found


def _row(
    volumes: Volumes, region: str, quantity: str, voxels: int | None, value: float, where: Interval
) -> dict[str, Any]:
    return {
        "case": volumes.case,
        "region": region,
        "quantity": quantity,
        "voxels": voxels,
        "value": value,
        "unit": "%" if voxels is None else "ml",
        "low": where.low,
        "high": where.high,
        "interval": where.status,
        "mask": volumes.mask.name,
        "use": USE,
    }


def table(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the rows of each case as lines of text for a terminal."""
    lines = [
        {
            "": f"{row['case']}: {row['quantity'].replace('_', ' ')}"
            + (f", {row['region']}" if row["region"] != WHOLE else ""),
            "value": f"{tables.number(row['value'])} {row['unit']}",
            "interval": row["interval"] if row["low"] is None else between(row),
        }
        for of_case in measured.values()
        for row in of_case
    ]
    return tables.aligned(lines)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: cell(row[name]) for name in ("case", "region", "mask")}


def between(row: Mapping[str, Any]) -> str:
    """Returns "1402.1 to 1530.7 (90 %)" of a row with an interval, else why there is none."""
    if row["low"] is None:
        return row["interval"]
    return f"{tables.number(row['low'])} to {tables.number(row['high'])} ({row['interval']})"


def save(
    folder: str | os.PathLike,
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    errors: VolumeErrors = NO_ERRORS,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> pathlib.Path:
    """Writes `volumetry.csv` and `volumetry.json` into a folder, each atomically, and returns the folder.

    Args:
      folder: for the files.
      measured: rows by case.
      errors: of volumes, that the intervals rest on.
      notes: by case, what a reader should know.

    Raises:
      InputError: the folder cannot be written to.
    """
    folder = make_folder(folder)
    each = [row for of_case in measured.values() for row in of_case]
    files.write_csv(folder / "volumetry.csv", [{**row, **_cells(row)} for row in each], COLUMNS)
    document = {
        "use": USE,
        "liverjax_version": __version__,
        "calibration": {"tables": errors.sources, "scans": errors.summary()},
        "notes": notes or {},
        "volumes": [{key: value for key, value in row.items() if key != "use"} for row in each],
    }
    files.write_json(folder / "volumetry.json", document)
    return folder
