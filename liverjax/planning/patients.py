"""The files of patients over time: which mask belongs to which patient and time point, and in what order.

| given | patients and time points |
|---|---|
| several mask files | the time points of one patient, in this order |
| one folder of masks | the time points of one patient, in natural order of the names |
| several folders | time points; masks of one name, in all of them, are one patient's |

Dates in the names (20240131, 2024-01-31), or of scans that are DICOM series, must not go back. Whose they are is stated
by a `cases.json` beside the masks, and by DICOM series.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from liverjax.datasets import layouts
from liverjax.datasets.case import Case
from liverjax.errors import InputError
from liverjax.planning import series

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)(?!\d)")


@dataclasses.dataclass(frozen=True)
class TimePoint:
    """The files of a patient at one time.

    Attributes:
      name: of the time point.
      mask: label ids, of which some are tumour.
      date: of the scan, if it is known.
      scan: the scan, for pictures.
      viable: mask of what takes up contrast in the arterial phase.
      transform: text file of the transform from this scan's world coordinates to those of the baseline.
    """

    name: str
    mask: Path
    date: datetime.date | None = None
    scan: Path | None = None
    viable: Path | None = None
    transform: Path | None = None


@dataclasses.dataclass(frozen=True)
class Patient:
    """A patient's time points, the baseline first."""

    id: str
    time_points: tuple[TimePoint, ...]


def find_patients(
    time_points: Sequence[str | Path],
    *,
    dates: Sequence[str] = (),
    scans: Sequence[str | Path] = (),
    viable: Sequence[str | Path] = (),
    transforms: Sequence[str | Path] = (),
) -> list[Patient]:
    """Finds the files of one or more patients.

    Args:
      time_points: mask files, one folder of masks, or folders of masks, as above.
      dates: of each time point, as 2024-01-31; by default those in the names, else of DICOM scans, if all have one.
      scans: of each time point a scan or a folder of scans, named as the masks; or one folder, as of the masks.
      viable: masks of viable tumour, likewise.
      transforms: of each time point after the baseline a text file, or a folder with one of each patient, `<name>.txt`.

    Raises:
      InputError: no masks, masks of different patients, one that is missing, or dates that go back.
    """
    places = [Path(place) for place in time_points]
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: no such file or folder")
    if len({place.is_dir() for place in places}) > 1:
        raise InputError(f"time points are {_named(places)}, expected either files or folders")
    if len(places) == 1 and places[0].is_dir():
        cases = layouts.find_cases(places[0], "flat")
        return [
            _one_patient(cases, dates, scans, viable, transforms, _only_folder(scans), _only_folder(viable))
        ]
    if not places[0].is_dir():
        return [_one_patient([_case(place) for place in places], dates, scans, viable, transforms)]
    return _cohort(places, dates, scans, viable, transforms)


