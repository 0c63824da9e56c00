"""Label ids of every mask file that the library reads or writes, the regions that are scored, and the decision.

Regions are nested: tumour is a part of the liver.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

BACKGROUND = 0
LIVER = 1
TUMOR = 2

#: Name of each label id, in order of id.
NAMES = ("background", "liver", "tumor")

#: Label ids that make up each scored region.
REGIONS = {"liver": (LIVER, TUMOR), "tumor": (TUMOR,)}

#: Rules of `decide`.
DECISIONS = ("nested", "argmax")


def decide(classes: Iterable[Any], rule: str = "nested") -> Any:
    """Returns the label of each voxel from the probabilities of its classes.

    "nested" follows the nesting of the regions: liver with its tumours against background first, then tumour against
    liver. P(background) = 0.4, P(liver) = 0.35 and P(tumour) = 0.25 give liver; "argmax" gives background. For two
    classes both rules are the same. The lower label wins a tie.

    Args:
      classes: the probability maps of background, liver and, if the network has the class, tumour: NumPy or JAX arrays
        of one shape, or any common multiple of them.
      rule: one of `DECISIONS`.

    Returns:
      uint8 array of that shape.
    """
    background, liver, *tumor = classes
    if not tumor:
        return (liver > background).astype("uint8")
    (tumor,) = tumor
    foreground = liver + tumor if rule == "nested" else (liver > tumor) * liver + (tumor >= liver) * tumor
    return (foreground > background) * (LIVER + (tumor > liver)).astype("uint8")
