"""What a DICOM series states of a patient: who, when."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from pathlib import Path

from liverjax.scans import dicom_files

_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whose a series is, and of which day; "" and None where it does not tell."""

    patient: str
    date: datetime.date | None


def identity(folder: str | os.PathLike) -> Identity:
    """Returns patient and date of the first DICOM slice in a folder; nothing where it holds none.

    Raises:
      InputError: pydicom is not installed, or the file cannot be read.
    """
    for path in dicom_files.files(Path(folder)):
        uid = dicom_files.sop_class(path)
        if uid is None or dicom_files.is_other_class(uid):
            continue
        data = dicom_files.read(path)
        dates = [_date(str(data.get(name) or "")) for name in _DATES]
        return Identity(str(data.get("PatientID") or "").strip(), next(filter(None, dates), None))
    return Identity("", None)


def _date(text: str) -> datetime.date | None:
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text.strip())
    try:
        return datetime.date(*map(int, found.groups())) if found else None
    except ValueError:
        return None
