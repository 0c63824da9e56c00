"""The masks of several readers of the same cases."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from liverjax import files
from liverjax.datasets import layouts
from liverjax.datasets.case import read_labels
from liverjax.datasets.names import natural_key
from liverjax.errors import ConfigError, InputError
from liverjax.labels import REGIONS
from liverjax.scans import nifti
from liverjax.scoring import statistics
from liverjax.scoring.consensus import MOST_READERS
from liverjax.scoring.summary import make_folder
from liverjax.volume import Volume


@dataclasses.dataclass(frozen=True)
class Reader:
    """Whose masks these are.

    Attributes:
      name: of the reader, unique among all.
      mode: how they were made, such as "manual" or "corrected"; may be empty.
      folder: where they lie.
      files: of each case.
      label_map: what their values mean, as `Case.label_map`, where a file beside them says so.
    """

    name: str
    mode: str
    folder: pathlib.Path
    files: dict[str, pathlib.Path]
    label_map: tuple[tuple[int, int], ...] | None

    def read(self, case: str, region: str, values: Sequence[int] = ()) -> Volume:
        """Returns the mask of a case, with bool voxels.

        Args:
          case: its id.
          region: one of `liverjax.labels.REGIONS`.
          values: of the file that are the region; by default the library's labels, or what the folder's dataset.json
            or cases.json says.

        Raises:
          InputError: it cannot be read or holds a value without a meaning.
        """
        if values:
            mask = nifti.read_mask(self.files[case], labels=range(256))
            return mask.with_voxels(np.isin(mask.voxels, values))
        path = self.files[case]
        mask = read_labels(path, self.label_map) if self.label_map else nifti.read_mask(path)
        return mask.with_voxels(np.isin(mask.voxels, REGIONS[region]))


def find_readers(
    words: Sequence[str | os.PathLike], cases: Sequence[str] | None = None
) -> tuple[list[Reader], list[str]]:
    """Finds the masks of each reader.

    Args:
      words: for each reader a folder of masks named by case, or NAME=FOLDER, or MODE/NAME=FOLDER. Without a name the
        reader is called as the folder.
      cases: ids of the cases; by default all, which every reader must then have.

    Returns:
      The readers, and the ids in natural order.

    Raises:
      InputError: fewer than two readers, two of one name or folder, or a reader without a case that another has.
    """
    readers = [_reader(os.fspath(word)) for word in words]
    if not 2 <= len(readers) <= MOST_READERS:
        listed = ", ".join(reader.name for reader in readers) or "none"
        raise InputError(
            f"readers: {listed}; expected 2 to {MOST_READERS}, as --readers=FOLDER1,FOLDER2: how observers differ "
            "cannot be seen in one"
        )
    for index, reader in enumerate(readers):
        for other in readers[:index]:
            if os.path.realpath(reader.folder) == os.path.realpath(other.folder):
                raise InputError(f"{reader.folder}: is given twice, expected another folder for each reader")
            if reader.name == other.name:
                raise InputError(
                    f"{reader.folder} and {other.folder}: two readers called {reader.name!r}; expected a name for "
                    f"each, as --readers=A={other.folder},B={reader.folder}"
                )
    known = sorted({id for reader in readers for id in reader.files}, key=natural_key)
    wanted = known if cases is None else list(dict.fromkeys(cases))
    lacking = [f"{id} of {reader.name}" for id in wanted for reader in readers if id not in reader.files]
    if lacking or not wanted:
        shared = [id for id in known if all(id in reader.files for reader in readers)]
        remedy = f"or --cases={','.join(shared)}" if shared else "named alike by all of them"
        raise InputError(
            f"no mask of {', '.join(lacking) or 'any case'}; expected a mask of every case by every reader, {remedy}"
        )
    return readers, wanted


def _reader(word: str) -> Reader:
    name, equals, folder = word.partition("=")
    if not equals or os.path.exists(word):
        name, folder = "", word
    mode, _, name = name.rpartition("/")
    files, labels = layouts.mask_files(folder)
    name = name.strip() or pathlib.Path(os.path.abspath(folder)).name
    return Reader(name, mode.strip(), pathlib.Path(folder), files, labels.map if labels else None)


def read_all(readers: Sequence[Reader], case: str, region: str, values: Sequence[int] = ()) -> list[Volume]:
    """Returns the masks of a case by all readers, bool, which lie voxel on voxel.

    Raises:
      InputError: they do not, or one cannot be read.
    """
    masks = [reader.read(case, region, values) for reader in readers]
    for mask in masks[1:]:
        nifti.require_same_geometry(mask, masks[0])
    return masks


def patients_of(scans: str | os.PathLike | None, cases: Sequence[str]) -> dict[str, str]:
    """Returns the patient of each case, as the data set of the scans says; the case itself where nothing does."""
    known = {} if scans is None else {case.id: case.patient for case in layouts.find_cases(scans)}
    return {id: known.get(id, id) for id in cases}


def by_patient(values: npt.ArrayLike, patients: Sequence[str]) -> np.ndarray:
    """Returns the mean of each patient's defined values, in order of first occurrence; NaN where none is defined."""
    found, names = np.asarray(values, float), np.asarray(patients, dtype=object)
    means = []
    for name in dict.fromkeys(patients):
        own = found[(names == name) & ~np.isnan(found)]
        means.append(own.mean() if own.size else np.nan)
    return np.array(means)


