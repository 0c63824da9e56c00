"""The lesions of an assessment, each with its diameters, at every time point: what a report draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from liverjax.planning.assessment import Assessment, findings_of, lesion_name
from liverjax.planning.course import Finding
from liverjax.scans import nifti, read

#: Most lesions of a patient that are drawn.
MOST_DRAWN = 6


def drawn_lesions(assessment: Assessment) -> list[tuple[int, ...]]:
    """Returns the lesion numbers that are drawn: targets first, then new lesions, then the largest others."""
    sizes: dict[int, float] = {}
    for visit in assessment.visits:
        for finding in visit.findings:
            for number in finding.members:
                sizes[number] = max([sizes.get(number, 0.0), *(part.longest_mm for part in finding.parts)])
    new = set(assessment.responses[-1].new)
    ordered = sorted(sizes, key=lambda n: (n not in assessment.targets, n not in new, -sizes[n], n))
    groups = [next(f.members for f in assessment.visits[-1].findings if n in f.members) for n in ordered]
    return list(dict.fromkeys(groups))[:MOST_DRAWN]


def pictures(assessments: Iterable[Assessment]) -> Iterator[tuple[str, str, list[dict[str, Any] | str]]]:
    """Yields for each drawn lesion its patient, a caption, and what is seen at each time point, or a text.

    What is seen are the arguments of `report.figures.lesion_slice`. Each is read when it is asked for.
    """
    for assessment in assessments:
        for members in drawn_lesions(assessment):
            seen: list[dict[str, Any] | str] = []
            for index, findings in enumerate(findings_of(assessment, members)):
                present = [finding for finding in findings if finding.parts]
                name = assessment.patient.time_points[index].name
                seen.append(_seen(assessment, index, present) if present else f"{name}: not there")
            yield assessment.patient.id, _caption(assessment, members), seen


def _seen(assessment: Assessment, index: int, findings: list[Finding]) -> dict[str, Any]:
    point, mask = assessment.patient.time_points[index], assessment.masks[index]
    volume = nifti.read_mask(point.mask, labels=range(256))
    parts = [part for finding in findings for part in finding.parts]
    largest = max(parts, key=lambda part: part.longest_mm)
    found = mask.lesions[largest.id - 1].diameters
    lesion = np.zeros(volume.shape, bool)
    box = tuple(slice(c, c + n) for c, n in zip(mask.corner, mask.ids.shape, strict=True))
    lesion[box] = np.isin(mask.ids, [part.id for part in parts])
    organ = volume.voxels != 0
    scan = volume.with_voxels(organ.astype(np.uint8))
    if point.scan is not None:
        scan = read(point.scan)
        nifti.require_same_geometry(scan, volume)
    axis, name = "xyz"[found.axis], point.name if not point.date else f"{point.name} ({point.date})"
    several = (
        f", largest of {len(parts)} (sum {sum(p.longest_mm for p in parts):.1f} mm)" if len(parts) > 1 else ""
    )
    title = (
        f"{name}\nslice {axis} = {found.slice} of 0 to {mask.shape[found.axis] - 1}: "
        f"{largest.longest_mm:.1f} x {largest.perpendicular_mm:.1f} mm{several}"
    )
    return {
        "scan": scan,
        "lesion": lesion,
        "organ": organ,
        "longest": found.longest.ends,
        "perpendicular": found.perpendicular.ends,
        "title": title,
    }


def _caption(assessment: Assessment, members: tuple[int, ...]) -> str:
    """Returns what a picture shows."""
    kinds = ["target"] * bool(set(members) & set(assessment.targets))
    kinds += ["new"] * bool(set(members) & set(assessment.responses[-1].new))
    return f"{assessment.patient.id}, lesion {lesion_name(members)}" + (
        f" ({', '.join(kinds)})" if kinds else ""
    )
