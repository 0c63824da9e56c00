"""The lesions of an assessment, each with its diameters, at every time point: what a report draws."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from liverjax.planning.assessment import Assessment, findings_of, lesion_name
from liverjax.planning.course import Part
from liverjax.planning.diameters import MeasuredMask
from liverjax.planning.patients import TimePoint
from liverjax.scans import nifti, read
from liverjax.scans.grid import from_canonical, to_canonical
from liverjax.volume import Volume

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

    What is seen are the arguments of `report.figures.lesion_slice`. A patient's files are read when the first of these
    is asked for, each once; only the slices that are drawn are kept.

    Raises:
      InputError: a scan cannot be read, or does not lie on the voxels of its mask.
    """
    for assessment in assessments:
        drawn = drawn_lesions(assessment)
        times = [_seen(assessment, index, drawn) for index in range(len(assessment.masks))]
        for number, members in enumerate(drawn):
            yield assessment.patient.id, _caption(assessment, members), [seen[number] for seen in times]


def _seen(assessment: Assessment, index: int, drawn: list[tuple[int, ...]]) -> list[dict[str, Any] | str]:
    """Returns what is seen of each lesion at a time point."""
    point, mask = assessment.patient.time_points[index], assessment.masks[index]
    found = [findings_of(assessment, members)[index] for members in drawn]
    parts = [[part for finding in findings for part in finding.parts] for findings in found]
    if point.scan is None and not any(parts):
        return [f"{point.name}: not there"] * len(drawn)
    volume = nifti.read_mask(point.mask, labels=range(256))
    scan = volume.with_voxels(volume.voxels != 0) if point.scan is None else scan_on(point.scan, volume)
    return [_slice(point, mask, scan, volume, own) if own else f"{point.name}: not there" for own in parts]


def scan_on(path: str | os.PathLike, mask: Volume) -> Volume:
    """Reads a scan, with its axes in the order and direction of a mask's, as other tools may have turned them.

    Raises:
      InputError: it cannot be read, or its voxels are not those of the mask.
    """
    scan = read(path)
    turned = from_canonical(to_canonical(scan).voxels, mask)
    axes = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(scan.affine), nib.orientations.io_orientation(mask.affine)
    )
    affine = scan.affine @ nib.orientations.inv_ornt_aff(axes, scan.shape)
    scan = dataclasses.replace(scan, voxels=turned, affine=affine)
    nifti.require_same_geometry(scan, mask)
    return scan


def _slice(
    point: TimePoint, mask: MeasuredMask, scan: Volume, volume: Volume, parts: Sequence[Part]
) -> dict[str, Any]:
    """Returns the slice with the longest diameter of a lesion, which may be in parts."""
    largest = max(parts, key=lambda part: part.longest_mm)
    found = mask.lesions[largest.id - 1].diameters
    lesion = np.zeros(volume.shape, bool)
    box = tuple(slice(c, c + n) for c, n in zip(mask.corner, mask.ids.shape, strict=True))
    lesion[box] = np.isin(mask.ids, [part.id for part in parts])
    only = tuple(
        slice(found.slice, found.slice + 1) if axis == found.axis else slice(None) for axis in range(3)
    )
    start = np.eye(3)[found.axis] * found.slice
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    several = (
        f", largest of {len(parts)} (sum {sum(p.longest_mm for p in parts):.1f} mm)" if len(parts) > 1 else ""
    )
    return {
        "scan": Volume(scan.voxels[only].copy(), affine, name=scan.name),
        "lesion": lesion[only].copy(),
        "organ": volume.voxels[only] != 0,
        "longest": (np.array(found.longest.ends) - start).tolist(),
        "perpendicular": (np.array(found.perpendicular.ends) - start).tolist(),
        "title": f"{point.name if not point.date else f'{point.name} ({point.date})'}\n"
        f"slice {'xyz'[found.axis]} = {found.slice} of 0 to {mask.shape[found.axis] - 1}: "
        f"{largest.longest_mm:.1f} x {largest.perpendicular_mm:.1f} mm{several}",
    }


def _caption(assessment: Assessment, members: tuple[int, ...]) -> str:
    """Returns what a picture shows."""
    kinds = ["target"] * bool(set(members) & set(assessment.targets))
    kinds += ["new"] * bool(set(members) & set(assessment.responses[-1].new))
    return f"{assessment.patient.id}, lesion {lesion_name(members)}" + (
        f" ({', '.join(kinds)})" if kinds else ""
    )
