"""From the masks of a patient to the response at each time point, and to rows for files and reports."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liverjax import __version__, files
from liverjax.planning.course import Elsewhere, Finding, Part, Response, Visit, assess
from liverjax.planning.diameters import Line, MeasuredMask
from liverjax.planning.masks import read_masks
from liverjax.planning.patients import Patient
from liverjax.planning.recist import (
    MOST_TARGETS,
    TOO_SMALL_MM,
    Candidate,
    check_targets,
    counted,
    measurable,
    propose_targets,
)
from liverjax.planning.tracking import follow
from liverjax.scoring import tables
from liverjax.scoring.summary import make_folder

#: Stands on every output.
USE = "Research use only, not for treatment decisions"

LESION_COLUMNS = (
    "case", "time_point", "date", "lesion", "part", "target", "state", "longest_mm", "perpendicular_mm",
    "counted_mm", "viable_mm", "volume_ml", "measurable", "reproducible", "slice_axis", "slice", "longest_from",
    "longest_to", "perpendicular_from", "perpendicular_to", "use",
)  # fmt: skip
RESPONSE_COLUMNS = (
    "case", "time_point", "date", "sum_mm", "nadir_mm", "change_percent", "change_from_nadir_percent", "target",
    "non_target", "new_lesions", "equivocal_lesions", "overall", "who", "products_mm2", "mrecist", "viable_sum_mm",
    "use",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """How lesions are found, chosen and counted.

    Attributes:
      tumor_labels: values of tumour in the masks.
      near_mm: greatest distance of the centres of lesions that do not overlap but are one; 0 asks for overlap.
      too_small_mm: what a target lesion below this size counts.
      new_mm: a new lesion that never reaches this diameter is equivocal.
    """

    tumor_labels: tuple[int, ...] = (2,)
    near_mm: float = 0.0
    too_small_mm: float = TOO_SMALL_MM
    new_mm: float = TOO_SMALL_MM


@dataclasses.dataclass(frozen=True)
class Assessment:
    """A patient's course with the response at each time point.

    Attributes:
      patient: the files.
      masks: the measured lesions of each time point.
      visits: the lesions of each time point, by number.
      targets: numbers of the target lesions; `proposed` if nobody chose them.
      proposed: they were proposed.
      responses: of each time point.
      notes: what a reader should know.
      options: with which it was made.
    """

    patient: Patient
    masks: tuple[MeasuredMask, ...]
    visits: tuple[Visit, ...]
    targets: tuple[int, ...]
    proposed: bool
    responses: tuple[Response, ...]
    notes: tuple[str, ...]
    options: Options


def assess_patient(
    patient: Patient,
    options: Options = Options(),
    targets: Sequence[int] | None = None,
    elsewhere: Mapping[str, Elsewhere] | None = None,
) -> Assessment:
    """Measures and follows the lesions of a patient, and returns the response at each time point.

    Args:
      patient: the files.
      options: how lesions are found, chosen and counted.
      targets: numbers of the target lesions, which are their ids in the mask of the baseline; None proposes them.
      elsewhere: of time points by name, what masks of the liver do not tell.

    Raises:
      InputError: as `masks.read_masks` and `recist.check_targets`.
    """
    masks, transforms, doubts = read_masks(patient, options.tumor_labels)
    course = follow(masks, transforms, options.near_mm)
    stated = elsewhere or {}
    visits = [
        Visit(point.name, findings, stated.get(point.name, Elsewhere()))
        for point, findings in zip(patient.time_points, course, strict=True)
    ]
    able = candidates(masks[0])
    chosen = propose_targets(able) if targets is None else check_targets(targets, able)
    living = [c for c in candidates(masks[0], viable=True) if targets is None or c.number in chosen]
    responses = assess(
        visits,
        chosen,
        viable_targets=propose_targets(living),
        too_small_mm=options.too_small_mm,
        new_mm=options.new_mm,
    )
    return Assessment(
        patient, tuple(masks), tuple(visits), chosen, targets is None, tuple(responses),
        (*doubts, *_notes(patient, visits, chosen, responses)), options,
    )  # fmt: skip


def candidates(mask: MeasuredMask, viable: bool = False) -> list[Candidate]:
    """Returns the lesions of a baseline as candidates for targets, by their whole or their viable diameter."""
    found = []
    for measured in mask.lesions:
        longest = measured.viable_mm if viable else measured.diameters.longest.mm
        if not math.isnan(longest):
            next_mm = math.nan if viable else measured.diameters.next_mm
            found.append(Candidate(measured.lesion.id, longest, mask.slice_mm, next_mm, measured.cut))
    return found


def _notes(
    patient: Patient, visits: Sequence[Visit], targets: Sequence[int], responses: Sequence[Response]
) -> list[str]:
    notes = []
    if not targets:
        notes.append("no lesion of the liver is measurable at baseline: none is a target")
    baseline = {number for finding in visits[0].findings for number in finding.members}
    for visit in visits[1:]:
        present = [finding for finding in visit.findings if finding.parts]
        if present and not any(baseline & set(finding.members) for finding in present):
            notes.append(
                f"{visit.name}: no lesion lies where one of the baseline was; if the scans are not in one frame, give "
                "--transforms"
            )
        for finding in visit.findings:
            name = lesion_name(finding.members)
            if len(finding.members) > 1 and finding.parts:
                notes.append(
                    f"{visit.name}: lesions {name} have merged; their sum is the diameter of the whole"
                )
            if len(finding.parts) > 1:
                notes.append(
                    f"{visit.name}: lesion {name} is in {len(finding.parts)} parts; their diameters are added"
                )
    if responses[-1].equivocal:
        numbers = ", ".join(map(str, responses[-1].equivocal))
        notes.append(f"new lesions too small to be unequivocal, not counted as progression: {numbers}")
    if (
        len({point.date for point in patient.time_points}) < len(patient.time_points)
        and patient.time_points[0].date
    ):
        notes.append("several time points have the same date")
    return notes


# --- rows ---------------------------------------------------------------------------------------------------


def lesion_name(members: Sequence[int]) -> str:
    """Returns the name of a finding: "2", or "2+5" if lesions 2 and 5 have merged."""
    return "+".join(map(str, members))


def states(visits: Sequence[Visit], index: int) -> list[str]:
    """Returns what has become of each finding of a visit.

    One of "baseline", "present", "new", "gone", "returned"; with "merged" or "split" behind it where that is so.
    """
    found = []
    for finding in visits[index].findings:
        own = set(finding.members)
        before = [any(own & set(f.members) and f.parts for f in visit.findings) for visit in visits[:index]]
        if not index:
            state = "baseline"
        elif not finding.parts:
            state = "gone"
        elif not any(before):
            state = "new"
        else:
            state = "present" if before[-1] else "returned"
        if finding.parts:
            state += ", merged" * (len(own) > 1) + ", split" * (len(finding.parts) > 1)
        found.append(state)
    return found


def lesion_rows(assessment: Assessment) -> list[dict[str, Any]]:
    """Returns a row for each lesion part at each time point, and for each lesion that is gone."""
    rows = []
    for index, (point, visit) in enumerate(
        zip(assessment.patient.time_points, assessment.visits, strict=True)
    ):
        for finding, state in zip(visit.findings, states(assessment.visits, index), strict=True):
            for number, part in enumerate(finding.parts or (None,)):
                row = {
                    "case": assessment.patient.id,
                    "time_point": point.name,
                    "date": str(point.date or ""),
                    "lesion": lesion_name(finding.members),
                    "part": f"{number + 1} of {len(finding.parts)}" if part else "",
                    "target": bool(set(finding.members) & set(assessment.targets)),
                    "state": state,
                    "use": USE,
                }
                rows.append(
                    row
                    | (_measures(assessment, index, part) if part else {"longest_mm": 0.0, "counted_mm": 0.0})
                )
    return rows


def _measures(assessment: Assessment, index: int, part: Part) -> dict[str, Any]:
    mask = assessment.masks[index]
    found = mask.lesions[part.id - 1]
    (candidate,) = (c for c in candidates(mask) if c.number == part.id)
    return {
        "longest_mm": part.longest_mm,
        "perpendicular_mm": part.perpendicular_mm,
        "counted_mm": counted(part.longest_mm, assessment.options.too_small_mm),
        "viable_mm": part.viable_mm,
        "volume_ml": part.volume_ml,
        "measurable": measurable(part.longest_mm, mask.slice_mm),
        "reproducible": candidate.reproducible,
        "slice_axis": "xyz"[found.diameters.axis],
        "slice": found.diameters.slice,
        **_ends("longest", found.diameters.longest),
        **_ends("perpendicular", found.diameters.perpendicular),
    }


def _ends(name: str, line: Line) -> dict[str, str]:
    first, second = (" ".join(f"{value:.6g}" for value in end) for end in line.ends)
    return {f"{name}_from": first, f"{name}_to": second}


def response_rows(assessment: Assessment) -> list[dict[str, Any]]:
    """Returns a row for each time point."""
    return [
        {
            "case": assessment.patient.id,
            "time_point": point.name,
            "date": str(point.date or ""),
            "sum_mm": response.sum_mm,
            "nadir_mm": response.nadir_mm,
            "change_percent": response.change,
            "change_from_nadir_percent": response.change_from_nadir,
            "target": response.target,
            "non_target": response.non_target,
            "new_lesions": " ".join(map(str, response.new)),
            "equivocal_lesions": " ".join(map(str, response.equivocal)),
            "overall": response.overall,
            "who": response.who,
            "products_mm2": response.products_mm2,
            "mrecist": response.mrecist,
            "viable_sum_mm": response.viable_mm,
            "use": USE,
        }
        for point, response in zip(assessment.patient.time_points, assessment.responses, strict=True)
    ]


def report_rows(assessments: Sequence[Assessment]) -> dict[str, dict[str, Any]]:
    """Returns what `report.response_report` takes: responses, lesions and notes of each patient."""
    return {
        "responses": {one.patient.id: response_rows(one) for one in assessments},
        "lesions": {one.patient.id: lesion_rows(one) for one in assessments},
        "notes": {one.patient.id: one.notes for one in assessments},
    }


def table(assessments: Sequence[Assessment]) -> str:
    """Returns the responses as lines of text, for a terminal, with the notes below them."""
    rows = [
        {
            "": f"{row['case']} {row['time_point']}",
            "sum [mm]": tables.number(row["sum_mm"]),
            "nadir [mm]": tables.number(row["nadir_mm"]),
            "change [%]": tables.number(row["change_percent"]),
            **{name: row[name] or "-" for name in ("target", "non_target", "new_lesions", "overall")},
        }
        for one in assessments
        for row in response_rows(one)
    ]
    notes = [f"{one.patient.id}: {note}" for one in assessments for note in one.notes]
    return "\n".join([tables.aligned(rows), *notes])


def save(folder: str | os.PathLike, assessments: Sequence[Assessment]) -> pathlib.Path:
    """Writes `lesions.csv`, `responses.csv` and `recist.json` into a folder, each atomically, and returns the folder.

    Raises:
      InputError: the folder cannot be written to.
    """
    folder = make_folder(folder)
    rows = [row for one in assessments for row in lesion_rows(one)]
    files.write_csv(folder / "lesions.csv", rows, LESION_COLUMNS)
    rows = [row for one in assessments for row in response_rows(one)]
    files.write_csv(folder / "responses.csv", rows, RESPONSE_COLUMNS)
    files.write_json(folder / "recist.json", json_value(_document(assessments)))
    return folder


def _document(assessments: Sequence[Assessment]) -> dict[str, Any]:
    return {
        "use": USE,
        "liverjax_version": __version__,
        "options": dataclasses.asdict(assessments[0].options) | {"most_targets": MOST_TARGETS},
        "patients": [
            {
                "id": one.patient.id,
                "targets": one.targets,
                "targets_proposed": one.proposed,
                "notes": one.notes,
                "responses": [without(row, "case", "use") for row in response_rows(one)],
                "lesions": [
                    {
                        "time_point": visit.name,
                        "lesion": lesion_name(finding.members),
                        "state": state,
                        "parts": [_part(one.masks[index], part) for part in finding.parts],
                    }
                    for index, visit in enumerate(one.visits)
                    for finding, state in zip(visit.findings, states(one.visits, index), strict=True)
                ],
            }
            for one in assessments
        ],
    }


def _part(mask: MeasuredMask, part: Part) -> dict[str, Any]:
    found = mask.lesions[part.id - 1].diameters
    lines = {"longest": found.longest, "perpendicular": found.perpendicular}
    return {
        **dataclasses.asdict(part),
        "slice_axis": "xyz"[found.axis],
        "slice": found.slice,
        **{f"{name}_voxels": line.ends for name, line in lines.items()},
        **{f"{name}_ras_mm": _world(mask.affine, line) for name, line in lines.items()},
    }


def _world(affine: np.ndarray, line: Line) -> list[list[float]]:
    return (np.array(line.ends) @ affine[:3, :3].T + affine[:3, 3]).tolist()


def without(row: Mapping[str, Any], *columns: str) -> dict[str, Any]:
    """Returns a row without some columns."""
    return {key: value for key, value in row.items() if key not in columns}


def json_value(value: Any) -> Any:
    """Returns a value as JSON has it, at any depth: NaN and infinity are None, tuples are lists."""
    if isinstance(value, Mapping):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def findings_of(assessment: Assessment, numbers: Sequence[int]) -> list[list[Finding]]:
    """Returns, for each time point, the findings of some lesions."""
    return [[f for f in visit.findings if set(f.members) & set(numbers)] for visit in assessment.visits]
