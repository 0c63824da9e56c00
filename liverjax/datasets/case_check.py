"""The check of one case: its scan, its mask, and whether they fit together."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from liverjax import scans
from liverjax.datasets.case import Case
from liverjax.datasets.findings import Finding, finding, notices_of_reading
from liverjax.errors import InputError
from liverjax.labels import BACKGROUND, TUMOR
from liverjax.scans import intensity, nifti
from liverjax.scans.grid import check_voxel_sizes, to_canonical
from liverjax.volume import Volume

#: A liver below this volume, in ml, is reported.
TINY_LIVER_ML = 100.0
#: A liver whose centroid lies more than this, in mm, to the left of the middle of the field of view seems mirrored.
MIRRORED_MM = 20.0

# CT stored with an offset of 1024, measured as `intensity.doubts` is: of the voxels above 500, 89 % or more lie within
# -150 to 200 HU, and 42 % at most of an MR scan's whose median is scaled there; 6 % or more are air.
_OFFSET = 1024
_TISSUE, _LEAST_TISSUE = (874, 1224), 0.65
_AIR, _LEAST_AIR = 150, 0.03


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of a case for the comparison with the others.

    Attributes:
      case: the case.
      spacing: (3,) in mm, along the canonical axes.
      range: lowest and highest value.
      digest: hash of shape and values.
      doubts: by modality, what speaks against the scan being of it.
      has_offset: its values are those of a CT, 1024 higher.
      touching: of each class that is taken as background for want of a known name, by value: how many of its voxels'
        faces are turned to the liver, and how many to anything else than the class itself.
    """

    case: Case
    spacing: np.ndarray
    range: tuple[float, float]
    digest: str
    doubts: dict[str, list[str]]
    has_offset: bool
    touching: dict[int, tuple[int, int]]


def check_case(case: Case, unknown: dict[int, str]) -> tuple[list[Finding], Facts | None]:
    """Reads a case, and returns what is wrong with it; no error of one case stops the others.

    Args:
      case: the case.
      unknown: values of masks that are taken as background because nobody knows the name of the class.

    Returns:
      The findings; and the facts of its scan, if that can be read.
    """
    findings, facts = [], None
    try:
        with notices_of_reading() as notices:
            scan = _read_scan(case, findings)
        findings += [finding(kind, (case.id,), (case.image,), text) for kind, text in notices]
        mask = None if case.label is None else _read_mask(case, case.label, findings)
        if scan is not None:
            touching = _touching(case, unknown) if unknown and mask is not None else {}
            facts = _facts(case, scan, touching)
            if facts.range[0] == facts.range[1]:
                message = f"{case.image}: every voxel is {facts.range[0]:g}"
                findings.append(finding("constant", (case.id,), (case.image,), message))
        if mask is not None and case.label is not None:
            findings += _check_mask(case, case.label, scan, mask)
    except MemoryError as error:
        message = f"{case.image}: takes more memory than there is ({error})"
        findings.append(finding("memory", (case.id,), (case.image,), message))
    except (
        Exception
    ) as error:  # a file that breaks a library that reads it must not hide what the others have
        files = [file for file in (case.image, case.label) if file]
        message = f"{case.image}: cannot be checked ({type(error).__name__}: {error})"
        findings.append(finding("unexpected", (case.id,), files, message))
    return findings, facts


def _read_scan(case: Case, findings: list[Finding]) -> Volume | None:
    try:
        scan = case.read_image()
        check_voxel_sizes(scan)
        return scan
    except InputError as error:
        kind = "memory" if isinstance(error.__cause__, MemoryError) else "scan"
        findings.append(finding(kind, (case.id,), (case.image,), str(error)))
    return None


def _facts(case: Case, scan: Volume, touching: dict[int, tuple[int, int]]) -> Facts:
    return Facts(
        case,
        to_canonical(scan).spacing,
        (float(scan.voxels.min()), float(scan.voxels.max())),
        _digest(scan),
        {modality: intensity.doubts(scan.voxels, modality) for modality in ("ct", "mr")},
        _has_offset(scan.voxels),
        touching,
    )


def _has_offset(voxels: np.ndarray) -> bool:
    sample = voxels[::4, ::4, ::2]
    body = sample[sample >= 500]
    if voxels.min() < 0 or not body.size or np.mean(sample < _AIR) < _LEAST_AIR:
        return False
    tissue = np.mean((body >= _TISSUE[0]) & (body <= _TISSUE[1]))
    return bool(tissue >= _LEAST_TISSUE) and not intensity.doubts(sample - float(_OFFSET), "ct")


def _touching(case: Case, unknown: dict[int, str]) -> dict[int, tuple[int, int]]:
    assert case.label is not None
    with notices_of_reading():
        stored = nifti.read_mask(case.label, labels=[value for value, _ in case.label_map]).voxels
    liver = np.isin(stored, [value for value, meaning in case.label_map if meaning != BACKGROUND])
    touching = {}
    for value in set(unknown) & set(np.unique(stored).tolist()):
        of_class = stored == value
        turned = others = 0
        for axis in range(3):
            here, there = (
                tuple(part if k == axis else slice(None) for k in range(3))
                for part in (slice(None, -1), slice(1, None))
            )
            for inside, outside in ((here, there), (there, here)):
                face = of_class[inside] & ~of_class[outside]
                others += int(face.sum())
                turned += int((face & liver[outside]).sum())
        touching[value] = turned, others
    return touching


def _read_mask(case: Case, file: Path, findings: list[Finding]) -> Volume | None:
    with notices_of_reading():  # the scan has the same ones
        try:
            return case.read_mask()
        except InputError as error:
            kind, message = "label_values", str(error)
        try:
            scans.read(file)  # then it is its values that are wrong
        except InputError:
            kind = "mask"
    findings.append(finding(kind, (case.id,), (file,), message))
    return None


def _check_mask(case: Case, file: Path, scan: Volume | None, mask: Volume) -> Iterator[Finding]:
    liver = mask.voxels != BACKGROUND
    fits = False
    if scan is not None:
        try:
            nifti.require_same_geometry(scan, mask)
            fits = True
        except InputError as error:
            kind = "shape" if scan.shape != mask.shape else "affine"
            yield finding(kind, (case.id,), (case.image, file), str(error))
    if not liver.any():
        yield finding("empty_mask", (case.id,), (file,), f"{file}: holds no liver and no tumour")
        return
    volume = mask.millilitres(liver)
    if volume < TINY_LIVER_ML:
        tumor = mask.millilitres(mask.voxels == TUMOR)
        message = f"{file}: the liver has {volume:.3g} ml ({tumor:.3g} ml of it tumour)"
        yield finding("tiny_mask", (case.id,), (file,), message)
    if fits and (right := _offset_to_the_right(liver, mask.affine)) < -MIRRORED_MM:
        message = f"{file}: the liver's centroid lies {-right:.0f} mm to the patient's left of the middle"
        yield finding("mirrored", (case.id,), (case.image, file), message)


def _offset_to_the_right(mask: np.ndarray, affine: np.ndarray) -> float:
    """Returns how far in mm a mask's centroid lies to the patient's right of the field of view's centre."""
    offset = []
    for axis, size in enumerate(mask.shape):
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        offset.append(profile @ np.arange(size) / profile.sum() - (size - 1) / 2)
    return float(affine[0, :3] @ offset)


def _digest(scan: Volume) -> str:
    """Returns a hash of shape and values, whatever the type they are stored in."""
    digest = hashlib.sha256(repr(scan.shape).encode())
    digest.update(np.ascontiguousarray(scan.voxels.T, dtype=np.float32).data)
    return digest.hexdigest()
