"""Intervals of volumes: how far predicted volumes were from the reference on cross-validated scans.

The ratio V_pred / V_ref of each of n scans of an evaluation says what a measured volume V may be: V V_ref / V_pred.
From the quantiles of log(V_pred / V_ref) follows an interval of the volume, and each scan gives one sample of it, so
that what is computed from several volumes has an interval too: the formula is applied to the sample of each scan.

The interval goes from the k-th smallest to the k-th largest of n samples, k = floor(0.05 (n + 1)): for a further scan
from where these come from, it holds the true value in 90 % or more, whatever the distribution. Below 20 scans there is
no such interval: a volume is then "not calibrated".
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.errors import InputError, shown

#: Fewest scans of which the ratios give an interval.
FEWEST = 20
#: Percent of the samples that may lie below, and above, an interval.
TAIL_PERCENT = 5
#: Name of intervals, and what stands in their place where there is none.
INTERVAL, NOT_CALIBRATED = "90 %", "not calibrated"

_REGIONS = ("liver", "tumor")
_PAIRS = (("prediction_ml", "reference_ml"), ("voxels_prediction", "voxels_reference"))


@dataclasses.dataclass(frozen=True)
class Interval:
    """Where a value lies.

    Attributes:
      low, high: its ends, None if there is no interval.
      status: "90 %", "not calibrated", or another reason why there is none.
    """

    low: float | None
    high: float | None
    status: str


#: Of what does not depend on a volume.
NO_INTERVAL = Interval(None, None, "")


@dataclasses.dataclass(frozen=True)
class VolumeErrors:
    """Ratios of predicted volumes to those of the references.

    Attributes:
      logs: for each region, log(V_pred / V_ref) of each case; infinite where the reference is empty.
      sources: the files that they are from.
      left_out: number of values that say nothing of a volume that was found: of cases in which none was predicted.
    """

    logs: Mapping[str, Mapping[str, float]]
    sources: tuple[str, ...] = ()
    left_out: int = 0

    def factors(self, *regions: str) -> dict[str, np.ndarray] | None:
        """Returns V_ref / V_pred (n,) of each region, case by case over the cases that know all of them.

        None if these are fewer than `FEWEST`.
        """
        known = [self.logs.get(region, {}) for region in regions]
        cases = [case for case in known[0] if all(case in ratios for ratios in known)]
        if len(cases) < FEWEST:
            return None
        return {
            region: np.exp([-ratios[case] for case in cases])
            for region, ratios in zip(regions, known, strict=True)
        }

    def summary(self) -> list[str]:
        """Returns a line for each region: number of scans, median ratio, and whether that gives intervals."""
        lines = []
        for region in _REGIONS:
            ratios = list(self.logs.get(region, {}).values())
            middle = f", median V_pred / V_ref {math.exp(float(np.median(ratios))):.3f}" if ratios else ""
            verdict = "" if len(ratios) >= FEWEST else f": {NOT_CALIBRATED}, expected {FEWEST} or more"
            lines.append(f"{region}: {len(ratios)} scans{middle}{verdict}")
        return lines


NO_ERRORS = VolumeErrors({})


def interval(value: float, samples: np.ndarray | None) -> Interval:
    """Returns the interval of a value.

    Args:
      value: as computed from the measured volumes. Where the samples leave it out, because the predictions were too
        large or too small in nearly all scans, the interval is widened up to it.
      samples: (n,) as computed from the volumes of each sample, n >= `FEWEST`; None if there are none.
    """
    if samples is None:
        return Interval(None, None, NOT_CALIBRATED)
    rank = (len(samples) + 1) * TAIL_PERCENT // 100
    ordered = np.sort(samples)
    low, high = float(ordered[rank - 1]), float(ordered[-rank])
    return Interval(min(low, value), max(high, value), INTERVAL)


def read_volume_errors(paths: Sequence[str | os.PathLike]) -> VolumeErrors:
    """Reads tables of cases with predicted and reference volumes: `cases.csv` of `liverjax evaluate`, or others.

    Columns: `case`, `region` (liver with its tumours, or tumor), and `prediction_ml` and `reference_ml`, or the numbers
    of voxels `voxels_prediction` and `voxels_reference`. The cases must not have trained the model that predicted: the
    tables of several folds are given together.

    Args:
      paths: tables, or folders of evaluations.

    Raises:
      InputError: a file cannot be read or has other columns or values; or a case occurs twice, as scans that are
        counted twice make intervals too narrow.
    """
    logs: dict[str, dict[str, float]] = {region: {} for region in _REGIONS}
    files, left_out = [], 0
    for given in map(pathlib.Path, paths):
        path = given / "cases.csv" if given.is_dir() else given
        files.append(str(path))
        for place, case, region, predicted, reference in _rows(path):
            if case in logs[region]:
                raise InputError(
                    f"{place}: case {shown(case)} has a volume of the {region} already, expected each once: of several "
                    "models, choose the table of one"
                )
            if not predicted:
                left_out += 1
                continue
            logs[region][case] = math.log(predicted / reference) if reference else math.inf
    return VolumeErrors(logs, tuple(files), left_out)


def _rows(path: pathlib.Path) -> list[tuple[str, str, str, float, float]]:
    """Returns of each row with volumes its place, case, region, predicted and reference volume."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file ({error})") from None
    pair = next((pair for pair in _PAIRS if set(pair) <= set(columns)), None)
    if pair is None or not {"case", "region"} <= set(columns):
        raise InputError(
            f"{path}: has the columns {shown(', '.join(columns))}, expected case, region, prediction_ml and "
            "reference_ml, as cases.csv of `liverjax evaluate` has"
        )
    found = []
    for number, row in enumerate(rows, 2):
        place = f"{path}, line {number}"
        if row.get("state") in ("not labelled", "prediction missing"):
            continue
        if row["region"] not in _REGIONS:
            raise InputError(f"{place}: region is {shown(row['region'])}, expected liver or tumor")
        predicted, reference = (_number(place, name, row[name]) for name in pair)
        if predicted or reference:
            found.append((place, row["case"], row["region"], predicted, reference))
    return found


def _number(place: str, name: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{place}: {name} is {shown(text)}, expected a number of 0 or more")
    return value
