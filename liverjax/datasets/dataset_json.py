"""The JSON files beside a data set: `dataset.json` (label names) and `cases.json` (facts of cases)."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from liverjax.errors import InputError, did_you_mean
from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.scans import AS_STORED, Reading

#: Meaning of the label names of a `dataset.json`; any other name, such as another organ's, is background.
_LABEL_NAMES = {
    "liver": LIVER, "tumor": TUMOR, "tumour": TUMOR, "cancer": TUMOR, "lesion": TUMOR,
    "liver tumor": TUMOR, "liver tumour": TUMOR, "liver cancer": TUMOR, "liver lesion": TUMOR,
}  # fmt: skip
OWN_LABELS = ((BACKGROUND, BACKGROUND), (LIVER, LIVER), (TUMOR, TUMOR))
#: Keys of a `cases.json` that list the cases of which a field of `Case` is true.
_CASE_LISTS = ("liver_only", "voxel_on_voxel")
#: Keys of a `cases.json` that state a field of `scans.Reading` by case.
_CHOICES = {
    "phase": "number or 'last'", "series": "number, UID or 'largest'", "spacing": "list of three sizes in mm",
}  # fmt: skip


def read_json(path: Path) -> dict:
    """Returns the object that a JSON file holds, or raises `InputError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def label_map(path: Path) -> tuple[tuple[int, int], ...]:
    """Returns the meaning of the mask values by the `labels` of a `dataset.json`, as `Case.label_map`.

    These are name to value, or name to values for nnU-Net's regions, or value to name as in MSD.
    """
    labels = read_json(path).get("labels") if path.is_file() else None
    if labels is None:
        return OWN_LABELS
    if not (isinstance(labels, dict) and all(isinstance(v, str) == n.isdecimal() for n, v in labels.items())):
        raise InputError(f"{path}: 'labels' is {labels!r}, expected {{name: value}}")
    meanings = {0: BACKGROUND}
    for name, values in labels.items():
        if name.isdecimal():
            name, values = values, int(name)
        name = re.sub(r"[\s_-]+", " ", name).lower()
        if name == "ignore":
            raise InputError(
                f"{path}: a label is to be ignored, which training cannot do; relabel its voxels"
            )
        for value in values if isinstance(values, list) else [values]:
            if not (isinstance(value, int) and 0 <= value <= 255):
                raise InputError(f"{path}: label {name!r} is {value!r}, expected a whole number of 0 to 255")
            meaning = _LABEL_NAMES.get(name.removesuffix("s"), BACKGROUND)
            meanings[value] = max(meaning, meanings.get(value, BACKGROUND))  # tumours lie within the liver
    if LIVER not in meanings.values():
        raise InputError(f"{path}: labels {labels}, expected one that is called liver")
    return tuple(sorted(meanings.items()))


def case_facts(path: Path, cases: Iterable[str], reading: Reading = AS_STORED) -> dict[str, dict]:
    """Returns the facts that a `cases.json` states of each case, as fields of `Case`; none if there is no such file.

    Args:
      path: the file.
      cases: ids of all cases.
      reading: of cases of which the file states none, or not all of it.

    Raises:
      InputError: it cannot be read, has an unknown key or a value of another kind, or names a case that is not there.
    """
    stated = read_json(path) if path.is_file() else {}
    facts = collections.defaultdict(dict)
    for key, value in stated.items():
        if key == "patients":
            if not (isinstance(value, dict) and all(isinstance(patient, str) for patient in value.values())):
                raise InputError(f"{path}: 'patients' is {value!r}, expected {{case: patient}}")
            for case, patient in value.items():
                facts[case]["patient"] = patient
        elif key in _CHOICES:
            for case, choice in _choices(path, key, value).items():
                facts[case]["reading"] = dataclasses.replace(
                    facts[case].get("reading", reading), **{key: choice}
                )
        elif key in _CASE_LISTS:
            if not (isinstance(value, list) and all(isinstance(case, str) for case in value)):
                raise InputError(f"{path}: {key!r} is {value!r}, expected a list of cases")
            for case in value:
                facts[case][key] = True
        else:
            raise InputError(
                f"{path}: {key!r} is unknown{did_you_mean(key, ('patients', *_CASE_LISTS, *_CHOICES))}"
            )
    for case in facts:
        if case not in cases:
            raise InputError(f"{path}: no case {case!r}{did_you_mean(case, cases)}")
    return dict(facts)


def _choices(path: Path, key: str, value: object) -> dict[str, Any]:
    """Returns what a `cases.json` states of the reading of each case."""

    def fits(choice: object) -> bool:
        if key == "spacing":
            return (
                isinstance(choice, list)
                and len(choice) == 3
                and all(type(size) in (int, float) for size in choice)
            )
        return type(choice) in (int, str)

    if not (isinstance(value, dict) and all(map(fits, value.values()))):
        raise InputError(f"{path}: {key!r} is {value!r}, expected {{case: {_CHOICES[key]}}}")
    return {case: tuple(map(float, choice)) if key == "spacing" else choice for case, choice in value.items()}
