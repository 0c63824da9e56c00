"""Rules of response: RECIST 1.1, mRECIST and WHO, each as a pure function of numbers.

What may be measured, which lesions are targets, what sums of diameters mean, and what the patient's response is.
`liverjax.planning.course` applies them to the lesions of a patient. Sources of every rule: docs/planning.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from liverjax.errors import InputError

#: Response of the target lesions; NE is not evaluable, "" is none, as there are no target lesions.
Target = Literal["CR", "PR", "SD", "PD", "NE", ""]
#: Response of the lesions that are not targets; "" is none, as there are no such lesions.
NonTarget = Literal["CR", "non-CR/non-PD", "PD", "NE", ""]
#: Response of a patient at a time point.
Overall = Literal["CR", "PR", "SD", "PD", "NE", "non-CR/non-PD", ""]

#: Smallest longest diameter in mm of a measurable lesion, and the slice distance in mm above which two slices count.
MEASURABLE_MM, THICK_SLICE_MM = 10.0, 5.0
#: What a lesion that is too small to measure counts, in mm.
TOO_SMALL_MM = 5.0
#: Most target lesions of one organ.
MOST_TARGETS = 2
#: A diameter is reproducible if the next slice has at least this share of it.
_REPRODUCIBLE = 0.8
#: Sums that differ by less, in mm or as a share, are equal: 70 % of 30 mm is 21 mm.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Criteria:
    """Thresholds of the response of target lesions.

    Attributes:
      name: what they are called.
      decrease: share by which the sum must be below the baseline for a partial response.
      increase: share by which it must be above the nadir for progression.
      increase_mm: and by how many mm.
    """

    name: str
    decrease: float
    increase: float
    increase_mm: float


RECIST = Criteria("RECIST 1.1", decrease=0.30, increase=0.20, increase_mm=5.0)
MRECIST = Criteria("mRECIST", decrease=0.30, increase=0.20, increase_mm=0.0)
WHO = Criteria("WHO", decrease=0.50, increase=0.25, increase_mm=0.0)


# --- one lesion ---------------------------------------------------------------------------------------------


def smallest_measurable(slice_mm: float) -> float:
    """Returns the smallest longest diameter in mm that is measurable: 10, or two slices where they exceed 5 mm."""
    return max(MEASURABLE_MM, 2 * slice_mm) if slice_mm > THICK_SLICE_MM else MEASURABLE_MM


def measurable(longest_mm: float, slice_mm: float) -> bool:
    """Returns whether a lesion of a scan with slices ``slice_mm`` apart can be measured reproducibly."""
    return longest_mm >= smallest_measurable(slice_mm) * (1 - ROUNDING)


def counted(mm: float, too_small_mm: float = TOO_SMALL_MM) -> float:
    """Returns what the diameter of a lesion that is there counts: at least ``too_small_mm``."""
    return max(mm, too_small_mm)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A lesion at baseline that may become a target.

    Attributes:
      number: of the lesion.
      longest_mm: its diameter.
      slice_mm: distance between slices.
      next_mm: its diameter in the next slice, NaN if that is not known.
      cut: it reaches the border of the scan.
    """

    number: int
    longest_mm: float
    slice_mm: float
    next_mm: float = math.nan
    cut: bool = False

    @property
    def reproducible(self) -> bool:
        """Whether it lies in the scan, and the next slice would give a diameter that is at most a fifth smaller."""
        return not self.cut and not self.next_mm < _REPRODUCIBLE * self.longest_mm


def propose_targets(candidates: Iterable[Candidate], most: int = MOST_TARGETS) -> tuple[int, ...]:
    """Returns the numbers of the proposed target lesions: measurable, reproducible ones first, then the largest.

    Of equal ones the lower number. None if no lesion is measurable.
    """
    able = [c for c in candidates if measurable(c.longest_mm, c.slice_mm)]
    able.sort(key=lambda c: (not c.reproducible, -c.longest_mm, c.number))
    return tuple(sorted(c.number for c in able[:most]))


def check_targets(
    chosen: Sequence[int], candidates: Iterable[Candidate], most: int = MOST_TARGETS
) -> tuple[int, ...]:
    """Returns chosen target lesions, in order.

    Raises:
      InputError: a lesion is not there, not measurable or named twice, or there are more than ``most``.
    """
    known = {c.number: c for c in candidates}
    listed = ", ".join(f"{c.number} ({c.longest_mm:.1f} mm)" for c in known.values()) or "none"
    if len(chosen) > most or len(set(chosen)) < len(chosen):
        raise InputError(f"target lesions are {_numbers(chosen)}, expected at most {most}, each once")
    for number in chosen:
        if number not in known:
            raise InputError(
                f"target lesion {number} has no voxel in any slice at baseline, expected one of {listed}"
            )
        if not measurable(known[number].longest_mm, known[number].slice_mm):
            raise InputError(
                f"target lesion {number} has a longest diameter of {known[number].longest_mm:.1f} mm, expected a "
                f"measurable one of at least {smallest_measurable(known[number].slice_mm):g} mm, of {listed}"
            )
    return tuple(sorted(chosen))


# --- response at one time point -----------------------------------------------------------------------------


def target_response(
    sums: Sequence[float],
    gone: Sequence[bool],
    criteria: Criteria = RECIST,
    evaluable: Sequence[bool] | None = None,
) -> Target:
    """Returns the response of the target lesions at the last of several time points.

    Progression against the nadir is tested before partial response against the baseline.

    Args:
      sums: sum of diameters of each time point, from the baseline on; what a time point that is not evaluable leaves of
        its sum can still be progression.
      gone: whether all target lesions have disappeared.
      criteria: the thresholds.
      evaluable: whether all target lesions were evaluated; by default all.
    """
    evaluable = [True] * len(sums) if evaluable is None else evaluable
    *_, current = sums
    nadir = min(total for total, known in zip(sums[:-1], evaluable, strict=False) if known)
    grown = current > nadir + ROUNDING
    grown = grown and current >= nadir * (1 + criteria.increase) * (1 - ROUNDING)
    grown = grown and current - nadir >= criteria.increase_mm - ROUNDING
    if grown:
        return "PD"
    if not evaluable[-1]:
        return "NE"
    if gone[-1]:
        return "CR"
    if not nadir:
        return "PD"  # back after a complete response, however small
    if current <= sums[0] * (1 - criteria.decrease) + ROUNDING:
        return "PR"
    return "SD"


def non_target_response(present: Sequence[bool], stated: NonTarget = "") -> NonTarget:
    """Returns the response of all non-target lesions: the worst of those in the masks and of what is stated.

    Progression of non-target lesions is a reader's judgement ("unequivocal"): masks alone never give it.

    Args:
      present: for each non-target lesion of the masks, whether it is there.
      stated: response of others.
    """
    own: NonTarget = "" if not present else "non-CR/non-PD" if any(present) else "CR"
    order: tuple[NonTarget, ...] = ("", "CR", "non-CR/non-PD", "NE", "PD")
    return order[max(order.index(own), order.index(stated))]


def overall_response(target: Target, non_target: NonTarget, new: bool) -> Overall:
    """Returns the response of the patient: tables 1 and 2 of RECIST 1.1 (Eisenhauer 2009)."""
    if new or "PD" in (target, non_target):
        return "PD"
    if not target:
        return non_target
    if target == "CR" and non_target not in ("", "CR"):
        return "PR"
    return target


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values)) or "none"
