"""Intervals of volumes: how far predicted volumes were from the reference on cross-validated scans.

The ratio V_pred / V_ref of each of n scans of an evaluation says what a measured volume V may be: V V_ref / V_pred.
From the quantiles of log(V_pred / V_ref) follows an interval of the volume, and each scan gives one sample of it, so
that what is computed from several volumes has an interval too: the formula is applied to the sample of each scan.

The interval goes from the k-th smallest to the k-th largest of n samples, k = floor(0.05 (n + 1)): for a further scan
from where these come from, it holds the true value in 90 % or more, whatever the distribution. Below 20 scans there is
no such interval: a volume is then "not calibrated".
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from liverjax.errors import InputError, did_you_mean, shown
from liverjax.planning.csv_files import read_csv

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
    tables of several folds are given together, or the folder of a sweep, which holds them all.

    Args:
      paths: tables; folders of evaluations; or folders of sweeps (WORKDIR/ablations/NAME, or NAME:VARIANT for another
        variant than the first), of which the tables of all folds of the lowest seed are read.

    Raises:
      InputError: a file cannot be read or has other columns or values; or a case occurs twice, as scans that are
        counted twice make intervals too narrow.
    """
    logs: dict[str, dict[str, float]] = {region: {} for region in _REGIONS}
    files, left_out = [], 0
    for path in [path for given in paths for path in _tables(given)]:
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


def _tables(given: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the tables of cases that a path names: itself, that of an evaluation, or those of a sweep's folds."""
    path, variant = pathlib.Path(given), ""
    if not path.exists() and ":" in path.name:
        name, _, variant = path.name.partition(":")
        path = path.parent / name
    if not (path / "trials.csv").is_file():
        return [path / "cases.csv" if path.is_dir() else pathlib.Path(given)]
    return _of_sweep(path, variant)


def _of_sweep(folder: pathlib.Path, variant: str) -> list[pathlib.Path]:
    """Returns the tables of the folds of one variant (by default the first) and of the lowest seed of a sweep."""
    columns, rows = read_csv(folder / "trials.csv")
    if not rows or not {"variant", "fold", "seed", "scored", "masks"} <= set(columns):
        raise InputError(
            f"{folder / 'trials.csv'}: has the columns {shown(', '.join(columns))}, expected those of `liverjax sweep`"
        )
    known = list(dict.fromkeys(row["variant"] for row in rows))
    variant = variant or known[0]
    if variant not in known:
        raise InputError(f"{folder}: no variant {variant!r}{did_you_mean(variant, known)}")
    own = [row for row in rows if row["variant"] == variant]
    lowest = min((row["seed"] for row in own), key=lambda seed: (len(seed), seed))
    own = [row for row in own if row["seed"] == lowest and row["scored"] == "True"]
    if not own:
        raise InputError(
            f"{folder}: no trial of {variant!r} is scored, expected one or more: run the sweep again"
        )
    found = []
    for row in own:
        # WORKDIR/ablations/NAME; scores of each metric are kept, and the volumes are the same in all of them.
        place = folder.resolve().parent.parent / row["masks"] / "scores"
        scores = sorted(place.glob("*/cases.csv"))
        if not scores:
            raise InputError(
                f"{place}: holds no METRIC/cases.csv, expected the scores of fold {row['fold']}: run the sweep again"
            )
        found.append(scores[0])
    return found


def _rows(path: pathlib.Path) -> list[tuple[str, str, str, float, float]]:
    """Returns of each row with volumes its place, case, region, predicted and reference volume."""
    columns, rows = read_csv(path)
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
