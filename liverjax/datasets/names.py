"""Names of scan and mask files: the case ids that they state, their order, and how they are printed."""

from __future__ import annotations

import collections
import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from liverjax.errors import InputError

_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
_LITS_SCAN, _LITS_MASK = "volume-", "segmentation-"
_LITS = re.compile(rf"({_LITS_SCAN}|{_LITS_MASK})([0-9]+)")


def stem(path: str | os.PathLike) -> str:
    """Returns a file's name without `.nii` or `.nii.gz`, its accents composed (NFC): systems differ in that."""
    name = unicodedata.normalize("NFC", Path(path).name)
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


def is_lits_scan(name: str) -> bool:
    """Whether LiTS calls a scan so: `volume-7`."""
    return bool(_LITS.fullmatch(name)) and name.startswith(_LITS_SCAN)


def is_lits_mask(name: str) -> bool:
    """Whether LiTS calls a mask so: `segmentation-7`."""
    return bool(_LITS.fullmatch(name)) and name.startswith(_LITS_MASK)


def mask_id(path: str | os.PathLike, cases: Collection[str] = ()) -> str:
    """Returns the id of the case that a mask belongs to: its stem; LiTS's `segmentation-7` belongs to `volume-7`.

    Args:
      path: the file.
      cases: ids of the scans, if known: one that is called as the mask is goes before LiTS's rule.
    """
    name = stem(path)
    if name in cases or not is_lits_mask(name):
        return name
    return _LITS_SCAN + name.removeprefix(_LITS_MASK)


def channel(name: str) -> tuple[str, int] | None:
    """Returns case and channel that nnU-Net reads in a stem, ("liver", 1) of `liver_0001`, or None."""
    match = _CHANNEL.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def scan_ids(
    files: Iterable[Path],
    masks: Collection[str] = (),
    channels: int | None = None,
    named: bool | None = None,
) -> tuple[list[tuple[str, Path]], list[Path]]:
    """Tells ids of cases from nnU-Net's channels: `liver_0001` may be a case, or the second channel of case `liver`.

    Masks decide: where mask `liver` is there, `liver_0000` and `liver_0001` are its channels; where mask `liver_0001`
    is there, it is a case. Without masks a folder has channels if all its files end in `_0000`, or in the numbers of
    the channels that `dataset.json` declares, each case with its first.

    Args:
      files: the scans of one folder.
      masks: ids of the masks that belong to them.
      channels: number of channels that `dataset.json` declares, if it does.
      named: whether the names state channels, where the user says so.

    Returns:
      Id and file of each scan, and the files of further channels, which are in none of them.
    """
    files = list(files)
    present = {stem(file) for file in files}
    split = {name: found for name in present if (found := channel(name))}
    with_channels = {mask for mask in masks if f"{mask}_0000" in present}
    known = max([channels or 1, *(number + 1 for case, number in split.values() if case in with_channels)])
    stated = bool(named)
    if named is None:
        alike = present & set(masks)
        found = with_channels or alike
        named = len(with_channels) >= len(alike) if found else _are_channels(present, split, known)

    def divided(name: str) -> tuple[str, int]:
        case, number = split.get(name, (name, 0))
        if f"{case}_0000" not in present:
            return name, 0
        if stated:
            is_channel = True
        elif case in masks:
            is_channel = named or (name not in masks and case not in present)
        else:
            is_channel = named and name not in masks and number < known
        return (case, number) if is_channel else (name, 0)

    scans, further = [], []
    for file in files:
        case, number = divided(stem(file))
        if number:
            further.append(file)
        else:
            scans.append((case, file))
    return scans, further


def _are_channels(present: set[str], split: dict[str, tuple[str, int]], known: int) -> bool:
    numbers = collections.defaultdict(set)
    for case, number in split.values():
        numbers[case].add(number)
    return len(split) == len(present) and all(0 in found and max(found) < known for found in numbers.values())


def natural_key(text: str) -> tuple:
    """Returns a key that sorts `case_9` before `case_10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)], text


def group(files: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Returns the files of each case id, in natural order of the ids; a sound data set has one of each."""
    groups = collections.defaultdict(list)
    for id, file in sorted(files, key=lambda entry: natural_key(entry[0])):
        groups[id].append(file)
    return dict(groups)


def check_id(id: str, path: Path) -> None:
    """Refuses an id that is no plain file name, since outputs are named by it."""
    if not id or id.startswith(".") or set(id) & set("/\\") or not id.isprintable():
        raise InputError(f"{printable(path)}: case id {id!r}, expected a plain file name")


def printable(text: object) -> str:
    """Returns a text in one line that any terminal takes: line ends, control characters and bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
