"""What users state in CSV files: findings beyond the masks, target lesions, and the diameters that a rater measured."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from liverjax.errors import ConfigError, InputError, did_you_mean
from liverjax.planning.course import Elsewhere, Finding, Part, Visit
from liverjax.planning.csv_files import read_csv
from liverjax.planning.patients import Patient
from liverjax.planning.recist import Candidate, NonTarget, propose_targets
from liverjax.planning.variability import RaterCourse

_NON_TARGET = [value for value in get_args(NonTarget) if value]
_ANSWERS = {"yes": True, "no": False, "": None}


def tumor_labels(values: Sequence[str]) -> tuple[int, ...]:
    """Returns the values of tumour in masks.

    Raises:
      ConfigError: one is no number of 1 to 255.
    """
    if not values or not all(value.isdecimal() and 1 <= int(value) <= 255 for value in values):
        raise ConfigError(f"--tumor_labels is {','.join(values)!r}, expected whole numbers of 1 to 255")
    return tuple(map(int, values))


def read_all(
    targets: Sequence[str], elsewhere: str | None, patients: Sequence[Patient]
) -> tuple[dict[str, list[int]], dict[str, dict[str, Elsewhere]]]:
    """Returns the chosen target lesions by patient, and what is stated elsewhere by patient and time point.

    Args:
      targets: numbers of the target lesions of the only patient, or a CSV file; nothing where none are chosen.
      elsewhere: a CSV file, or None.
      patients: of whom.

    Raises:
      InputError: as `read_targets` and `read_elsewhere`; or numbers are given for several patients.
    """
    beyond = read_elsewhere(elsewhere, patients) if elsewhere else {}
    if not targets:
        return {}, beyond
    if all(target.isdecimal() for target in targets):
        if len(patients) > 1:
            raise InputError(
                f"target lesions {', '.join(targets)} of {len(patients)} patients, expected a CSV file with the "
                "columns case and lesion"
            )
        return {patients[0].id: [int(target) for target in targets]}, beyond
    if len(targets) > 1:
        raise InputError(f"target lesions are {', '.join(targets)}, expected their numbers, or one CSV file")
    return read_targets(targets[0], patients), beyond


def read_elsewhere(path: str | Path, patients: Sequence[Patient]) -> dict[str, dict[str, Elsewhere]]:
    """Reads what masks of the liver do not tell, by patient and time point.

    Columns: `case` (not needed for one patient), `time_point`, and any of `non_target` (CR, non-CR/non-PD, PD, NE),
    `new_lesion` (yes, no), `elsewhere_mm`, `elsewhere_gone` (yes, no), `evaluable` (yes, no). A time point without a
    line has nothing elsewhere, but where `elsewhere_mm` is given it must be so at every time point of the patient.

    Raises:
      InputError: the file cannot be read, has other columns or values, or names what is not there.
    """
    known = {patient.id: [point.name for point in patient.time_points] for patient in patients}
    columns = (
        "case",
        "time_point",
        "non_target",
        "new_lesion",
        "elsewhere_mm",
        "elsewhere_gone",
        "evaluable",
    )
    found: dict[str, dict[str, Elsewhere]] = {id: {} for id in known}
    sums: dict[str, set[str]] = collections.defaultdict(set)
    for place, row in _rows(path, columns, ["time_point"] + ["case"] * (len(known) > 1)):
        case, time_point = row["case"] or next(iter(known)), row["time_point"]
        if case not in known:
            raise InputError(f"{place}: no case {case!r}{did_you_mean(case, known)}")
        if time_point not in known[case]:
            raise InputError(
                f"{place}: no time point {time_point!r} of {case}{did_you_mean(time_point, known[case])}"
            )
        if time_point in found[case]:
            raise InputError(f"{place}: {time_point} of {case} a second time, expected one line")
        if row["non_target"] not in ("", *_NON_TARGET):
            raise InputError(
                f"{place}: non_target is {row['non_target']!r}, expected one of {', '.join(_NON_TARGET)}"
            )
        total = _number(place, "elsewhere_mm", row["elsewhere_mm"] or "0")
        evaluable = _answer(place, "evaluable", row["evaluable"]) is not False
        if not evaluable and time_point == known[case][0]:
            raise InputError(
                f"{place}: the baseline is not evaluable, expected one with which others can be compared"
            )
        if row["elsewhere_mm"]:
            sums[case].add(time_point)
        found[case][time_point] = Elsewhere(
            non_target=row["non_target"],  # pyright: ignore[reportArgumentType]  # checked above
            new_lesion=_answer(place, "new_lesion", row["new_lesion"]) is True,
            sum_mm=total,
            gone=_answer(place, "elsewhere_gone", row["elsewhere_gone"]) is True,
            evaluable=evaluable,
        )
    for case, stated in sums.items():
        missing = [name for name in known[case] if name not in stated]
        if missing:
            raise InputError(
                f"{path}: no elsewhere_mm of {case} at {', '.join(missing)}, expected one at every time point"
            )
    return found


def read_targets(path: str | Path, patients: Sequence[Patient]) -> dict[str, list[int]]:
    """Reads the target lesions of each patient: lines with `case` and `lesion`, its number.

    Raises:
      InputError: the file cannot be read, or names a case that is not there.
    """
    ids = [patient.id for patient in patients]
    found: dict[str, list[int]] = {}
    for place, row in _rows(path, ("case", "lesion"), ["case", "lesion"]):
        if row["case"] not in ids:
            raise InputError(f"{place}: no case {row['case']!r}{did_you_mean(row['case'], ids)}")
        if not row["lesion"].isdecimal():
            raise InputError(f"{place}: lesion is {row['lesion']!r}, expected its number")
        found.setdefault(row["case"], []).append(int(row["lesion"]))
    return found


def read_rater(path: str | Path, slice_mm: float = 0.0) -> list[RaterCourse]:
    """Reads the diameters that a rater measured, by case.

    Columns: `case`, `time_point`, `lesion` (a name that all raters use), `longest_mm` (0 for a lesion that is gone),
    and if known `perpendicular_mm` and `target` (yes, no). Time points are in the order of their first
    lines; the first is
    the baseline. Targets are those of which a line says yes, or where the file has no such column the proposed ones.

    Args:
      path: the file; its name is the rater's.
      slice_mm: distance between slices, by which lesions are measurable.

    Raises:
      InputError: the file cannot be read, or has other columns or values.
    """
    columns = ("case", "time_point", "lesion", "longest_mm", "perpendicular_mm", "target")
    times: dict[str, dict[str, dict[str, Part]]] = {}
    targets: dict[str, set[str]] = collections.defaultdict(set)
    stated = False
    for place, row in _rows(path, columns, columns[:4]):
        case, lesion = row["case"], row["lesion"]
        parts = times.setdefault(case, {}).setdefault(row["time_point"], {})
        if lesion in parts:
            raise InputError(
                f"{place}: lesion {lesion} of {case} at {row['time_point']} a second time, expected one line"
            )
        across = (
            _number(place, "perpendicular_mm", row["perpendicular_mm"])
            if row["perpendicular_mm"]
            else math.nan
        )
        parts[lesion] = Part(_number(place, "longest_mm", row["longest_mm"]), across)
        answer = _answer(place, "target", row["target"])
        stated = stated or answer is not None
        if answer:
            targets[case].add(lesion)
    courses = []
    for case, visits in times.items():
        names = list(dict.fromkeys(name for parts in visits.values() for name in parts))
        numbers = {name: index + 1 for index, name in enumerate(names)}
        baseline = next(iter(visits.values()))
        chosen = [numbers[name] for name in names if name in targets[case]]
        if not stated:
            able = [Candidate(numbers[name], part.longest_mm, slice_mm) for name, part in baseline.items()]
            chosen = list(propose_targets(able))
        course = [
            Visit(
                time,
                tuple(
                    Finding((numbers[n],), (part,) if part.longest_mm > 0 else ())
                    for n, part in parts.items()
                ),
            )
            for time, parts in visits.items()
        ]
        courses.append(
            RaterCourse(
                Path(path).stem, case, tuple(course), tuple(chosen), {n: name for name, n in numbers.items()}
            )
        )
    return courses


def _rows(
    path: str | Path, columns: Sequence[str], needed: Sequence[str]
) -> list[tuple[str, Mapping[str, str]]]:
    """Returns the rows of a CSV file, each with its place for messages; columns that it lacks are ""."""
    header, rows = read_csv(path)
    for name in header:
        if name not in columns:
            raise InputError(f"{path}: column {name!r} is unknown{did_you_mean(name, columns)}")
    missing = [name for name in needed if name not in header]
    if missing or not rows:
        wanted = f"the column {', '.join(missing)}" if missing else "at least one line below the columns"
        raise InputError(f"{path}: has columns {', '.join(header) or 'none'}, expected {wanted}")
    found = []
    for index, row in enumerate(rows):
        if None in row or None in row.values():
            raise InputError(
                f"{path}, line {index + 2}: has another number of values than columns ({len(header)})"
            )
        full = dict.fromkeys(columns, "") | {name: value.strip() for name, value in row.items()}
        found.append((f"{path}, line {index + 2}", full))
    return found


def _number(place: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{place}: {name} is {text!r}, expected a number of mm, 0 or more")
    return value


def _answer(place: str, name: str, text: str) -> bool | None:
    if text.lower() not in _ANSWERS:
        raise InputError(f"{place}: {name} is {text!r}, expected yes or no")
    return _ANSWERS[text.lower()]
