"""The territory of the liver that microspheres reach: from a mask, or as a share of the liver."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Generic

import numpy as np

from liverjax.errors import InputError
from liverjax.labels import LIVER, TUMOR
from liverjax.planning.sirt import Number
from liverjax.planning.volumetry import WHOLE, Volumes
from liverjax.scans import nifti
from liverjax.volume import Volume, check_voxels

# Volumes that differ by less are equal: 5 % of 1500 ml are half of 150 ml.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Territory(Generic[Number]):
    """Volumes in ml, as numbers or as arrays of samples.

    Attributes:
      name: of the territory.
      liver_ml: perfused liver, with its tumours.
      tumor_ml: tumours in it.
      whole_liver_ml: all of the liver, with its tumours.
      whole_tumor_ml: all tumours.
      notes: what a reader should know.
    """

    name: str
    liver_ml: Number
    tumor_ml: Number
    whole_liver_ml: Number
    whole_tumor_ml: Number
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the liver."""
        return bool(np.all(self.liver_ml == self.whole_liver_ml))


def scaled(
    territory: Territory[float], liver: np.ndarray | float, tumor: np.ndarray | float
) -> Territory[np.ndarray]:
    """Returns a territory with its volumes multiplied by factors (n,); tumours are at most the liver."""
    liver_ml, whole = np.asarray(territory.liver_ml * liver), np.asarray(territory.whole_liver_ml * liver)
    return Territory(
        territory.name,
        liver_ml,
        np.minimum(territory.tumor_ml * tumor, liver_ml),
        whole,
        np.minimum(territory.whole_tumor_ml * tumor, whole),
    )


def perfused(
    volumes: Volumes,
    mask: Volume | None = None,
    share: float | None = None,
    tumor_share: float | None = None,
) -> Territory[float]:
    """Returns what is perfused of a liver: all of it, if nothing else is stated.

    Args:
      volumes: of the liver.
      mask: (x, y, z) on the same voxels, any value but 0 is perfused; what lies outside the liver is left out.
      share: of the liver with its tumours that is perfused, in (0, 1].
      tumor_share: of the tumours that is perfused, in [0, 1]; only with ``share``, and all of them by default.

    Raises:
      InputError: mask and share are both given, the mask lies on other voxels or outside the liver, a share is out of
        its range, or more tumour is perfused than liver.
    """
    voxel_ml, whole = volumes.voxel_ml, volumes.whole
    all_ml = whole.liver * voxel_ml, whole.tumor * voxel_ml
    if mask is not None and share is not None:
        raise InputError(f"{mask.name} and a perfused share of {share:g}, expected a mask or a share")
    if tumor_share is not None and share is None:
        raise InputError(f"perfused_tumor_share is {tumor_share:g} without perfused_share, expected both")
    if mask is not None:
        check_voxels(mask)
        nifti.require_same_geometry(mask, volumes.mask)
        inside = mask.voxels != 0
        ids = volumes.mask.voxels[inside]
        tumor = int(np.count_nonzero(ids == TUMOR))
        liver = int(np.count_nonzero(ids == LIVER)) + tumor
        if not liver:
            raise InputError(
                f"{mask.name}: the territory lies outside the liver of {volumes.mask.name}: {ids.size} voxels, none of "
                "them liver"
            )
        outside = (ids.size - liver) * voxel_ml
        notes = (
            (f"{outside:.1f} ml of the territory lie outside the liver and are left out",) if outside else ()
        )
        return Territory(pathlib.Path(mask.name).name, liver * voxel_ml, tumor * voxel_ml, *all_ml, notes)
    if share is None:
        return Territory(WHOLE, *all_ml, *all_ml)
    if not 0 < share <= 1:
        raise InputError(f"perfused_share is {share:g}, expected above 0 and at most 1")
    of_tumor = 1.0 if tumor_share is None else tumor_share
    if not 0 <= of_tumor <= 1:
        raise InputError(f"perfused_tumor_share is {of_tumor:g}, expected 0 to 1")
    liver_ml, tumor_ml = share * all_ml[0], of_tumor * all_ml[1]
    if tumor_ml > liver_ml * (1 + _ROUNDING):
        raise InputError(
            f"{tumor_ml:.1f} ml of tumour are perfused, more than the {liver_ml:.1f} ml of liver, expected a larger "
            "perfused_share, or the share of the tumours in it as perfused_tumor_share"
        )
    stated = "" if not all_ml[1] else f" and {100 * of_tumor:g} % of its tumours"
    return Territory(f"{100 * share:g} % of the liver{stated}", liver_ml, min(tumor_ml, liver_ml), *all_ml)
