"""What speaks against a predicted mask being a liver: size, place, pieces, and what the networks themselves expect.

The limits come from the masks that people drew on 63 scans (35 CT, 28 MR), of which none is doubted, and the limits of
pieces and of the expected Dice from predictions of held-out scans: docs/inference.md has the figures.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from liverjax.labels import BACKGROUND, NAMES
from liverjax.objects.components import bounding_box
from liverjax.volume import Volume, label_voxels

#: A liver below this is doubted: the smallest drawn one has 1013 ml, what is left after large resections some 400 ml.
SMALLEST_LIVER_ML = 300.0
#: A liver above this is doubted. A healthy one has some 1500 ml, and the largest drawn one 3432 ml; polycystic ones and
#: those full of metastases can exceed it.
LARGEST_LIVER_ML = 5000.0
#: A liver that fills more of the body in the scan is doubted. Drawn ones fill 0.33 at most, in a box around the liver.
LARGEST_SHARE = 0.5
#: Lies on the scan's first or last plane more than this share of the largest section, then the liver is cut. Drawn ones
#: have 0.33 at most.
LARGEST_CUT = 0.4
#: At least this share of what the networks call liver is to hang together: 0.998 or more where the Dice is 0.8 or more.
LEAST_KEPT = 0.9
#: The least Dice that the networks are to expect; see `Prediction.expected_dice`.
LEAST_EXPECTED_DICE = 0.8


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is looked at in one prediction.

    Attributes:
      liver_ml: volume of the liver with its tumours.
      body_ml: volume of what is not air in the scan.
      right_mm: how far the liver's centre lies to the patient's right of that of the body.
      cut: the liver's area on the scan's first or last plane, as a share of its largest section along the same axis;
        the largest of the six.
      kept: share of the voxels called liver or tumour that clean-up has kept.
      expected_dice: see `Prediction.expected_dice`.
    """

    liver_ml: float
    body_ml: float
    right_mm: float
    cut: float
    kept: float
    expected_dice: float


def evidence(
    labels: Volume, found: np.ndarray, body: np.ndarray, body_affine: np.ndarray, expected_dice: float
) -> Evidence:
    """Returns what is looked at in one prediction.

    Args:
      labels: the mask, after clean-up.
      found: (x, y, z) the labels before it.
      body: (X, Y, Z) bool, what is not air, on the working grid.
      body_affine: that grid's affine, in mm.
      expected_dice: see `Prediction.expected_dice`.

    Raises:
      InputError: ``labels`` is no mask.
    """
    voxels = label_voxels(labels, range(len(NAMES)))
    box = bounding_box(voxels != BACKGROUND)
    liver = voxels[box] != BACKGROUND
    count = int(np.count_nonzero(liver))
    body_ml = np.count_nonzero(body) * abs(float(np.linalg.det(body_affine[:3, :3]))) / 1000
    right_mm = cut = 0.0
    if count:
        offset = np.array([part.start for part in box])
        right_mm = _centre(liver, offset, labels.affine)[0]
        right_mm -= _centre(body, np.zeros(3), body_affine)[0] if body.any() else right_mm
        for areas, part, size in zip(_areas(liver), box, labels.shape, strict=True):
            ends = [areas[0]] * (part.start == 0) + [areas[-1]] * (part.stop == size)
            cut = max([cut, *(float(area / areas.max()) for area in ends)])
    were = int(np.count_nonzero(found))
    kept = np.count_nonzero(found[box].astype(bool) & liver) / were if were else 1.0
    return Evidence(labels.millilitres(voxels), body_ml, float(right_mm), cut, kept, expected_dice)


def doubts(seen: Evidence) -> list[str]:
    """Returns what speaks against a mask, each in a few words with the values; nothing of a plausible one."""
    if not seen.liver_ml:
        return ["no liver is found"]
    found = []
    if seen.liver_ml < SMALLEST_LIVER_ML:
        found.append(
            f"a liver of {seen.liver_ml:.0f} ml is found, expected {SMALLEST_LIVER_ML:.0f} ml or more"
        )
    if seen.liver_ml > LARGEST_LIVER_ML:
        found.append(
            f"a liver of {seen.liver_ml:.0f} ml is found, expected at most {LARGEST_LIVER_ML:.0f} ml"
        )
    if seen.liver_ml > LARGEST_SHARE * seen.body_ml:
        share = (
            f"{seen.liver_ml / seen.body_ml:.0%} of the {seen.body_ml:.0f} ml that are not air"
            if seen.body_ml
            else "nothing but air"
        )
        found.append(f"the liver that is found fills {share}, expected at most {LARGEST_SHARE:.0%}")
    if seen.right_mm < 0:
        found.append(
            f"the liver that is found lies {-seen.right_mm:.0f} mm to the left of the body's middle, expected to the "
            "right (is the scan mirrored?)"
        )
    if seen.cut > LARGEST_CUT:
        found.append(
            f"the liver that is found is cut by the end of the scan ({seen.cut:.0%} of its largest section lie there)"
        )
    if seen.kept < LEAST_KEPT:
        found.append(
            f"only {seen.kept:.0%} of what the networks call liver is one piece, expected {LEAST_KEPT:.0%} or more"
        )
    if seen.expected_dice < LEAST_EXPECTED_DICE:
        found.append(
            f"the networks expect a Dice of {seen.expected_dice:.2f}, of ordinary scans "
            f"{LEAST_EXPECTED_DICE:.2f} or more"
        )
    return found


def _areas(mask: np.ndarray) -> list[np.ndarray]:
    """Returns the number of voxels of a mask in each plane, along each axis."""
    return [np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]


def _centre(mask: np.ndarray, offset: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Returns the centre of a mask in mm, with at least a voxel; the mask begins at the voxel ``offset``."""
    places = [np.average(np.arange(len(areas)), weights=areas) for areas in _areas(mask)]
    return affine[:3, :3] @ (offset + places) + affine[:3, 3]
