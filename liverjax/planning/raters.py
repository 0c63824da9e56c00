"""From the masks or tables of several raters to how they agree, as rows for files and reports."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liverjax import __version__, files
from liverjax.errors import InputError
from liverjax.planning import variability
from liverjax.planning.assessment import USE, Assessment, Options, assess_patient, json_value
from liverjax.planning.patients import patients_of_rater
from liverjax.planning.stated import read_rater
from liverjax.planning.tracking import follow
from liverjax.planning.variability import RaterCourse
from liverjax.scans import nifti
from liverjax.scoring import tables
from liverjax.scoring.rater_agreement import limits_of_agreement
from liverjax.scoring.summary import make_folder
from liverjax.volume import Volume


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How raters agree.

    Attributes:
      raters: their names.
      classes: a row for each case and time point after the baseline, with the share of raters of each class.
      kappas: Fleiss' kappa of each of these time points, with its interval.
      diameters, volumes: a row for each lesion and time point, with what each rater measured, in mm and ml.
      sums: a row for each case and time point, with each rater's sum of diameters in mm.
      limits: of agreement, for each of "diameters", "sums" and "volumes".
      choices: a row for each case and rater, on the choice of target lesions.
      notes: what a reader should know of what was read.
    """

    raters: tuple[str, ...]
    classes: list[dict[str, Any]]
    kappas: list[dict[str, Any]]
    diameters: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    sums: list[dict[str, Any]]
    limits: dict[str, list[dict[str, Any]]]
    choices: list[dict[str, Any]]
    notes: list[str]

    def report_rows(self) -> dict[str, Any]:
        """Returns what `report.raters_report` takes."""
        values = {"diameters": self.diameters, "sums": self.sums, "volumes": self.volumes}
        rows = {"raters": self.raters, "classes": self.classes, "kappas": self.kappas, "limits": self.limits}
        return {**rows, "values": values, "choices": self.choices, "notes": self.notes}

    def table(self) -> str:
        """Returns kappas and limits of agreement as lines of text, for a terminal, with the notes below them."""
        kappas = [
            {
                "": f"Fleiss' kappa at {row['time_point']}",
                "cases": str(row["cases"]),
                "kappa": tables.number(row["kappa"]),
                "95 % interval": tables.interval(row),
            }
            for row in self.kappas
        ]
        limits = [
            {
                "": f"{kind}, {row['raters']}",
                **{name: tables.number(row[name]) for name in ("n", "bias", "lower", "upper")},
            }
            for kind, rows in self.limits.items()
            for row in rows
            if row["n"] and (len(self.raters) <= 3 or row is rows[-1])
        ]
        blocks = [tables.aligned(rows) for rows in (kappas, limits) if rows]
        return "\n\n".join([*blocks, *(["\n".join(self.notes)] if self.notes else [])])

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes tables (`classes`, `diameters`, `volumes`, `sums`, `choices`, `limits`) and `raters.json`, atomically.

        `volumes.csv` only where a rater has volumes: those of masks, not of tables or of simulated raters.

        Raises:
          InputError: the folder cannot be written to.
        """
        folder = make_folder(folder)
        for name in ("classes", "diameters", "volumes", "sums", "choices"):
            rows = [row | {"use": USE} for row in getattr(self, name)]
            if name == "volumes" and all(math.isnan(row[rater]) for row in rows for rater in self.raters):
                continue
            files.write_csv(folder / f"{name}.csv", rows, list(rows[0]) if rows else ["case", "use"])
        limits = [
            {"of": kind, **row, "use": USE} for kind, rows in self.limits.items() for row in rows if row["n"]
        ]
        files.write_csv(folder / "limits.csv", limits, list(limits[0]) if limits else ["of", "use"])
        document = {"use": USE, "liverjax_version": __version__, **dataclasses.asdict(self)}
        files.write_json(folder / "raters.json", json_value(document))
        return folder


def read_raters(
    places: Sequence[str | Path],
    options: Options = Options(),  # noqa: B008
    transforms: Sequence[str | Path] = (),
) -> list[RaterCourse]:
    """Reads what each rater found: folders of masks (`patients.patients_of_rater`) or a CSV file (`stated.read_rater`).

    Lesions of masks have common names: the numbers that `tracking.follow` gives them from one rater's baseline to the
    next. So a lesion is the same for all raters if the masks overlap.

    Raises:
      InputError: as those two; or the masks of one case and time point have different geometry.
    """
    courses: list[RaterCourse] = []
    masks: dict[str, dict[str, Assessment]] = {}
    names = [Path(place).stem for place in places]
    if len(set(names)) < len(names):
        names = [str(place) for place in places]
    for name, place in zip(names, places, strict=True):
        if Path(place).is_file():
            courses += [dataclasses.replace(course, rater=name) for course in read_rater(place)]
        else:
            for patient in patients_of_rater(place, transforms):
                masks.setdefault(patient.id, {})[name] = assess_patient(patient, options)
    for case, found in masks.items():
        courses += _of_masks(case, found, options)
    order = {name: index for index, name in enumerate(names)}
    return sorted(courses, key=lambda course: order[course.rater])


def rater_course(assessment: Assessment, rater: str = "") -> RaterCourse:
    """Returns an assessment as what one rater found; lesions are named by their numbers."""
    numbers = {n for visit in assessment.visits for finding in visit.findings for n in finding.members}
    names = {number: str(number) for number in sorted(numbers)}
    return RaterCourse(
        rater, assessment.patient.id, assessment.visits, assessment.targets, names, assessment.notes
    )


def _of_masks(case: str, found: Mapping[str, Assessment], options: Options) -> list[RaterCourse]:
    _require_one_geometry(found)
    baselines = [assessment.masks[0] for assessment in found.values()]
    common = follow(baselines, [np.eye(4)] * len(baselines), options.near_mm)
    courses = []
    for (rater, assessment), findings in zip(found.items(), common, strict=True):
        named = {part.id: str(finding.members[0]) for finding in findings for part in finding.parts}
        course = rater_course(assessment, rater)
        # A lesion that is new after the baseline is known by the rater's own number.
        names = {number: named.get(number, f"new {name}") for number, name in course.names.items()}
        courses.append(dataclasses.replace(course, case=case, names=names))
    return courses


def _require_one_geometry(found: Mapping[str, Assessment]) -> None:
    first, *others = found.values()
    for other in others:
        # A time point that one of them lacks is an error of its own.
        for index, point in enumerate(other.patient.time_points[: len(first.masks)]):
            a, b = (
                Volume(np.broadcast_to(np.uint8(0), mask.shape), mask.affine, name=str(file))
                for mask, file in (
                    (first.masks[index], first.patient.time_points[index].mask),
                    (other.masks[index], point.mask),
                )
            )
            nifti.require_same_geometry(a, b)


def compare_raters(courses: Sequence[RaterCourse], seed: int = 0) -> Agreement:
    """Returns how raters agree.

    Args:
      courses: of every rater and case.
      seed: of the bootstrap.

    Raises:
      InputError: as `variability.by_case`.
    """
    cases = variability.by_case(courses)
    raters = tuple(next(iter(cases.values())))
    classes = variability.class_rows(cases)
    followed = any(len(course.visits) > 1 for course in courses)
    kappas = []
    for time_point, rows in itertools.groupby(
        sorted(classes, key=lambda row: str(row["time_point"])), key=lambda row: row["time_point"]
    ):
        kappas.append({"time_point": time_point, **variability.kappa(list(rows), seed)})
    diameters = variability.diameter_rows(cases)
    volumes = variability.diameter_rows(cases, "volume_ml")
    sums = variability.sum_rows(cases)
    return Agreement(
        raters=raters,
        classes=classes,
        kappas=kappas,
        diameters=diameters,
        volumes=volumes,
        sums=sums,
        limits={
            name: limits_of_agreement(rows, raters)
            for name, rows in (("diameters", diameters), ("sums", sums), ("volumes", volumes))
        },
        choices=variability.choice_rows(cases) if followed else [],
        notes=[f"{course.rater}, {course.case}: {note}" for course in courses for note in course.notes],
    )


def simulate(
    assessments: Sequence[Assessment], raters: int, error_mm: float, bias_mm: float, seed: int = 0
) -> list[RaterCourse]:
    """Returns what simulated raters would have measured on the patients; see `variability.simulate_raters`.

    Raises:
      InputError: fewer than two raters, or an error below 0.
    """
    if raters < 2 or min(error_mm, bias_mm) < 0:
        raise InputError(
            f"{raters} simulated raters with an error of {error_mm:g} mm and a bias of {bias_mm:g} mm, expected at "
            "least two raters and errors of 0 or more"
        )
    return [
        course
        for one in assessments
        for course in variability.simulate_raters(
            rater_course(one),
            raters,
            error_mm=error_mm,
            bias_mm=bias_mm,
            slice_mm=one.masks[0].slice_mm,
            seed=seed,
        )
    ]
