"""How much observers differ in the masks of one region: volumes, surfaces, voxels, lesions, and modes of reading."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from liverjax.errors import ConfigError
from liverjax.labels import REGIONS
from liverjax.progress import followed
from liverjax.scans import nifti
from liverjax.scoring import rater_agreement, statistics
from liverjax.studies import observers_tables
from liverjax.studies.observer_case import ReadCase
from liverjax.studies.readers import (
    Reader,
    by_patient,
    figure_row,
    find_readers,
    mean_row,
    open_folder,
    patients_of,
    read_all,
    reference_masks,
)


@dataclasses.dataclass(frozen=True)
class Observers:
    """How observers differ.

    Attributes:
      readers: who.
      region: of which the masks are.
      cases: a row per case: volumes in ml, disagreement, agreement of voxels, variability.
      pairs: a row per case and pair of readers.
      each: a row per case and reader: against the consensus of the others, and against the reference if there is one.
      summary: a row per figure over all cases: value, interval, number of patients.
      limits: Bland and Altman's limits of agreement of the volumes.
      tests: a row per measure and pair of modes.
      notes: what a reader should know.
    """

    readers: tuple[Reader, ...]
    region: str
    cases: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    each: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    limits: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    notes: list[str]

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the rows as CSV files, and all as ``observers.json``; see `observers_tables.save`."""
        return observers_tables.save(self, folder)

    def table(self) -> str:
        """Returns the figures as lines of text, for a terminal."""
        return observers_tables.text(self)


def study_observers(
    readers: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    *,
    region: str = "liver",
    values: Sequence[int] = (),
    reference: str | os.PathLike | None = None,
    scans: str | os.PathLike | None = None,
    cases: Sequence[str] | None = None,
    band_mm: float = 5.0,
    seed: int = 0,
    quiet: bool = False,
) -> Observers:
    """Compares the masks of several readers.

    Args:
      readers: folders of masks, as `readers.find_readers` takes them.
      output: folder for the tables, and for maps of each case: ``votes/`` (how many readers have a voxel) and
        ``consensus/`` (STAPLE); None writes nothing.
      region: "liver" (with its tumours) or "tumor".
      values: of the mask files that are the region, if they are not the library's labels.
      reference: folder of masks to which volumes relate; by default they relate to the consensus of the readers.
      scans: data set of the scans, which says which cases belong to a patient.
      cases: ids; by default all.
      band_mm: voxels within this distance of a disagreement enter kappa, alpha and STAPLE.
      seed: of the bootstrap.
      quiet: show no progress bar.

    Raises:
      ConfigError: there is no such region, or the band is not above 0.
      InputError: as `find_readers`; masks that cannot be read, or do not lie voxel on voxel; an output folder of
        another study.
    """
    if region not in REGIONS:
        raise ConfigError(f"region is {region!r}, expected one of {', '.join(REGIONS)}")
    if not 0 < band_mm < math.inf:
        raise ConfigError(f"band_mm is {band_mm}, expected a distance in mm above 0")
    found, ids = find_readers(readers, cases)
    truth = reference_masks(reference, ids)
    folder = None if output is None else open_folder(output, "observers", found, region, ids)
    patients = patients_of(scans, ids)
    rows, pairs, each = [], [], []
    for id in followed(ids, "observers", "case", quiet=quiet):
        masks = read_all(found, id, region, values)
        known = None
        if truth is not None:
            known = truth.read(id, region, values)
            nifti.require_same_geometry(known, masks[0])
        case = ReadCase(id, patients[id], found, masks, known, band_mm)
        if folder is not None:
            case.write_maps(folder)
        rows.append(case.row())
        pairs += case.pair_rows()
        each += case.reader_rows(lesions=region == "tumor")
    result = Observers(
        tuple(found),
        region,
        rows,
        pairs,
        each,
        *_over_cases(found, rows, pairs, each, seed),
        _notes(rows, pairs, known=truth is not None),
    )
    if folder is not None:
        result.save(folder)
    return result


# --- over all cases -----------------------------------------------------------------------------------------


_VOXELS = {"kappa": "Fleiss' kappa, voxels in the band", "alpha": "Krippendorff's alpha, voxels in the band"}


