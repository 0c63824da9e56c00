"""One case as several readers have outlined it."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from liverjax.objects.components import Spacing, bounding_box
from liverjax.scans import nifti
from liverjax.scoring import consensus
from liverjax.scoring.metrics import Region, lesion_detection
from liverjax.studies.readers import Reader
from liverjax.volume import Volume


class ReadCase:
    """The masks of one case, cropped to the box that holds them and the band around them."""

    def __init__(
        self,
        id: str,
        patient: str,
        readers: Sequence[Reader],
        masks: Sequence[Volume],
        reference: Volume | None,
        band_mm: float,
    ):
        self.id, self.patient, self.readers, self._volume = id, patient, readers, masks[0]
        self.spacing: Spacing = masks[0].spacing
        self._ml = abs(float(np.linalg.det(masks[0].affine[:3, :3]))) / 1000
        union = np.logical_or.reduce([mask.voxels for mask in masks])
        if reference is not None:
            union = union | reference.voxels
        margin = np.ceil(band_mm / np.asarray(self.spacing)).astype(int) + 1
        self._box = tuple(
            slice(max((along.start or 0) - more, 0), along.stop + more)
            for along, more in zip(bounding_box(union), margin, strict=True)
        )
        self._masks = [mask.voxels[self._box] for mask in masks]
        self._reference = None if reference is None else reference.voxels[self._box]
        self._patterns = consensus.patterns(self._masks)
        near = consensus.band(self._patterns, len(masks), self.spacing, band_mm)
        self.counts = consensus.pattern_counts(self._patterns, len(masks))
        self.near = consensus.pattern_counts(self._patterns[near], len(masks))
        self.consensus = consensus.decide(self._patterns, len(masks), self.near, self.spacing)

    @property
    def _base_ml(self) -> float:
        """The volume to which errors relate: of the reference, or of the consensus."""
        base = self.consensus if self._reference is None else self._reference
        return float(np.count_nonzero(base)) * self._ml

    def _relative(self, ml: float) -> float:
        return 100 * ml / self._base_ml if self._base_ml else math.nan

    def write_maps(self, folder: pathlib.Path) -> None:
        """Writes how many readers have a voxel, and the consensus."""
        readers = len(self._masks)
        for name, values in (
            ("votes", consensus.votes(readers)[self._patterns]),
            ("consensus", self.consensus),
        ):
            whole = np.zeros(self._volume.shape, np.uint8)
            whole[self._box] = values
            nifti.write(folder / name / f"{self.id}.nii.gz", self._volume.with_voxels(whole))

    def row(self) -> dict[str, Any]:
        """Returns volumes, disagreement and agreement of voxels."""
        kappa, alpha = consensus.voxel_agreement(self.near)
        readers = len(self._masks)
        volumes = {
            reader.name: float(mask.sum() * self._ml)
            for reader, mask in zip(self.readers, self._masks, strict=True)
        }
        differences = [abs(self._relative(a - b)) for a, b in itertools.combinations(volumes.values(), 2)]
        return {
            "case": self.id,
            "patient": self.patient,
            "readers_with_mask": sum(bool(mask.any()) for mask in self._masks),
            **{f"reader_{name}_ml": volume for name, volume in volumes.items()},
            "base_ml": self._base_ml,
            "consensus_ml": float(self.consensus.sum() * self._ml),
            "majority_ml": float(self.counts[consensus.majority(readers)].sum() * self._ml),
            "disagreement_ml": float(self.counts[1:-1].sum() * self._ml),
            "kappa": kappa,
            "alpha": alpha,
            "variability_percent": float(np.mean(differences)),
        }

    def pair_rows(self) -> list[dict[str, Any]]:
        """Returns the scores of each pair of readers."""
        rows = []
        for a, b in itertools.combinations(range(len(self._masks)), 2):
            compared = Region(self._masks[a], self._masks[b], self.spacing)
            names = [self.readers[index].name for index in (a, b)]
            counts = compared.overlap
            rows.append(
                {
                    "case": self.id,
                    "patient": self.patient,
                    "a": names[0],
                    "b": names[1],
                    "modes": tuple(self.readers[index].mode for index in (a, b)),
                    **_scores(compared),
                    "rve_difference_percent": self._relative(
                        (counts.prediction - counts.reference) * self._ml
                    ),
                }
            )
        return rows

    def reader_rows(self, lesions: bool) -> list[dict[str, Any]]:
        """Returns each reader's scores against the consensus of the others, and against the reference."""
        rows, known = [], self.near.any() and len(self._masks) > 2
        performance = consensus.staple(self.near) if known else None
        for index, (reader, mask) in enumerate(zip(self.readers, self._masks, strict=True)):
            near, patterns = consensus.without(self.near, index), consensus.drop(self._patterns, index)
            others = consensus.decide(patterns, len(self._masks) - 1, near, self.spacing)
            row: dict[str, Any] = {
                "case": self.id,
                "patient": self.patient,
                "reader": reader.name,
                "mode": reader.mode,
                "volume_ml": float(mask.sum() * self._ml),
                "rve_percent": self._relative(float(mask.sum()) * self._ml - self._base_ml),
                "sensitivity": float(performance.sensitivity[index]) if performance else math.nan,
                "specificity": float(performance.specificity[index]) if performance else math.nan,
                **{
                    f"{name}_others": value
                    for name, value in _scores(Region(mask, others, self.spacing)).items()
                },
            }
            if lesions:
                found = lesion_detection(mask, others)
                row |= {
                    "lesions_others": found.references,
                    "lesions_found": found.found,
                    "lesions": found.predictions,
                    "lesions_confirmed": found.confirmed,
                }
            if self._reference is not None:
                of = _scores(Region(mask, self._reference, self.spacing))
                row |= {f"{name}_reference": value for name, value in of.items()}
            rows.append(row)
        return rows


def _scores(compared: Region) -> dict[str, float]:
    voxels = compared.voxels
    return {
        "dice": compared.overlap.dice,
        "assd": voxels.assd,
        "hd95": voxels.hd95,
        "hausdorff": voxels.hausdorff,
    }
