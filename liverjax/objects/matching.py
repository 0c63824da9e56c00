"""Which predicted lesions correspond to which lesions of the reference.

Correspondence follows the LiTS benchmark (Bilic et al. 2023, Med Image Anal 84:102680): each reference lesion belongs
to the prediction that overlaps it most; reference lesions that belong to one prediction are merged; each prediction
goes to the merged reference that it overlaps most; predictions that go to the same one are merged.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from liverjax.objects.components import Lesion, Spacing, bounding_box, label, lesions


@dataclasses.dataclass(frozen=True)
class Match:
    """Lesions that correspond, merged into one on either side; the two sides share at least one voxel.

    Attributes:
      predictions: ids of the predicted lesions.
      references: ids of the reference lesions.
      voxels_both: number of voxels in both sides.
      voxels_prediction: number of voxels of the predicted lesions.
      voxels_reference: number of voxels of the reference lesions.
    """

    predictions: tuple[int, ...]
    references: tuple[int, ...]
    voxels_both: int
    voxels_prediction: int
    voxels_reference: int

    @property
    def dice(self) -> float:
        """Dice of the two sides, in (0, 1]."""
        return 2 * self.voxels_both / (self.voxels_prediction + self.voxels_reference)

    @property
    def iou(self) -> float:
        """Intersection over union of the two sides, in (0, 1]."""
        return self.voxels_both / (self.voxels_prediction + self.voxels_reference - self.voxels_both)


@dataclasses.dataclass(frozen=True)
class Matching:
    """The lesions of a prediction and a reference.

    Attributes:
      predicted: the predicted lesions, in order of id.
      referenced: the lesions of the reference, in order of id.
      matches: those that correspond, in order of their first reference lesion.
      predicted_ids: (x, y, z) lesion ids of the prediction, cropped to the box that holds all lesions.
      referenced_ids: (x, y, z) lesion ids of the reference, cropped alike.
      corner: index of the first voxel of that box.
    """

    predicted: list[Lesion]
    referenced: list[Lesion]
    matches: list[Match]
    predicted_ids: np.ndarray
    referenced_ids: np.ndarray
    corner: tuple[int, int, int]

    def masks(self, match: Match) -> tuple[np.ndarray, np.ndarray]:
        """Returns (x, y, z) bool masks of a match's predicted and reference lesions, in the box that holds these."""
        boxes = [self.predicted[id - 1].box for id in match.predictions]
        boxes += [self.referenced[id - 1].box for id in match.references]
        joint = tuple(
            slice(min(side.start for side in along) - start, max(side.stop for side in along) - start)
            for along, start in zip(zip(*boxes, strict=True), self.corner, strict=True)
        )
        return (
            np.isin(self.predicted_ids[joint], match.predictions),
            np.isin(self.referenced_ids[joint], match.references),
        )


def match_lesions(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Matching:
    """Finds the lesions of two tumour masks (components by 6 neighbours), and which of them correspond.

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
    x, y, z = (along.start or 0 for along in box)
    predicted_ids, referenced_ids = label(prediction[box]), label(reference[box])
    shared = shared_voxels(predicted_ids, referenced_ids)
    matches = []
    for predictions, references in correspondence(shared[1:, 1:]):
        ids = [index + 1 for index in predictions], [index + 1 for index in references]
        sizes = shared[np.ix_(*ids)].sum(), shared[ids[0]].sum(), shared[:, ids[1]].sum()
        matches.append(Match(tuple(ids[0]), tuple(ids[1]), *map(int, sizes)))
    return Matching(
        predicted=lesions(predicted_ids, spacing, (x, y, z)),
        referenced=lesions(referenced_ids, spacing, (x, y, z)),
        matches=matches,
        predicted_ids=predicted_ids,
        referenced_ids=referenced_ids,
        corner=(x, y, z),
    )


def shared_voxels(predicted_ids: np.ndarray, referenced_ids: np.ndarray) -> np.ndarray:
    """Returns how many voxels each predicted and each reference lesion share.

    Args:
      predicted_ids: (x, y, z) from `label`, with ids up to n.
      referenced_ids: (x, y, z) of the same shape, with ids up to m.

    Returns:
      (n + 1, m + 1) counts by the two ids; id 0 is background.
    """
    n, m = int(predicted_ids.max(initial=0)), int(referenced_ids.max(initial=0))
    pairs = (predicted_ids * np.intp(m + 1) + referenced_ids).ravel()
    return np.bincount(pairs, minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)


def correspondence(shared: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Returns which lesions correspond.

    Args:
      shared: (n, m) number of voxels that predicted lesion i and reference lesion j share.

    Returns:
      Pairs of the indices of predicted lesions and those of reference lesions, in order of the latter. Of equal
      overlaps the first counts.
    """
    groups: dict[int, list[int]] = {}
    for reference in np.flatnonzero(shared.any(0)):
        groups.setdefault(int(shared[:, reference].argmax()), []).append(int(reference))
    merged = [shared[:, references].sum(1) for references in groups.values()]
    goes_to: dict[int, list[int]] = {}
    for prediction in np.flatnonzero(shared.any(1)):
        best = int(np.argmax([overlaps[prediction] for overlaps in merged]))
        goes_to.setdefault(best, []).append(int(prediction))
    # A prediction may own a lesion and yet go to another that it overlaps more; the first is then unmatched.
    return [(goes_to[index], group) for index, group in enumerate(groups.values()) if index in goes_to]