def patients_of_rater(folder: str | Path, transforms: Sequence[str | Path] = ()) -> list[Patient]:
    """Finds the masks of one rater: a folder of masks, one of each case, or one such folder for each time point.

    Args:
      folder: of masks, or of folders, which are time points in natural order of their names.
      transforms: as for `find_patients`.

    Raises:
      InputError: as `find_patients`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a folder of masks or a CSV file of diameters")
    inside = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    inside.sort(key=lambda place: layouts.natural_key(place.name))
    patients = _cohort(inside or [folder], (), (), (), transforms)
    if inside:
        return patients
    # The folder is named after the rater: its only time point has the same name for all of them.
    return [
        Patient(patient.id, (dataclasses.replace(patient.time_points[0], name="baseline"),))
        for patient in patients
    ]


def _case(file: Path) -> Case:
    """Returns a mask as a case; its patient is the one that a `cases.json` beside it states."""
    if (file.parent / "cases.json").is_file():
        for case in layouts.find_cases(file.parent, "flat"):
            if case.image == file:
                return case
    return layouts.find_cases(file)[0]


def _only_folder(places: Sequence[str | Path]) -> bool:
    return len(places) == 1 and Path(places[0]).is_dir()


def _one_patient(
    cases: Sequence[Case],
    dates: Sequence[str],
    scans: Sequence[str | Path],
    viable: Sequence[str | Path],
    transforms: Sequence[str | Path],
    scans_by_name: bool = False,
    viable_by_name: bool = False,
) -> Patient:
    stated = {case.patient for case in cases if case.patient != case.id}
    if len(stated) > 1:
        whose = ", ".join(f"{case.image.name} of {case.patient}" for case in cases)
        raise InputError(f"time points are of different patients: {whose}; expected those of one")
    names = _distinct([case.id for case in cases], [case.image for case in cases])
    known = _dates(names, dates)
    folder = cases[0].image.resolve().parent
    (id,) = stated or {folder.name}
    count = len(cases)
    named = (
        _by_name(scans[0], [case.id for case in cases], "scan")
        if scans_by_name
        else _each(scans, count, "scans")
    )
    alive = _by_name(viable[0], [case.id for case in cases], "viable mask") if viable_by_name else None
    alive = alive or _each(viable, count, "viable masks")
    moved = [None, *_each(transforms, count - 1, "transforms, one for each time point after the baseline")]
    each = zip(names, cases, known, named, alive, moved, strict=True)
    points = [TimePoint(name, case.image, *rest) for name, case, *rest in each]
    return Patient(id, _with_series(points))


def _cohort(
    places: Sequence[Path],
    dates: Sequence[str],
    scans: Sequence[str | Path],
    viable: Sequence[str | Path],
    transforms: Sequence[str | Path],
) -> list[Patient]:
    found = [{case.id: case for case in layouts.find_cases(place, "flat")} for place in places]
    ids = sorted(set().union(*found), key=layouts.natural_key)
    missing = [
        f"{id} in {place}"
        for id in ids
        for place, cases in zip(places, found, strict=True)
        if id not in cases
    ]
    if missing:
        raise InputError(f"no mask of {', '.join(missing)}; expected one of each patient at each time point")
    names = _distinct([place.resolve().name for place in places], places)
    known = _dates(names, dates)
    pictures = _folders(scans, len(places), ids, "scans")
    alive = _folders(viable, len(places), ids, "viable masks")
    moved = [dict.fromkeys(ids)]
    for place in _each(
        transforms, len(places) - 1, "transforms, a folder for each time point after the baseline"
    ):
        moved.append(dict.fromkeys(ids) if place is None else {id: place / f"{id}.txt" for id in ids})
    patients = []
    for id in ids:
        cases = [of_place[id] for of_place in found]
        if len({case.patient for case in cases}) > 1:
            whose = ", ".join(f"{case.image} of {case.patient}" for case in cases)
            raise InputError(f"time points are of different patients: {whose}; expected those of one")
        each = zip(names, cases, known, pictures, alive, moved, strict=True)
        points = [
            TimePoint(name, case.image, date, scan[id], live[id], move[id])
            for name, case, date, scan, live, move in each
        ]
        patients.append(Patient(id, _with_series(points)))
    return patients


def _each(places: Sequence[str | Path], count: int, what: str) -> list[Path | None]:
    if not places:
        return [None] * count
    if len(places) != count:
        raise InputError(f"{len(places)} {what} are given ({_named(places)}), expected {count}")
    return [Path(place) for place in places]


def _folders(
    places: Sequence[str | Path], count: int, ids: Sequence[str], what: str
) -> list[dict[str, Path | None]]:
    return [
        dict.fromkeys(ids) if place is None else dict(zip(ids, _by_name(place, ids, what), strict=True))
        for place in _each(places, count, what)
    ]


def _by_name(folder: str | Path, ids: Sequence[str], what: str) -> list[Path]:
    """Returns the file of each id in a folder of scans or masks."""
    files = {case.id: case.image for case in layouts.find_cases(folder)}
    missing = [id for id in ids if id not in files]
    if missing:
        raise InputError(f"{folder}: no {what} of {', '.join(missing)}, expected files named as the masks")
    return [files[id] for id in ids]


def _distinct(names: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Returns names, or whole paths where a name occurs twice."""
    return list(names) if len(set(names)) == len(names) else [str(place) for place in places]


def _named(places: Sequence[str | Path]) -> str:
    return ", ".join(map(str, places))


def _dates(names: Sequence[str], stated: Sequence[str]) -> list[datetime.date | None]:
    """Returns the date of each time point, None of all if they are not stated and not all in the names."""
    if stated and len(stated) != len(names):
        raise InputError(f"{len(stated)} dates are given ({', '.join(stated)}), expected {len(names)}")
    try:
        dates = [datetime.date.fromisoformat(text) for text in stated]
    except ValueError:
        raise InputError(f"dates are {', '.join(stated)}, expected dates as 2024-01-31") from None
    dates = dates or [_date(name) for name in names]
    known = [date for date in dates if date is not None]
    if len(known) < len(names):
        return [None] * len(names)
    _check_order(names, known)
    return list(known)


def _check_order(names: Sequence[str], dates: Sequence[datetime.date]) -> None:
    for (name, date), (later, next_date) in itertools.pairwise(zip(names, dates, strict=True)):
        if next_date < date:
            raise InputError(
                f"time points are out of order: {later} ({next_date}) comes after {name} ({date}), expected the order "
                "of time, the baseline first"
            )


def _date(name: str) -> datetime.date | None:
    found = _DATE.search(name)
    if not found:
        return None
    try:
        return datetime.date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None


def _with_series(points: Sequence[TimePoint]) -> tuple[TimePoint, ...]:
    """Returns time points with the dates of their DICOM scans, which must be one patient's and in order too."""
    told = [series.identity(point.scan) if point.scan and point.scan.is_dir() else None for point in points]
    whose = {one.patient for one in told if one and one.patient}
    if len(whose) > 1:
        listed = ", ".join(
            f"{point.scan} of {one.patient}" for point, one in zip(points, told, strict=True) if one
        )
        raise InputError(f"time points are of different patients: {listed}; expected those of one")
    dates = [one.date if one else None for one in told]
    known = [date for date in dates if date]
    if points[0].date or len(known) < len(points):
        return tuple(points)
    _check_order([point.name for point in points], known)
    return tuple(dataclasses.replace(point, date=date) for point, date in zip(points, known, strict=True))
