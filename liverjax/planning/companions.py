"""What belongs to a mask: its scan, its regions, its territory; and what is stated about them in flags."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from liverjax.datasets import layouts
from liverjax.errors import ConfigError, InputError
from liverjax.scans import nifti
from liverjax.volume import Volume


def mask_of(
    place: str | os.PathLike | None, id: str, alone: bool, values: Sequence[int] = ()
) -> Volume | None:
    """Returns a further mask of a case, with any values: a file, or the one of its name in a folder; None of None.

    Args:
      place: the file or folder.
      id: of the case.
      alone: whether there is no other case; only then a single file is enough.
      values: that are kept, others become 0; by default all.

    Raises:
      InputError: there is no such file, it cannot be used, or it holds none of ``values``.
      ConfigError: ``values`` of no file.
    """
    if place is None:
        if values:
            raise ConfigError(
                f"the values {', '.join(map(str, values))} of no mask, expected --territory too"
            )
        return None
    mask = _mask_of(place, id, alone)
    if not values:
        return mask
    kept = np.isin(mask.voxels, values)
    if not kept.any():
        there = ", ".join(str(value) for value in np.unique(mask.voxels) if value)
        raise InputError(
            f"{mask.name}: holds none of the values {', '.join(map(str, values))}, expected some of {there or 'any'}"
        )
    return mask.with_voxels(np.where(kept, mask.voxels, 0))


def _mask_of(place: str | os.PathLike, id: str, alone: bool) -> Volume:
    files = layouts.mask_files(place)[0]
    if pathlib.Path(place).is_file() and alone:
        return nifti.read_mask(next(iter(files.values())), labels=range(256))
    if id not in files or pathlib.Path(place).is_file():
        raise InputError(f"{place}: no mask of {id}, expected a folder of files named as the masks")
    return nifti.read_mask(files[id], labels=range(256))


def scan_of(place: str | os.PathLike | None, id: str, alone: bool, mask: Volume) -> Volume | None:
    """Returns the scan of a case, likewise.

    Raises:
      InputError: there is no such scan, it cannot be used, or ``mask`` does not lie on it.
    """
    if place is None:
        return None
    cases = {case.id: case for case in layouts.find_cases(place)}
    if len(cases) == 1 and alone:
        (case,) = cases.values()
    elif id in cases:
        case = cases[id]
    else:
        raise InputError(f"{place}: no scan of {id}, expected scans named as the masks")
    scan = case.read_image()
    nifti.require_same_geometry(scan, mask)
    return scan


def only(path: str | os.PathLike, masks: Iterator[tuple[str, Volume]]) -> tuple[str, Volume]:
    """Returns the only case of masks.

    Raises:
      InputError: there are several.
    """
    first = next(masks)
    if (other := next(masks, None)) is not None:
        raise InputError(
            f"{path}: holds masks of {first[0]} and {other[0]}, expected the mask of one patient"
        )
    return first


def label_values(flag: str, values: Sequence[str]) -> tuple[int, ...]:
    """Returns the values of masks that a flag names.

    Raises:
      ConfigError: one is no number of 1 to 255.
    """
    if not all(_is_value(value) for value in values):
        raise ConfigError(f"--{flag} is {','.join(values)!r}, expected whole numbers of 1 to 255, as 1,3")
    return tuple(map(int, values))


def region_names(values: Sequence[str]) -> dict[int, str]:
    """Returns the names of regions by number, of words such as "1=left lobe".

    Raises:
      ConfigError: a word is none, or a number is named twice.
    """
    names: dict[int, str] = {}
    for word in values:
        number, _, name = word.partition("=")
        if not (_is_value(number) and name.strip()) or int(number) in names:
            raise ConfigError(
                f"--region_names has {word!r}, expected a number of 1 to 255 and a name, each once, as 1=left,2=right"
            )
        names[int(number)] = name.strip()
    return names


def _is_value(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= 255
