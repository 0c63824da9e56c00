"""The course of a patient: lesions at several time points, and the response at each.

A `Visit` holds what is known of a patient at one time point; the first visit is the baseline. `assess` goes through the
visits in order and returns a `Response` for each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from liverjax.planning.recist import (
    MRECIST,
    ROUNDING,
    TOO_SMALL_MM,
    WHO,
    NonTarget,
    Overall,
    Target,
    counted,
    non_target_response,
    overall_response,
    target_response,
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One lesion of one mask: a whole lesion, or a piece of one that has split.

    Attributes:
      longest_mm: its longest diameter.
      perpendicular_mm: the longest perpendicular to it, NaN if that is not known.
      viable_mm: longest diameter of what takes up contrast in the arterial phase, NaN if that is not known.
      volume_ml: its volume, NaN if that is not known.
      id: its id in the mask, 0 if there is no mask.
    """

    longest_mm: float
    perpendicular_mm: float = math.nan
    viable_mm: float = math.nan
    volume_ml: float = math.nan
    id: int = 0


@dataclasses.dataclass(frozen=True)
class Finding:
    """A lesion at a time point.

    Attributes:
      members: its number; several numbers, the lowest first, from when lesions have merged.
      parts: nothing where the lesion is gone, several parts where it has split.
    """

    members: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What masks of the liver do not tell; stated by the user for a time point.

    Attributes:
      non_target: response of further non-target lesions, "" if there are none.
      new_lesion: there is a new lesion elsewhere.
      sum_mm: sum of the diameters of target lesions elsewhere (of lymph nodes the short axis).
      gone: these have all disappeared (lymph nodes: below 10 mm), though their sum may be above 0.
      evaluable: all target lesions could be evaluated.
    """

    non_target: NonTarget = ""
    new_lesion: bool = False
    sum_mm: float = 0.0
    gone: bool = False
    evaluable: bool = True


@dataclasses.dataclass(frozen=True)
class Visit:
    """A patient at one time point: lesions of the liver, and what is stated of the rest."""

    name: str
    findings: tuple[Finding, ...]
    elsewhere: Elsewhere = Elsewhere()


@dataclasses.dataclass(frozen=True)
class Response:
    """The response at a time point.

    Attributes:
      name: of the visit.
      sum_mm: sum of diameters of the target lesions.
      nadir_mm: the smallest sum before, the baseline included; at baseline the sum itself.
      change: from the baseline, in percent; NaN without a baseline sum.
      change_from_nadir: likewise; infinite above a nadir of 0.
      target: response of the target lesions, by `RECIST`.
      non_target: of the others.
      new: numbers of the unequivocal new lesions so far.
      equivocal: numbers of new lesions that never reach the size that makes them unequivocal.
      overall: response of the patient.
      who: response by WHO, "" without perpendiculars.
      products_mm2: sum of products of the two diameters, NaN without them.
      mrecist: response by mRECIST, "" without viable masks.
      viable_mm: sum of viable diameters, NaN without them.
    """

    name: str
    sum_mm: float
    nadir_mm: float
    change: float
    change_from_nadir: float
    target: Target
    non_target: NonTarget
    new: tuple[int, ...]
    equivocal: tuple[int, ...]
    overall: Overall
    who: Target
    products_mm2: float
    mrecist: Target
    viable_mm: float


def assess(
    visits: Sequence[Visit],
    targets: Collection[int],
    *,
    viable_targets: Collection[int] = (),
    too_small_mm: float = TOO_SMALL_MM,
    new_mm: float = TOO_SMALL_MM,
) -> list[Response]:
    """Returns the response at each visit; at baseline, the classes are "".

    Args:
      visits: in order of time, the baseline first.
      targets: numbers of the target lesions.
      viable_targets: of those whose viable diameters are summed for mRECIST.
      too_small_mm: what a target lesion below this size counts, as long as it is there; 0 counts it as measured.
      new_mm: a new lesion that never reaches this diameter is equivocal, and no progression. One that does makes its
        first time point progression.
    """
    at_baseline = {number for finding in visits[0].findings if finding.parts for number in finding.members}
    first_seen = _new_lesions(visits, at_baseline)
    unequivocal = {
        number: seen for number, (seen, largest) in first_seen.items() if largest >= new_mm - ROUNDING
    }
    sums = [_sum(visit, targets, too_small_mm) + visit.elsewhere.sum_mm for visit in visits]
    gone = [_gone(visit, targets) for visit in visits]
    evaluable = [visit.elsewhere.evaluable for visit in visits]
    has_targets = bool(targets) or visits[0].elsewhere.sum_mm > 0
    viable = [_sum(visit, viable_targets, 0, viable=True) for visit in visits]
    responses = []
    for index, visit in enumerate(visits):
        until = slice(index + 1)
        new = tuple(number for number, seen in unequivocal.items() if seen <= index)
        is_new = bool(new) or any(earlier.elsewhere.new_lesion for earlier in visits[until])
        target: Target = ""
        who: Target = ""
        mrecist: Target = ""
        if index and has_targets:
            target = target_response(sums[until], gone[until], evaluable=evaluable[until])
            complete = any(a and b for a, b in zip(gone[1:index], evaluable[1:index], strict=True))
            if complete and evaluable[index] and any(f.parts for f in _of(visit, targets)):
                target = "PD"  # back after a complete response, whatever lymph nodes leave of the sum
            who = _or_new(_who(visits[until], targets, too_small_mm, evaluable[until]), is_new)
        if index and viable_targets:
            known = evaluable[until]
            mrecist = _or_new(
                target_response(viable[until], [v == 0 for v in viable[until]], MRECIST, known), is_new
            )
        others = [
            bool(f.parts)
            for f in visit.findings
            if at_baseline & set(f.members) and not set(f.members) & set(targets)
        ]
        non_target = non_target_response(others, visit.elsewhere.non_target) if index else ""
        nadir = min([s for s, known in zip(sums[:index], evaluable, strict=False) if known], default=sums[0])
        responses.append(
            Response(
                name=visit.name,
                sum_mm=sums[index],
                nadir_mm=nadir,
                change=_percent(sums[index], sums[0]),
                change_from_nadir=_percent(sums[index], nadir),
                target=target,
                non_target=non_target,
                new=new,
                equivocal=tuple(
                    n for n, (seen, _) in first_seen.items() if seen <= index and n not in unequivocal
                ),
                overall=overall_response(target, non_target, is_new) if index else "",
                who=who,
                products_mm2=_products(visit, targets, too_small_mm),
                mrecist=mrecist,
                viable_mm=viable[index] if viable_targets else math.nan,
            )
        )
    return responses


def _new_lesions(visits: Sequence[Visit], at_baseline: set[int]) -> dict[int, tuple[int, float]]:
    """Returns for each lesion that is not at baseline the index of its first visit, and its largest diameter ever."""
    found: dict[int, tuple[int, float]] = {}
    for index, visit in enumerate(visits):
        for finding in visit.findings:
            if not finding.parts:
                continue
            if at_baseline & set(finding.members):
                continue  # merged with a known lesion: the size is not its own, and it was seen before
            size = max(part.longest_mm for part in finding.parts)
            for number in finding.members:
                seen, largest = found.get(number, (index, 0.0))
                found[number] = seen, max(largest, size)
    return dict(sorted(found.items()))


def _of(visit: Visit, numbers: Collection[int]) -> list[Finding]:
    return [finding for finding in visit.findings if set(finding.members) & set(numbers)]


def _sum(visit: Visit, targets: Collection[int], too_small_mm: float, viable: bool = False) -> float:
    """Returns the sum of diameters: of a split lesion that of its parts, of merged ones the whole's, once."""
    parts = [part for finding in _of(visit, targets) for part in finding.parts]
    if viable:
        return sum(part.viable_mm for part in parts if not math.isnan(part.viable_mm))
    return float(sum(counted(part.longest_mm, too_small_mm) for part in parts))


