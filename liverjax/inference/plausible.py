"""What speaks against a predicted mask being a liver: volumes that no patient has."""

from __future__ import annotations

#: A liver above this is doubted. A healthy one has some 1500 ml, and the largest of 63 real scans 3432 ml; polycystic
#: ones and those full of metastases can exceed it.
LARGEST_LIVER_ML = 5000.0
#: A liver that fills more of the body in the scan is doubted. In 63 real scans it is 0.33 at most, in a box around it.
LARGEST_SHARE = 0.5


def doubts(liver_ml: float, body_ml: float) -> list[str]:
    """Returns what speaks against a mask, each in a few words with the values; nothing of a plausible one.

    Args:
      liver_ml: volume of the liver with its tumours.
      body_ml: volume of what is not air in the scan.
    """
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