def scan_of(scans: str | os.PathLike | None, case: str, mask: Volume) -> Volume | None:
    """Returns the scan of a case; None if no data set is named, or it has no such case.

    Raises:
      InputError: it cannot be read, or the mask does not lie on it.
    """
    found = {} if scans is None else {one.id: one for one in layouts.find_cases(scans)}
    if case not in found:
        return None
    scan = found[case].read_image()
    nifti.require_same_geometry(scan, mask)
    return scan


def label_values(words: Sequence[str]) -> tuple[int, ...]:
    """Returns the values of masks that a flag names.

    Raises:
      ConfigError: one is no number of 1 to 255.
    """
    if not all(
        word.isascii() and word.isdecimal() and len(word) < 4 and 1 <= int(word) <= 255 for word in words
    ):
        raise ConfigError(f"--values is {','.join(words)!r}, expected whole numbers of 1 to 255, as 1,2")
    return tuple(map(int, words))


def reference_masks(place: str | os.PathLike | None, ids: Sequence[str]) -> Reader | None:
    """Returns the masks of a folder that is no reader's; None of None.

    Raises:
      InputError: a case has none.
    """
    if place is None:
        return None
    files, labels = layouts.mask_files(place)
    missing = [id for id in ids if id not in files]
    if missing:
        raise InputError(
            f"{place}: no reference mask of {', '.join(missing)}, expected one of every case, named as the readers'"
        )
    return Reader("reference", "", pathlib.Path(place), files, labels.map if labels else None)


def open_folder(
    output: str | os.PathLike, study: str, readers: Sequence[Reader], region: str, cases: Sequence[str]
) -> pathlib.Path:
    """Makes the folder of a study and notes in ``study.json`` what it is of.

    Raises:
      InputError: it cannot be written to, or holds another study.
    """
    folder = make_folder(output)
    facts = {
        "study": study,
        "region": region,
        "readers": {reader.name: str(reader.folder.resolve()) for reader in readers},
        "cases": list(cases),
    }
    path = folder / "study.json"
    if path.exists() and files.read_json(path) != facts:
        raise InputError(
            f"{folder}: holds a study of other readers, cases or another region, with which this one would be mixed; "
            "choose another --output"
        )
    files.write_json(path, facts)
    return folder


def mean_row(label: str, values: npt.ArrayLike, patients: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the mean over patients of a value of each case, with its interval (bootstrap, BCa)."""
    means = by_patient(values, patients)
    found = statistics.describe(means)
    return figure_row(
        label, found["mean"], *statistics.confidence_interval(means, seed=seed), int(found["n"])
    )


def figure_row(label: str, value: float, low: float, high: float, n: int) -> dict[str, Any]:
    """Returns a figure as a row."""
    return {"figure": label, "value": value, "ci_low": low, "ci_high": high, "patients": n}


def find_corrected(
    automatic: str | os.PathLike, corrected: Sequence[str | os.PathLike], cases: Sequence[str] | None = None
) -> tuple[Reader, list[Reader], list[str]]:
    """Finds automatic masks, and those of each reader who corrected them.

    Args:
      automatic: folder of the masks before.
      corrected: for each reader a folder, FOLDER or NAME=FOLDER.
      cases: ids; by default those of the corrected masks.

    Raises:
      InputError: as `find_readers`.
    """
    named = [f"automatic={os.fspath(automatic)}", *(os.fspath(word) for word in corrected)]
    if cases is None:
        # Not every automatic mask was corrected.
        cases = sorted({id for word in named[1:] for id in _reader(word).files}, key=natural_key)
    (before, *readers), ids = find_readers(named, cases)
    return before, readers, ids
