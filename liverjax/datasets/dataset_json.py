"""The JSON files beside a data set: `dataset.json` (labels, channels, lists) and `cases.json` (facts of cases)."""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from liverjax.datasets import names
from liverjax.datasets.folders import kind
from liverjax.datasets.label_names import Labels, labels
from liverjax.errors import InputError, did_you_mean
from liverjax.files import read_json
from liverjax.scans import AS_STORED, Reading

#: Keys of a `cases.json` that list the cases of which a field of `Case` is true.
_CASE_LISTS = ("liver_only", "voxel_on_voxel")
#: Keys of a `cases.json` that state a field of `scans.Reading` by case.
_CHOICES = {
    "phase": "number or 'last'", "series": "number, UID or 'largest'", "spacing": "list of three sizes in mm",
}  # fmt: skip
#: Words of a channel's name by which nnU-Net's data sets say what kind of scans they hold.
_MODALITIES = {
    "ct": re.compile(r"(CE|NC|PV|CB)?CTA?"),
    "mr": re.compile(r"MRI?|MR[AT]|T[12].*|DWI|ADC|FLAIR|PDW?|HBP|DIXON.*|SPIR"),
}


def dataset_facts(folder: Path) -> dict[str, Any]:
    """Returns what a folder's `dataset.json` holds; nothing if there is none."""
    return _held(folder / "dataset.json")


def _held(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def read_labels(folder: Path) -> Labels:
    """Returns how the masks of a data set are read, by its `dataset.json` and `cases.json`.

    Raises:
      InputError: one of them cannot be read, or states labels that cannot be used.
    """
    return labels(dataset_facts(folder).get("labels"), _held(folder / "cases.json").get("labels"), folder)


def modality(facts: dict[str, Any]) -> str | None:
    """Returns "ct" or "mr" where a `dataset.json` says it, by its `channel_names` or `modality`."""
    stated = facts.get("channel_names") or facts.get("modality")
    if isinstance(stated, dict):
        stated = stated.get("0")
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    words = re.split(r"[^A-Z0-9]+", stated.upper()) if isinstance(stated, str) else []
    found = {name for name, known in _MODALITIES.items() if any(map(known.fullmatch, words))}
    return found.pop() if len(found) == 1 else None


def channels(facts: dict[str, Any]) -> int | None:
    """Returns how many channels a `dataset.json` declares, if it does."""
    stated = facts.get("channel_names") or facts.get("modality")
    return len(stated) if isinstance(stated, (dict, list)) and stated else None


def listed_pairs(training: Any, source: Path) -> list[tuple[str, Path, Path]]:
    """Returns id, scan and mask of the pairs that the `training` list of a `dataset.json` names, relative to it.

    The list of nnU-Net's first version names scans without their channel. Paths may be written as in Windows.

    Raises:
      InputError: it is no such list, or a file lies outside the folder.
    """
    pairs = []
    try:
        for entry in training:
            image = entry["image"][0] if isinstance(entry["image"], list) else entry["image"]
            image, mask = (PureWindowsPath(name) for name in (image, entry["label"]))
            outside = [str(name) for name in (image, mask) if name.anchor or ".." in name.parts]
            if outside:
                raise InputError(
                    f"{source}: {names.printable(', '.join(outside))} leads out of the folder, expected files within it"
                )
            if not any(name.name.startswith(".") for name in (image, mask)):
                pairs.append((source.parent.joinpath(*image.parts), source.parent.joinpath(*mask.parts)))
    except (TypeError, KeyError, IndexError):
        raise InputError(f"{source}: 'training' is not a list of {{'image': file, 'label': file}}") from None
    found = []
    for image, mask in pairs:
        name = names.stem(image)
        id = name.removesuffix("_0000") if name == f"{names.stem(mask)}_0000" else name
        found.append((id, _with_channel(image), mask))
    return found


def listed_tests(facts: dict[str, Any], folder: Path) -> list[Path]:
    """Returns the scans that the `test` list of a `dataset.json` names; lists of another kind name none."""
    test = facts.get("test")
    listed = test if isinstance(test, list) else []
    entries = [entry.get("image") if isinstance(entry, dict) else entry for entry in listed]
    named = [PureWindowsPath(name).parts for name in entries if isinstance(name, str)]
    return [_with_channel(folder.joinpath(*parts)) for parts in named if parts and parts[-1][0] != "."]


def _with_channel(image: Path) -> Path:
    """Returns a listed scan, or its first channel if only that is there."""
    name = names.stem(image)
    first = image.with_name(f"{name}_0000{image.name[len(name) :]}")
    return first if kind(image) == "missing" and kind(first) == "file" else image


def case_facts(path: Path, cases: Iterable[str], reading: Reading = AS_STORED) -> dict[str, dict]:
    """Returns the facts that a `cases.json` states of each case, as fields of `Case`; none if there is no such file.

    Args:
      path: the file.
      cases: ids of all cases.
      reading: of cases of which the file states none, or not all of it.

    Raises:
      InputError: it cannot be read, has an unknown key or a value of another kind, or names a case that is not there.
    """
    stated = _held(path)
    facts = collections.defaultdict(dict)
    for key, value in stated.items():
        if key == "labels":
            continue  # of all cases, see `read_labels`
        if key == "patients":
            if not (isinstance(value, dict) and all(isinstance(patient, str) for patient in value.values())):
                raise InputError(f"{path}: 'patients' is {value!r}, expected {{case: patient}}")
            for case, patient in value.items():
                facts[_nfc(case)]["patient"] = patient
        elif key in _CHOICES:
            for case, choice in _choices(path, key, value).items():
                fields = facts[_nfc(case)]
                fields["reading"] = dataclasses.replace(fields.get("reading", reading), **{key: choice})
        elif key in _CASE_LISTS:
            if not (isinstance(value, list) and all(isinstance(case, str) for case in value)):
                raise InputError(f"{path}: {key!r} is {value!r}, expected a list of cases")
            for case in value:
                facts[_nfc(case)][key] = True
        else:
            raise InputError(
                f"{path}: {key!r} is unknown{did_you_mean(key, ('patients', 'labels', *_CASE_LISTS, *_CHOICES))}"
            )
    for case in facts:
        if case not in cases:
            raise InputError(f"{path}: no case {case!r}{did_you_mean(case, cases)}")
    return dict(facts)


def _nfc(text: str) -> str:
    """Returns a case's name as `names.stem` does."""
    return unicodedata.normalize("NFC", text)


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
