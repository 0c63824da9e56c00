"""Every metric of a pair of masks: as a function of two arrays, and by name.

A is the prediction and B the reference, S(.) their surface voxels: those with background among their 18 neighbours
(face or edge). Masks are (x, y, z) arrays of one shape; any value but 0 is in the mask, and outside the array is
background. Spacings are voxel sizes in mm along x, y, z. Where a value is not defined it is NaN, never a flattering 1.
docs/metrics.md lists the outside tools that give the same values.

Functions raise ValueError if the shapes differ, or the spacing is not three sizes above 0.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import edt
import numpy as np

from liverjax.errors import InputError, did_you_mean
from liverjax.objects.components import Spacing
from liverjax.objects.matching import match_lesions
from liverjax.scoring import lits, miccai, overlap, surface


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the Dice coefficient 2|A∩B| / (|A|+|B|), in [0, 1] (Dice 1945).

    Both masks empty: NaN; one empty: 0.

    >>> dice(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 0]))
    0.8
    """
    return overlap.count(prediction, reference).dice


def iou(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the Jaccard index |A∩B| / |A∪B|, in [0, 1].

    Both masks empty: NaN; one empty: 0.

    >>> iou(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1]))
    0.5
    """
    return overlap.count(prediction, reference).iou


def voe(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the volumetric overlap error 100 (1 - |A∩B|/|A∪B|) in percent (Heimann et al. 2009).

    Both masks empty: NaN; one empty: 100.

    >>> voe(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1]))
    50.0
    """
    return overlap.count(prediction, reference).voe


