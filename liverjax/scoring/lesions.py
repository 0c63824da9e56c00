"""Lesions: which predicted lesion corresponds to which lesion of the reference, and which were detected.

A lesion is a connected component of the tumour mask, by 6 neighbours. Correspondence follows the LiTS
benchmark (Bilic et al. 2023, Med Image Anal 84:102680): each reference lesion belongs to the prediction
that overlaps it most; reference lesions that belong to one prediction are merged; each prediction goes to
the merged reference that it overlaps most; predictions that go to the same one are merged. A pair is
detected if its IoU is above a threshold: 0 (any overlap) or 0.5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from liverjax.scoring.overlap import Overlap
from liverjax.scoring.surface import bounding_box

#: IoU above which a pair counts as detected.
THRESHOLDS = (0.0, 0.5)

#: Diameters in mm that divide small, medium and large; both bounds are medium.
SIZE_BOUNDS = (10.0, 20.0)


@dataclasses.dataclass(frozen=True)
class Match:
    """Lesions that correspond: of the prediction and of the reference, each side merged into one.

    Attributes:
      predictions: ids of the predicted lesions.
      references: ids of the reference lesions.
      overlap: voxel counts of the two sides.
    """

    predictions: tuple[int, ...]
    references: tuple[int, ...]
    overlap: Overlap


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One lesion, of the reference or of the prediction.

    Attributes:
      side: "reference" or "prediction".
      id: its number within its mask, from 1, in the order of the voxels.
      volume_ml: volume in millilitres.
      diameter_mm: diameter of the sphere of that volume.
      centre: mean voxel index along x, y, z.
      match: position of its match in `Lesions.matches`, or None.
      dice: Dice of its match; 0 without one.
      iou: IoU of its match; 0 without one.
    """

    side: str
    id: int
    volume_ml: float
    diameter_mm: float
    centre: tuple[float, float, float]
    match: int | None
    dice: float
    iou: float

    @property
    def size(self) -> str:
        """``small`` (below 10 mm), ``medium``, or ``large`` (above 20 mm)."""
        low, high = SIZE_BOUNDS
        return "small" if self.diameter_mm < low else "large" if self.diameter_mm > high else "medium"


@dataclasses.dataclass(frozen=True)
class Lesions:
    """The lesions of a case.

    Attributes:
      predicted: (x, y, z) lesion ids of the prediction, cropped to the box that holds all lesions.
      referenced: (x, y, z) lesion ids of the reference, cropped alike.
      matches: the lesions that correspond, in order of their first reference lesion.
      records: every lesion, those of the reference first.
    """

    predicted: np.ndarray
    referenced: np.ndarray
    matches: list[Match]
    records: list[Lesion]

    @functools.cached_property
    def _boxes(self) -> tuple[list, list]:
        return ndimage.find_objects(self.predicted), ndimage.find_objects(self.referenced)

    def masks(self, match: Match) -> tuple[np.ndarray, np.ndarray]:
        """Returns masks of a match's predicted and reference lesions, in the box that holds these."""
        predicted, referenced = self._boxes
        boxes = [predicted[id - 1] for id in match.predictions] + [
            referenced[id - 1] for id in match.references
        ]
        hull = tuple(
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*boxes, strict=True)
        )
        return (
            np.isin(self.predicted[hull], match.predictions),
            np.isin(self.referenced[hull], match.references),
        )