def variability(volumes: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Returns each case's inter-observer variability in percent (PLoS ONE 2019, 14:e0217228).

    The mean over pairs of readers of |RVE_a - RVE_b|, with RVE = 100 (V - V_base) / V_base, so that V_base only scales
    it.

    Args:
      volumes: (cases, readers).
      base: (cases,) volume to which they relate; NaN where it is 0.
    """
    a, b = np.triu_indices(volumes.shape[1], 1)
    base = np.where(base > 0, base, math.nan)
    return (100 * np.abs(volumes[:, a] - volumes[:, b]) / base[:, None]).mean(1)


def _over_cases(readers, rows, pairs, each, seed):
    names = [reader.name for reader in readers]
    patients = [row["patient"] for row in rows]
    volumes = np.array([[row[f"reader_{name}_ml"] for name in names] for row in rows])
    base = np.array([row["base_ml"] for row in rows])
    summary = [
        mean_row(
            "inter-observer variability, mean |difference of RVE| [%]",
            variability(volumes, base),
            patients,
            seed,
        )
    ]
    # One row of each patient: the mean volume of the patient's cases.
    table = np.stack([by_patient(column, patients) for column in volumes.T], axis=1)
    for name, (value, low, high) in rater_agreement.icc(table).items():
        summary.append(figure_row(f"{name} of the volume", value, low, high, len(table)))
    for name, label in (
        ("kappa", "Fleiss' kappa, voxels in the band"),
        ("alpha", "Krippendorff's alpha, voxels in the band"),
    ):
        summary.append(mean_row(label, [row[name] for row in rows], patients, seed))
    for a, b in itertools.combinations(names, 2):
        own = [row for row in pairs if (row["a"], row["b"]) == (a, b)]
        for metric, label in (("dice", "Dice"), ("assd", "ASSD [mm]")):
            summary.append(mean_row(f"{label}, {a} - {b}", [row[metric] for row in own], patients, seed))
    for name in names:
        own = [row for row in each if row["reader"] == name]
        summary.append(
            mean_row(
                f"Dice, {name} - consensus of the others", [row["dice_others"] for row in own], patients, seed
            )
        )
        if "lesions_others" in own[0]:
            found, all_ = (sum(row[key] for row in own) for key in ("lesions_found", "lesions_others"))
            label = f"lesions of the others' consensus that {name} found ({found} of {all_})"
            summary.append(
                figure_row(label, found / all_ if all_ else math.nan, math.nan, math.nan, len(table))
            )
    limits = rater_agreement.limits_of_agreement(
        [dict(zip(names, row, strict=True)) for row in table.tolist()], names
    )
    return summary, limits, _mode_tests(readers, rows, pairs, each, seed)


def _mode_tests(readers, rows, pairs, each, seed) -> list[dict[str, Any]]:
    """Returns the paired tests between modes: of variability and Dice within a mode, and of Dice with the reference."""
    modes = [mode for mode in dict.fromkeys(reader.mode for reader in readers) if mode]
    patients = [row["patient"] for row in rows]
    measures: dict[str, dict[str, np.ndarray]] = {"variability [%]": {}, "Dice between readers": {}}
    if "dice_reference" in each[0]:
        measures["Dice with the reference"] = {}
    for mode in modes:
        within = [row for row in pairs if row["modes"] == (mode, mode)]
        own = [row for row in each if row["mode"] == mode]

        def mean(found: list, key: str, change: Callable[[float], float] = float) -> np.ndarray:
            per_case = [[change(row[key]) for row in found if row["case"] == one["case"]] for one in rows]
            return by_patient([float(np.mean(v)) if v else math.nan for v in per_case], patients)

        measures["variability [%]"][mode] = mean(within, "rve_difference_percent", abs)
        measures["Dice between readers"][mode] = mean(within, "dice")
        if "Dice with the reference" in measures:
            measures["Dice with the reference"][mode] = mean(own, "dice_reference")
    tests = []
    for measure, by_mode in measures.items():
        for a, b in itertools.combinations(modes, 2):
            test = statistics.compare(by_mode[a], by_mode[b], seed=seed)
            if test["n"]:
                tests.append({"measure": measure, "modes": f"{a} - {b}", **test})
    adjusted = statistics.holm([test["p_permutation"] for test in tests]) if tests else []
    return [test | {"p_holm": p} for test, p in zip(tests, adjusted, strict=True)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _notes(rows, pairs, known: bool) -> list[str]:
    patients = len({row["patient"] for row in rows})
    notes = [
        f"{_count(len(rows), 'case')} of {_count(patients, 'patient')}. Relative volume errors relate to "
        + (
            "the reference."
            if known
            else "the consensus of the readers: they show how readers differ, not who is right."
        )
    ]
    if patients < 4:
        notes.append(
            f"{_count(patients, 'patient')} cannot give the interval of a mean: what is seen may be particular to them."
        )
    notes.append(
        "ICC depends on how much the patients differ: in a group of unlike livers it is high whatever the readers do."
    )
    same = [row["case"] for row in rows if not row["disagreement_ml"]]
    if same:
        notes.append(
            f"all readers are identical in {', '.join(same)}: kappa and alpha are not defined there."
        )
    readers = len({row[key] for row in pairs for key in ("a", "b")})
    empty = [row["case"] for row in rows if row["readers_with_mask"] < readers]
    if empty:
        notes.append(
            f"a reader's mask is empty in {', '.join(empty)}: Dice is 0 and distances infinite against another's "
            "mask, and not defined where both are empty."
        )
    return notes