def rvd(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the relative volume difference 100 (|A|-|B|)/|B| in percent, with its sign (Heimann et al. 2009).

    Both masks empty: NaN; the reference alone: infinite; the prediction alone: -100.

    >>> rvd(np.array([1, 0, 0, 0]), np.array([0, 0, 1, 1]))
    -50.0
    """
    return overlap.count(prediction, reference).rvd


def assd(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the average symmetric surface distance (Σ d(a, S(B)) + Σ d(b, S(A))) / (|S(A)|+|S(B)|) in mm.

    d is the distance to the nearest voxel of the other surface (Heimann et al. 2009). Both masks empty: NaN; one
    empty: infinite.

    >>> row = np.array([1, 1, 0, 0]).reshape(-1, 1, 1)
    >>> assd(row, np.roll(row, 2), spacing=(2, 1, 1))
    3.0
    """
    return surface.between_voxels(prediction, reference, spacing).assd


def rmsd(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the root mean square symmetric surface distance √((Σ d² + Σ d²) / (|S(A)|+|S(B)|)) in mm.

    As `assd`, of the squared distances (Heimann et al. 2009). Both masks empty: NaN; one empty: infinite.

    >>> row = np.array([1, 1, 0, 0]).reshape(-1, 1, 1)
    >>> round(rmsd(row, np.roll(row, 2), spacing=(2, 1, 1)), 3)
    3.162
    """
    return surface.between_voxels(prediction, reference, spacing).rmsd


def hausdorff(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the Hausdorff distance in mm: the largest distance from either surface to the other.

    SLIVER07's "maximum symmetric surface distance" (Heimann et al. 2009). Both masks empty: NaN; one empty: infinite.

    >>> row = np.array([1, 1, 0, 0]).reshape(-1, 1, 1)
    >>> hausdorff(row, np.roll(row, 2), spacing=(2, 1, 1))
    4.0
    """
    return surface.between_voxels(prediction, reference, spacing).hausdorff


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the 95th percentile (linear interpolation) of the distances from both surfaces as one list, in mm.

    `hd95_max_of_directed` and `hd95_area_weighted` are other definitions in use. Both masks empty: NaN; one empty:
    infinite.

    >>> one, two = np.zeros((2, 11, 1, 1))
    >>> one[0] = two[0] = two[10] = 1
    >>> hd95(one, two, spacing=(1, 1, 1))  # of 0, 0, 10
    9.0
    """
    return surface.between_voxels(prediction, reference, spacing).hd95


def hd95_max_of_directed(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the larger of the two surfaces' 95th percentiles (linear interpolation) of distances, in mm.

    Both masks empty: NaN; one empty: infinite.

    >>> one, two = np.zeros((2, 11, 1, 1))
    >>> one[0] = two[0] = two[10] = 1
    >>> hd95_max_of_directed(one, two, spacing=(1, 1, 1))  # of 0 and of 0, 10
    9.5
    """
    return surface.between_voxels(prediction, reference, spacing).hd95_max_of_directed


def hd95_area_weighted(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the larger of the distances in mm within which 95 % of a surface's area lies.

    Surfaces are triangulated (Nikolov et al. 2021). Both masks empty: NaN; one empty: infinite.

    >>> voxel = np.array([1, 0]).reshape(-1, 1, 1)
    >>> hd95_area_weighted(voxel, np.roll(voxel, 1), spacing=(2, 1, 1))
    2.0
    """
    return surface.between_elements(prediction, reference, spacing).hd95_area_weighted


def nsd(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, tolerance_mm: float = 2.0) -> float:
    """Returns the normalised surface distance: the share, in [0, 1], of both surfaces' area within a tolerance.

    Surfaces are triangulated (Nikolov et al. 2021, JMIR 23:e26151). Both masks empty: NaN; one empty: 0.

    Args:
      prediction: (x, y, z).
      reference: (x, y, z).
      spacing: voxel size in mm.
      tolerance_mm: the largest distance to the other surface, in mm, that counts as agreement.

    >>> voxel = np.array([1, 0]).reshape(-1, 1, 1)
    >>> nsd(voxel, np.roll(voxel, 1), spacing=(2, 1, 1), tolerance_mm=1)
    0.5
    """
    return surface.between_elements(prediction, reference, spacing).nsd(tolerance_mm)


def miccai_score(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Returns the MICCAI score of a liver, 0 to 100 points (Heimann et al. 2009; see `liverjax.scoring.miccai`).

    Both masks empty: NaN; one empty: 0.

    >>> liver = np.ones((4, 4, 4))
    >>> miccai_score(liver, liver, spacing=(1, 1, 1))
    100.0
    """
    return Region(prediction, reference, spacing).miccai


def lesion_detection(prediction: np.ndarray, reference: np.ndarray, iou_above: float = 0.0) -> lits.Detection:
    """Counts detected lesions, as the LiTS benchmark does (Bilic et al. 2023, Med Image Anal 84:102680).

    Lesions are components by 6 neighbours; `liverjax.objects.matching` says which correspond.

    Args:
      prediction: (x, y, z) tumour mask.
      reference: (x, y, z) tumour mask.
      iou_above: a pair is detected if its IoU is above this; 0 takes any overlap.

    Returns:
      The counts, with ``recall``, ``precision`` and ``f1``; NaN where there are no lesions to count.

    >>> predicted, lesions = (np.array(row).reshape(-1, 1, 1) for row in ([1, 1, 0, 0, 0], [1, 1, 0, 0, 1]))
    >>> found = lesion_detection(predicted, lesions)
    >>> found.recall, found.precision
    (0.5, 1.0)
    """
    return lits.detection(lits.scored_lesions(match_lesions(prediction, reference, (1, 1, 1))), iou_above)


class Region:
    """A region's prediction and reference; what its metrics share is computed once, when it is first used.

    Attributes:
      overlap: voxel counts.
      voxel_ml: volume of a voxel in ml.
    """

    def __init__(self, prediction: np.ndarray, reference: np.ndarray, spacing: Spacing):
        self._masks = prediction, reference, spacing
        self.overlap = overlap.count(prediction, reference)
        self.voxel_ml = float(np.prod(spacing)) / 1000

    @functools.cached_property
    def voxels(self) -> surface.VoxelDistances:
        """Distances between the surface voxels."""
        return surface.between_voxels(*self._masks)

    @functools.cached_property
    def elements(self) -> surface.ElementDistances:
        """Distances between the surface elements."""
        return surface.between_elements(*self._masks)

    def false_ml(self, beyond_mm: float) -> float:
        """Returns the volume of the prediction, in ml, that lies further than ``beyond_mm`` from the reference.

        From centre to centre of voxels; all of the prediction if there is no reference. What is left of false volume
        without the rim, on whose place people do not agree either: pieces in other organs, above and below the liver.
        """
        prediction, reference, spacing = self._masks
        elsewhere = np.asarray(reference) == 0
        distance = edt.edt(elsewhere.astype(np.uint8), anisotropy=tuple(spacing))
        far = (distance > beyond_mm) | elsewhere.all()
        return float(np.count_nonzero((np.asarray(prediction) != 0) & far) * self.voxel_ml)

    @property
    def miccai(self) -> float:
        """The MICCAI score."""
        return miccai.score({name: METRICS[name](self) for name in miccai.REFERENCES})

    @property
    def state(self) -> str:
        """Which of the masks is empty: "both empty", "prediction empty", "reference empty" or ""."""
        empty = self.overlap.prediction == 0, self.overlap.reference == 0
        return {
            (True, True): "both empty",
            (True, False): "prediction empty",
            (False, True): "reference empty",
        }.get(empty, "")


#: Metrics of a region by name. Dice, IoU and NSD are shares, VOE and RVD percent, MICCAI points of 100, distances mm,
#: volumes ml. `metric` also takes ``nsd_5mm``, ``false_20mm_ml`` and other distances.
METRICS: dict[str, Callable[[Region], float]] = {
    "dice": lambda region: region.overlap.dice,
    "iou": lambda region: region.overlap.iou,
    "voe": lambda region: region.overlap.voe,
    "rvd": lambda region: region.overlap.rvd,
    "assd": lambda region: region.voxels.assd,
    "rmsd": lambda region: region.voxels.rmsd,
    "hausdorff": lambda region: region.voxels.hausdorff,
    "hd95": lambda region: region.voxels.hd95,
    "hd95_max_of_directed": lambda region: region.voxels.hd95_max_of_directed,
    "hd95_area_weighted": lambda region: region.elements.hd95_area_weighted,
    "nsd_2mm": lambda region: region.elements.nsd(2.0),
    "miccai": lambda region: region.miccai,
    "prediction_ml": lambda region: region.overlap.prediction * region.voxel_ml,
    "reference_ml": lambda region: region.overlap.reference * region.voxel_ml,
    "false_10mm_ml": lambda region: region.false_ml(10.0),
}


def metric(name: str) -> Callable[[Region], float]:
    """Returns the metric of that name.

    Raises:
      InputError: there is none.
    """
    tolerance = re.fullmatch(r"(nsd|false)_(\d+(?:\.\d+)?)mm(_ml)?", name)
    if tolerance and (tolerance[1] == "false") == bool(tolerance[3]):
        mm = float(tolerance[2])
        return lambda region: region.false_ml(mm) if tolerance[3] else region.elements.nsd(mm)
    if name == "msd":
        raise InputError(
            "metric 'msd' has two meanings; expected 'hausdorff' (SLIVER's maximum surface distance) or 'assd' (the "
            "mean surface distance)"
        )
    if name not in METRICS:
        raise InputError(f"metric {name!r} does not exist{did_you_mean(name, METRICS)}")
    return METRICS[name]


def is_tested(name: str) -> bool:
    """Returns whether two methods are compared by that metric: the better one is known, unlike for volumes."""
    return not name.endswith("_ml")
