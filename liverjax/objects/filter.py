"""The lesion filter: a forest that tells true tumour candidates from false ones, with its operating point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from liverjax.errors import ConfigError, InputError
from liverjax.objects.candidates import CandidateOptions, Candidates, find_candidates
from liverjax.objects.features import measure
from liverjax.objects.forest import Forest


@dataclasses.dataclass(frozen=True)
class Filtered:
    """What a filter says of the candidates of a scan.

    Attributes:
      candidates: where they are.
      probabilities: (n,) float64, of each to be a tumour.
      kept: (n,) bool, those that are kept.
    """

    candidates: Candidates
    probabilities: np.ndarray
    kept: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(x, y, z) bool on the scan's voxels: all voxels of the candidates that are kept."""
        return self.candidates.mask(self.kept)


@dataclasses.dataclass(frozen=True)
class LesionFilter:
    """A forest, what it was grown for, and the operating point.

    Attributes:
      forest: with the names of its features.
      lesion_probability: candidates with at least this probability are kept.
      candidates: what a candidate is.
      views: names of the views whose maps the features need; empty if they need none.
      facts: what is known of the training: counts, importance, figures. No case ids, no paths.
    """

    forest: Forest
    lesion_probability: float
    candidates: CandidateOptions = CandidateOptions()  # noqa: RUF009  (frozen)
    views: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_probability(self.lesion_probability)

    def apply(
        self,
        scan: np.ndarray,
        liver: np.ndarray,
        probability: np.ndarray,
        affine: np.ndarray,
        *,
        views: Mapping[str, np.ndarray] | None = None,
        lesion_probability: float | None = None,
    ) -> Filtered:
        """Finds the tumour candidates of a scan, and says which are to be kept.

        Args:
          scan: (x, y, z) intensities, as stored (HU in CT).
          liver: (x, y, z), any value but 0 is liver or tumour.
          probability: (x, y, z) of tumour.
          affine: (4, 4), voxel indices to RAS+ mm.
          views: the tumour probability of each view, (x, y, z); needed if `views` of the filter names some.
          lesion_probability: another operating point, 0 to 1; 0 keeps every candidate.

        Raises:
          ConfigError: the operating point is not within 0 to 1.
          InputError: shapes differ, a view is missing, or values are not finite.
        """
        least = self.lesion_probability if lesion_probability is None else lesion_probability
        _check_probability(least)
        given = views or {}
        missing = [view for view in self.views if view not in given]
        if missing:
            raise InputError(
                f"the lesion filter needs the tumour probability of the {missing[0]} view, given were "
                f"{', '.join(given) or 'none'}; give all of {', '.join(self.views)}, or a filter trained without views"
            )
        candidates = find_candidates(probability, liver, affine, self.candidates)
        features = measure(candidates, scan, probability, {view: given[view] for view in self.views})
        probabilities = self.forest.probabilities(features)
        return Filtered(candidates, probabilities, probabilities >= least)


def _check_probability(value: float) -> None:
    if not 0 <= value <= 1:  # False for NaN as well.
        raise ConfigError(f"lesion_probability is {value}, expected 0 to 1")