def _gone(visit: Visit, targets: Collection[int]) -> bool:
    elsewhere = visit.elsewhere
    return not any(f.parts for f in _of(visit, targets)) and (elsewhere.gone or elsewhere.sum_mm == 0)


def _product(part: Part, too_small_mm: float) -> float:
    if part.longest_mm < too_small_mm:
        return too_small_mm**2
    return part.longest_mm * part.perpendicular_mm


def _products(visit: Visit, targets: Collection[int], too_small_mm: float) -> float:
    return float(
        sum(_product(part, too_small_mm) for finding in _of(visit, targets) for part in finding.parts)
    )


def _who(
    visits: Sequence[Visit], targets: Collection[int], too_small_mm: float, evaluable: Sequence[bool]
) -> Target:
    """Returns the response by WHO at the last visit: progression if any one lesion has grown against its own nadir."""
    *earlier, last = visits
    totals = [_products(visit, targets, too_small_mm) for visit in visits]
    if math.isnan(sum(totals)) or not targets:
        return ""
    for finding in _of(last, targets):
        own = set(finding.members) & set(targets)
        history = [
            _products(v, own, too_small_mm) for v, known in zip(earlier, evaluable, strict=False) if known
        ]
        current = _products(last, own, too_small_mm)
        if target_response([*history, current], [value == 0 for value in [*history, current]], WHO) == "PD":
            return "PD"
    if not evaluable[-1]:
        return "NE"
    if not totals[-1]:
        return "CR"
    return "PR" if totals[-1] <= totals[0] * (1 - WHO.decrease) + ROUNDING else "SD"


def _or_new(response: Target, new: bool) -> Target:
    return "PD" if new and response else response


def _percent(value: float, reference: float) -> float:
    if reference > 0:
        return 100 * (value - reference) / reference
    return math.inf if value > 0 else math.nan
