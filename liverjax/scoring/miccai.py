"""The MICCAI score of liver segmentations, 0 to 100, of the SLIVER07 challenge.

Each of five metrics earns max(0, 100 - 25 |value| / reference) points, where the reference is the error of a trained
human against an expert: such a human gets 75. A case's score is the mean of the five, a method's the mean over cases.
Heimann et al. 2009 (IEEE TMI 28:1251), who call the Hausdorff distance MSD. A known public implementation exchanges
the references of VOE and RVD and leaves the root out of RMSD; this one does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: The error that costs 25 points: VOE and RVD in percent, the distances (18 neighbours) in mm.
REFERENCES = {"voe": 6.4, "rvd": 4.7, "assd": 1.0, "rmsd": 1.8, "hausdorff": 19.0}


def points(metric: str, value: float) -> float:
    """Returns the points, 0 to 100, of one of `REFERENCES`; 0 for an infinite value, NaN for NaN."""
    if math.isnan(value):
        return math.nan
    return max(0.0, 100 - 25 * abs(value) / REFERENCES[metric])


def score(values: Mapping[str, float]) -> float:
    """Returns the MICCAI score of a case, 0 to 100, from its five metrics by name.

    One mask empty: 0, for every metric is then at its worst. Both empty: NaN.
    """
    return math.fsum(points(metric, values[metric]) for metric in REFERENCES) / len(REFERENCES)
