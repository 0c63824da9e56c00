"""The masks of a patient: read, measured, and brought into the frame of the baseline."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from liverjax.errors import InputError
from liverjax.planning.csv_files import read_text
from liverjax.planning.diameters import MeasuredMask, measure
from liverjax.planning.patients import Patient, TimePoint
from liverjax.scans import nifti
from liverjax.volume import Volume, value_counts

# A transform that shrinks a volume to a thousandth registers nothing.
_SMALLEST_DETERMINANT = 1e-3


def read_masks(
    patient: Patient, tumor_labels: Sequence[int]
) -> tuple[list[MeasuredMask], list[np.ndarray], list[str]]:
    """Reads and measures the masks of a patient.

    Returns:
      Of each time point the measured lesions, and the (4, 4) transform to the baseline; and notes on masks that may
      not be what they seem.

    Raises:
      InputError: a file cannot be used; no lesion at baseline; a mask without any label, though the baseline has the
        liver too; or scans that do not lie in one frame.
    """
    masks, transforms, notes = [], [], []
    fields: list[np.ndarray] = []
    at_baseline: set[int] = set()
    for index, point in enumerate(patient.time_points):
        volume = nifti.read_mask(point.mask, labels=range(256))
        tumor = np.isin(volume.voxels, tumor_labels)
        counts = value_counts(volume.voxels)
        other = {int(value) for value in np.flatnonzero(counts) if value} - set(tumor_labels)
        if not index:
            at_baseline = other
            _require_lesions(point, other, counts, tumor_labels)
        elif at_baseline and not other and not tumor.any():
            raise InputError(
                f"{point.mask}: is empty, expected the liver as in {patient.time_points[0].mask}: without it, the mask "
                "would read as a complete response"
            )
        notes += _doubts(point, volume, counts, other, None if not index else at_baseline, tumor_labels)
        viable = None
        if point.viable is not None:
            alive = nifti.read_mask(point.viable, labels=range(256))
            nifti.require_same_geometry(alive, volume)
            viable = alive.voxels
        transform = np.eye(4) if point.transform is None else read_transform(point.transform)
        fields.append(_field(transform @ volume.affine, volume.shape))
        if not _touch(fields[0], fields[-1]):
            raise InputError(
                f"{point.mask} does not overlap {patient.time_points[0].mask} in space, expected scans of one frame, "
                "or --transforms into that of the baseline"
            )
        try:
            masks.append(measure(tumor, volume.affine, viable))
        except InputError as error:
            raise InputError(f"{point.mask}: {error}") from None
        transforms.append(transform)
    return masks, transforms, notes


def _require_lesions(
    point: TimePoint, other: Collection[int], counts: np.ndarray, tumor_labels: Sequence[int]
) -> None:
    if counts[list(tumor_labels)].any():
        return
    remedy = f"; if {min(other)} is tumour: --tumor_labels={min(other)}" if len(other) == 1 else ""
    holds = f"labels {_named(other)}" if other else "no label at all"
    raise InputError(
        f"{point.mask}: holds {holds} and no tumour ({_named(tumor_labels)}), expected lesions at baseline{remedy}"
    )


def _doubts(
    point: TimePoint,
    volume: Volume,
    counts: np.ndarray,
    other: set[int],
    at_baseline: set[int] | None,
    tumor_labels: Sequence[int],
) -> list[str]:
    """Returns what a reader should know of a mask: it may not be what it seems.

    Args:
      point: whose mask it is.
      volume: the mask.
      counts: (256,) voxels of each label.
      other: its labels that are no tumour.
      at_baseline: those of the baseline, None if it is the baseline.
      tumor_labels: the labels that are tumour.
    """
    found = []
    tumor = int(counts[list(tumor_labels)].sum())
    rest = int(counts[list(other)].sum())
    if not tumor and not other:
        found.append(
            f"{point.name}: the mask holds no label at all and counts as a scan without lesions; a mask that holds the "
            "liver too would show that it was segmented"
        )
    strange = other - at_baseline if at_baseline is not None else set()
    if strange:
        found.append(
            f"{point.name}: the mask holds label {_named(strange)}, which that of the baseline does not, and which "
            f"counts as no tumour ({_named(tumor_labels)})"
        )
    if 0 < rest < tumor:
        ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
        found.append(
            f"{point.name}: tumour (label {_named(tumor_labels)}, {tumor * ml:.1f} ml) is larger than all else in the "
            f"mask (label {_named(other)}, {rest * ml:.1f} ml); if the labels are exchanged: "
            f"--tumor_labels={','.join(map(str, sorted(other)))}"
        )
    return found


def _named(values: Collection[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def read_transform(path: str | Path) -> np.ndarray:
    """Reads an affine transform of RAS+ world coordinates in mm: four lines of four numbers.

    Raises:
      InputError: the file cannot be read, holds something else, or is singular or mirrors.
    """
    try:
        matrix = np.array([line.split() for line in read_text(path).splitlines() if line.strip()], float)
    except ValueError:
        raise InputError(f"{path}: is no table of numbers, expected four lines of four numbers") from None
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(
            f"{path}: holds {' x '.join(map(str, matrix.shape))} numbers, expected four lines of four finite numbers"
        )
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise InputError(
            f"{path}: its last line is {matrix[3].tolist()}, expected 0 0 0 1, as of an affine transform"
        )
    determinant = float(np.linalg.det(matrix[:3, :3]))
    if determinant < _SMALLEST_DETERMINANT:
        raise InputError(
            f"{path}: its determinant is {determinant:.3g}, expected a transform that is neither "
            "singular nor mirrored"
        )
    return matrix


def _field(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns (2, 3) the lowest and highest world coordinates of a scan."""
    corners = (
        np.array(list(itertools.product(*((-0.5, n - 0.5) for n in shape)))) @ affine[:3, :3].T
        + affine[:3, 3]
    )
    return np.array([corners.min(0), corners.max(0)])


def _touch(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.maximum(a[0], b[0]) < np.minimum(a[1], b[1])).all())