def find(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> Lesions:
    """Finds the lesions of two tumour masks, and which of them correspond.

    Args:
      prediction: (x, y, z); any value but 0 is tumour.
      reference: (x, y, z), of the same shape.
      spacing: voxel size in mm along x, y, z.

    Raises:
      ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, reference {reference.shape}")
    box = bounding_box((prediction != 0) | (reference != 0))
    predicted, referenced = ndimage.label(prediction[box])[0], ndimage.label(reference[box])[0]
    shared = shared_voxels(predicted, referenced)
    matches = []
    for predictions, references in correspondence(shared[1:, 1:]):
        ids = [index + 1 for index in predictions], [index + 1 for index in references]
        sizes = shared[np.ix_(*ids)].sum(), shared[ids[0]].sum(), shared[:, ids[1]].sum()
        matches.append(Match(tuple(ids[0]), tuple(ids[1]), Overlap(*map(int, sizes))))
    corner = [part.start or 0 for part in box]
    records = [
        *_records("reference", referenced, shared[:, 1:].sum(0), matches, spacing, corner),
        *_records("prediction", predicted, shared[1:].sum(1), matches, spacing, corner),
    ]
    return Lesions(predicted, referenced, matches, records)


def _records(
    side: str,
    ids: np.ndarray,
    voxels: np.ndarray,
    matches: list[Match],
    spacing: Sequence[float],
    corner: Sequence[int],
) -> list[Lesion]:
    of_match = {id: index for index, match in enumerate(matches) for id in getattr(match, f"{side}s")}
    centres = ndimage.center_of_mass(ids > 0, ids, range(1, len(voxels) + 1)) if len(voxels) else []
    records = []
    for id, (count, centre) in enumerate(zip(voxels, centres, strict=True), start=1):
        volume = float(count) * math.prod(spacing)
        match = of_match.get(id)
        found = Overlap(0, 0, 1) if match is None else matches[match].overlap
        records.append(
            Lesion(
                side=side,
                id=id,
                volume_ml=volume / 1000,
                diameter_mm=(6 * volume / math.pi) ** (1 / 3),
                centre=tuple(float(index) for index in np.add(centre, corner)),
                match=match,
                dice=found.dice,
                iou=found.iou,
            )
        )
    return records


def shared_voxels(predicted: np.ndarray, referenced: np.ndarray) -> np.ndarray:
    """Returns (n + 1, m + 1): how many voxels predicted id i and reference id j share, background 0 included."""
    n, m = int(predicted.max(initial=0)), int(referenced.max(initial=0))
    pairs = (predicted * np.intp(m + 1) + referenced).ravel()
    return np.bincount(pairs, minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)


def correspondence(shared: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Returns which lesions correspond.

    Args:
      shared: (n, m) number of voxels that predicted lesion i and reference lesion j share.

    Returns:
      Pairs of the indices of predicted lesions and those of reference lesions, in order of the latter. Of
      equal overlaps the first counts.
    """
    groups: dict[int, list[int]] = {}
    for reference in np.flatnonzero(shared.any(0)):
        groups.setdefault(int(shared[:, reference].argmax()), []).append(int(reference))
    merged = [shared[:, references].sum(1) for references in groups.values()]
    goes_to: dict[int, list[int]] = {}
    for prediction in np.flatnonzero(shared.any(1)):
        best = int(np.argmax([overlaps[prediction] for overlaps in merged]))
        goes_to.setdefault(best, []).append(int(prediction))
    # A prediction may own a lesion and yet go to another that it overlaps more; the first is then alone.
    return [(goes_to[index], group) for index, group in enumerate(groups.values()) if index in goes_to]


@dataclasses.dataclass(frozen=True)
class Detection:
    """How many lesions were detected.

    Attributes:
      references: number of reference lesions.
      found: how many of them are part of a detected match.
      predictions: number of predicted lesions.
      confirmed: how many of them are part of a detected match.
    """

    references: int
    found: int
    predictions: int
    confirmed: int

    @property
    def recall(self) -> float:
        """Share of the reference lesions that were found; NaN if there are none."""
        return self.found / self.references if self.references else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are confirmed; NaN if there are none."""
        return self.confirmed / self.predictions if self.predictions else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing was found, NaN if there are no lesions."""
        if not (self.references or self.predictions):
            return math.nan
        if not (self.found and self.confirmed):
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def detection(records: Iterable[Lesion], threshold: float) -> Detection:
    """Counts the lesions whose match has an IoU above ``threshold``: of a case, a set, or a size class."""
    hits = {"reference": [], "prediction": []}
    for record in records:
        hits[record.side].append(record.iou > threshold)
    references, predictions = hits["reference"], hits["prediction"]
    return Detection(len(references), sum(references), len(predictions), sum(predictions))
