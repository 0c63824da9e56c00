"""What speaks against a predicted mask being a liver: volumes that no patient has."""

from __future__ import annotations

import numpy as np

from liverjax.labels import BACKGROUND
from liverjax.volume import Volume

#: A liver above this is doubted: a healthy one has some 1500 ml, and a polycystic one counts as severe above 3200 ml
#: per metre of height (Kim 2015), which few exceed.
LARGEST_LIVER_ML = 5000.0
#: A liver that fills more of the body in the scan is doubted. In 63 real scans it is 0.33 at most, in a box around it.
LARGEST_SHARE = 0.5


def doubts(labels: Volume, body_ml: float) -> list[str]:
    """Returns what speaks against a mask, each in a few words with the values; nothing of a plausible one.

    Args:
      labels: (x, y, z) label ids.
      body_ml: volume of what is not air in the scan.
    """
    liver_ml = labels.millilitres(np.asarray(labels.voxels) != BACKGROUND)
    if not liver_ml:
        return ["no liver is found"]
    found = []
    if liver_ml > LARGEST_LIVER_ML:
        found.append(f"a liver of {liver_ml:.0f} ml is found, expected at most {LARGEST_LIVER_ML:.0f} ml")
    if liver_ml > LARGEST_SHARE * body_ml:
        share = (
            f"{liver_ml / body_ml:.0%} of the {body_ml:.0f} ml that are not air"
            if body_ml
            else "nothing but air"
        )
        found.append(f"the liver that is found fills {share}, expected at most {LARGEST_SHARE:.0%}")
    return found
