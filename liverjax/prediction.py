"""What a model finds in a scan: labels, probabilities, uncertainty; and the protocol of models. No jax."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import nibabel as nib
import numpy as np

from liverjax.labels import BACKGROUND, LIVER, TUMOR
from liverjax.scans.grid import Grid, probabilities_on_scan
from liverjax.scans.images import Scan, to_nibabel, to_simpleitk
from liverjax.scans.write import write_labels
from liverjax.volume import Volume

#: Area in mm2 that counts as right in every slice: slices with next to no liver have a high quality.
_NEGLIGIBLE_AREA = 100.0
# Maps that are written are rounded to multiples of this: they compress to a fraction, and are not more precise.
_MAP_STEP = np.float32(2**-10)


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Maps over the working grid, as shares of the greatest possible entropy: 0 is sure, 1 is at a loss.

    Attributes:
      entropy: (X, Y, Z) float32, of the plain mean of the softmax maps.
      mutual_information: (X, Y, Z) float32, the part of the entropy that is disagreement between the maps (of the
        views, of their members, and of the draws of dropout), not uncertainty within each of them (Gal 2017).
    """

    entropy: np.ndarray = dataclasses.field(repr=False)
    mutual_information: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class FoundLesion:
    """A tumour of a mask, or a candidate that the lesion filter dropped.

    Attributes:
      ml: volume in the mask; 0 of one that was dropped.
      candidate_ml: volume of the candidate, with the voxels of a lower probability; that in the mask without a filter.
      diameter_mm: diameter of the sphere of the volume ``candidate_ml``.
      centre_mm: mean place of its voxels, RAS+ in mm.
      probability: to be a tumour, by the lesion filter; None without one.
    """

    ml: float
    candidate_ml: float
    diameter_mm: float
    centre_mm: tuple[float, float, float]
    probability: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is in the mask."""
        return self.ml > 0


@dataclasses.dataclass(frozen=True)
class Tumors:
    """What the tumour networks of a cascade find in the box around the liver.

    Attributes:
      probability: (X, Y, Z) float32 on ``grid``, of tumour, 0 beyond the dilated liver.
      grid: the box of the tumour networks' working grid.
      views: for each view likewise the mean of its softmax maps, if they were asked for.
      lesions: those of the mask, and candidates that were dropped.
    """

    probability: np.ndarray = dataclasses.field(repr=False)
    grid: Grid = dataclasses.field(repr=False)
    views: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    lesions: tuple[FoundLesion, ...] = ()


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model finds in one scan.

    Attributes:
      labels: uint8 mask (0 background, 1 liver, 2 tumour), voxel on voxel with the scan.
      scan: the scan as it was read.
      grid_probabilities: (X, Y, Z, C) float32, the fusion on the working grid from which the labels were decided.
      grid: the working grid.
      uncertainty: maps on the working grid, if they were asked for.
      other_mean: (X, Y, Z, C) float32, the plain mean of the softmax maps, if ``grid_probabilities`` are not that.
      seconds: wall time of the stages "read", "resample", "network", "back".
      doubts: what speaks against the scan's intensities and against the liver that was found, each in a few words.
      tumors: of a cascade, what its tumour networks found; None if no liver was found, or of a single model. The other
        fields are then on the working grid of the liver's networks, and combine both (`inference.cascade`).
    """

    labels: Volume
    scan: Volume
    grid_probabilities: np.ndarray
    grid: Grid
    uncertainty: Uncertainty | None = None
    other_mean: np.ndarray | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    tumors: Tumors | None = None

    def __repr__(self) -> str:
        found = ", ".join(f"{region} {ml:.4g} ml" for region, ml in self.volumes().items())
        doubts = f"; {len(self.doubts)} doubts, such as {self.doubts[0]!r}" if self.doubts else ""
        return f"Prediction({found}; expected Dice {self.expected_dice():.2f}{doubts})\n  of {self.scan!r}"

    def probabilities(self) -> np.ndarray:
        """Returns the class probabilities (x, y, z, C) float32, voxel on voxel with the scan."""
        if self.tumors is None:
            return probabilities_on_scan(self.grid_probabilities, self.grid, self.scan)
        return np.stack([self.probability(label) for label in (BACKGROUND, LIVER, TUMOR)], -1)

    def probability(self, label: int) -> np.ndarray:
        """Returns the probability (x, y, z) float32 of one class, voxel on voxel with the scan.

        Of a cascade that of tumour is as fine as its tumour networks' grid; liver is what foreground is left beside it.
        """
        if self.tumors is None:
            return self.on_scan(self.grid_probabilities[..., label]).voxels
        tumor = probabilities_on_scan(self.tumors.probability[..., None], self.tumors.grid, self.scan)[..., 0]
        if label == TUMOR:
            return tumor
        background = np.minimum(self.on_scan(self.grid_probabilities[..., BACKGROUND]).voxels, 1 - tumor)
        return background if label == BACKGROUND else np.maximum(1 - background - tumor, 0)

    def tumor_maps(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the name of each view and its tumour probability (x, y, z) float32, of a cascade that was asked."""
        if self.tumors is not None:
            for view, values in self.tumors.views.items():
                yield view, probabilities_on_scan(values[..., None], self.tumors.grid, self.scan)[..., 0]

    def on_scan(self, values: np.ndarray) -> Volume:
        """Returns a map (X, Y, Z) on the working grid, such as one of `uncertainty`, voxel on voxel with the scan."""
        return self.scan.with_voxels(probabilities_on_scan(values[..., None], self.grid, self.scan)[..., 0])

    def volumes(self) -> dict[str, float]:
        """Returns the volume in ml of the liver with its tumours and, if the network has the class, of the tumours."""
        return self.labels.region_millilitres(self.grid_probabilities.shape[-1])

    def save(self, path: str | os.PathLike, format: str = "nifti", algorithm: str = "liverjax") -> None:
        """Writes the mask, atomically: as NIfTI, or as a DICOM object that refers to the series of the scan.

        Args:
          path: ends in `.nii` or `.nii.gz`, or in `.dcm`.
          format: "nifti", "dicom-seg" or "rtstruct".
          algorithm: what made the mask, as DICOM objects state.

        Raises:
          InputError: as `scans.write.write_labels`.
        """
        classes = self.grid_probabilities.shape[-1]
        write_labels(path, self.labels, format=format, classes=classes, algorithm=algorithm)

    def to_nibabel(self) -> nib.Nifti1Image:
        """Returns the mask as an image of nibabel, with the geometry fields of the scan's header."""
        return to_nibabel(self.labels)

    def to_simpleitk(self) -> Any:
        """Returns the mask as an image of SimpleITK, voxel on voxel with the scan.

        Raises:
          InputError: SimpleITK is not installed.
        """
        return to_simpleitk(self.labels)

    def show(self, reference: Volume | None = None, height: int = 480) -> Any:
        """Returns a widget for a notebook to display: three planes and a rendering, with the mask and its uncertainty.

        Args:
          reference: a mask by a reader, voxel on voxel with the scan, that is shown beside the prediction.
          height: in pixels.

        Raises:
          InputError: ipyniivue is not installed, or the reference does not lie on the scan.
        """
        from liverjax.viewer.notebook import widget
        from liverjax.viewer.study import Study

        doubt = None if self.uncertainty is None else self.on_scan(self.uncertainty.entropy)
        known = None if reference is None else lambda: reference
        return widget(Study(self.scan.name, self.scan, {"prediction": self.labels}, known, doubt), height)

    def expected_dice(self) -> float:
        """Returns the Dice of the liver, tumours included, that the networks expect of their own mask.

        With p the probability of liver or tumour by the plain mean of the softmax maps on the working grid, and M the
        voxels where it is 1/2 or more, before any clean-up::

            expected Dice = 2 sum_M p / (|M| + sum p)

        which is the Dice of M with a reference that is drawn from p, numerator and denominator each by its expectation.
        Below 0.8 the mask is doubted; 0 where M is empty.
        """
        mean = self.grid_probabilities if self.other_mean is None else self.other_mean
        liver = np.clip(1 - mean[..., BACKGROUND], 0, 1)
        mask = liver >= 0.5
        shared = liver.sum(dtype=np.float64, where=mask)
        return float(2 * shared / max(np.count_nonzero(mask) + liver.sum(dtype=np.float64), 1.0))

    def slice_quality(self) -> np.ndarray:
        """Returns for each axial slice of the scan the Dice of the liver, tumours included, that the networks expect.

        With M the mask in `labels`, p the probability of liver or tumour by the plain mean of the softmax maps on the
        scan's voxels, both summed over the slice in mm2, and s = 1 cm2::

            quality = (2 sum_M p + s) / (|M| + sum p + s)

        which is the Dice of M with a reference that is drawn from p, numerator and denominator each by its expectation.
        s keeps slices out of the way in which there is next to no liver.

        Returns:
          (n,) float64 in [0, 1], along the scan's axis nearest to superior, in the order of its voxels.
        """
        mean = self.grid_probabilities if self.other_mean is None else self.other_mean
        liver = np.clip(self.on_scan(1 - mean[..., BACKGROUND]).voxels, 0, 1)
        mask = self.labels.voxels != BACKGROUND
        axis = nib.orientations.io_orientation(self.scan.affine)[:, 0].tolist().index(2)
        others = tuple({0, 1, 2} - {axis})
        pixel = np.delete(self.scan.spacing, axis).prod()
        shared = pixel * liver.sum(others, dtype=np.float64, where=mask)
        both = pixel * (np.count_nonzero(mask, axis=others) + liver.sum(others, dtype=np.float64))
        return (2 * shared + _NEGLIGIBLE_AREA) / (both + _NEGLIGIBLE_AREA)


def rounded(values: np.ndarray) -> np.ndarray:
    """Returns a probability map as it is written: float32 multiples of 1/1024."""
    return np.round(values / _MAP_STEP) * _MAP_STEP


@runtime_checkable
class Predictor(Protocol):
    """A model that segments scans, in one stage or in several."""

    def predict(self, scan: Scan, affine: Any = None) -> Prediction:
        """Segments one scan: a path, or what `liverjax.scans.as_volume` makes a volume of."""
        ...
