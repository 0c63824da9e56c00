"""How response varies with the rater: classes, agreement, and which choice of lesions made the difference.

A `RaterCourse` is what one rater found in one case. Classes are those of the overall response; a case without any
lesion to judge has the class "none".
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liverjax.errors import InputError
from liverjax.planning.course import Finding, Part, Visit, assess
from liverjax.planning.recist import Candidate, propose_targets
from liverjax.scoring import statistics
from liverjax.scoring.rater_agreement import fleiss_kappa

#: Response classes, in the order in which they are drawn.
CLASSES = ("CR", "PR", "SD", "non-CR/non-PD", "PD", "NE", "none")


@dataclasses.dataclass(frozen=True)
class RaterCourse:
    """What one rater found in one case.

    Attributes:
      rater: who.
      case: of whom.
      visits: the lesions at each time point.
      targets: numbers of the target lesions that this rater chose.
      names: for each lesion number a name by which all raters know the lesion.
      notes: what a reader should know of it.
    """

    rater: str
    case: str
    visits: tuple[Visit, ...]
    targets: tuple[int, ...]
    names: Mapping[int, str]
    notes: tuple[str, ...] = ()

    def target_names(self) -> tuple[str, ...]:
        """Returns the names of the target lesions, in order."""
        return tuple(sorted({self.names[number] for number in self.targets}))

    def classes(self, targets: Sequence[int] | None = None) -> list[str]:
        """Returns the overall response at each time point after the baseline, by these or the rater's own targets."""
        responses = assess(self.visits, self.targets if targets is None else targets)
        return [response.overall or "none" for response in responses[1:]]


def by_case(courses: Sequence[RaterCourse]) -> dict[str, dict[str, RaterCourse]]:
    """Returns the courses by case and rater.

    Raises:
      InputError: there are fewer than two raters, a rater lacks a case, or time points differ between raters.
    """
    raters = list(dict.fromkeys(course.rater for course in courses))
    if len(raters) < 2:
        raise InputError(f"raters: {', '.join(raters) or 'none'}; expected at least two")
    cases: dict[str, dict[str, RaterCourse]] = {}
    for course in courses:
        cases.setdefault(course.case, {})[course.rater] = course
    missing = [
        f"{case} by {rater}" for case, found in cases.items() for rater in raters if rater not in found
    ]
    if missing:
        raise InputError(f"no reading of {', '.join(missing)}; expected every case of every rater")
    for case, found in cases.items():
        times = {rater: [visit.name for visit in course.visits] for rater, course in found.items()}
        first = times[raters[0]]
        for rater, names in times.items():
            if names != first:
                raise InputError(
                    f"case {case}: time points {', '.join(names)} by {rater} and {', '.join(first)} by {raters[0]}; "
                    "expected the same"
                )
    return {case: {rater: found[rater] for rater in raters} for case, found in cases.items()}


# --- classes ------------------------------------------------------------------------------------------------


def class_rows(cases: Mapping[str, Mapping[str, RaterCourse]]) -> list[dict[str, Any]]:
    """Returns for each case and time point after the baseline the share of raters of each class, and the agreement.

    `agreement` is the share of pairs of raters that give the same class.
    """
    rows = []
    for case, raters in cases.items():
        classes = {rater: course.classes() for rater, course in raters.items()}
        for index, visit in enumerate(next(iter(raters.values())).visits[1:]):
            given = collections.Counter(found[index] for found in classes.values())
            n = len(classes)
            pairs = sum(count * (count - 1) for count in given.values()) / (n * (n - 1))
            shares = {name: given[name] / n for name in CLASSES}
            rows.append({"case": case, "time_point": visit.name, "raters": n, **shares, "agreement": pairs})
    return rows


def kappa(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, float]:
    """Returns Fleiss' kappa of rows of `class_rows` of one time point, with a 95 % bootstrap interval over cases.

    Draws of cases in which all raters gave one class have no kappa and are left out. With fewer than two cases, kappa
    and its interval are NaN: what chance would give cannot be told from one.
    """
    counts = np.array([[round(row[name] * row["raters"]) for name in CLASSES] for row in rows])
    low, high = statistics.clustered_interval(
        lambda drawn: np.array([fleiss_kappa(counts[drawn])]), np.arange(len(counts)), seed=seed
    )
    return {
        "cases": len(counts),
        "kappa": fleiss_kappa(counts) if len(counts) > 1 else math.nan,
        "ci_low": float(low[0]),
        "ci_high": float(high[0]),
    }


# --- diameters and sums -------------------------------------------------------------------------------------


def diameter_rows(
    cases: Mapping[str, Mapping[str, RaterCourse]], value: str = "longest_mm"
) -> list[dict[str, Any]]:
    """Returns a row for each lesion at each time point, with what each rater measured; NaN where one did not find it.

    Args:
      cases: from `by_case`.
      value: a field of `Part`; of a lesion in parts their sum.
    """
    rows = []
    for case, raters in cases.items():
        for index, visit in enumerate(next(iter(raters.values())).visits):
            found: dict[str, dict[str, float]] = {}
            for rater, course in raters.items():
                for finding in course.visits[index].findings:
                    names = dict.fromkeys(course.names[number] for number in finding.members)
                    if finding.parts:
                        values = found.setdefault("+".join(names), dict.fromkeys(raters, math.nan))
                        total = sum(getattr(part, value) for part in finding.parts)
                        values[rater] = total + (0 if math.isnan(values[rater]) else values[rater])
            for name, values in sorted(found.items()):
                rows.append({"case": case, "time_point": visit.name, "lesion": name, **values})
    return rows


def sum_rows(cases: Mapping[str, Mapping[str, RaterCourse]]) -> list[dict[str, Any]]:
    """Returns a row for each case and time point, with each rater's sum of diameters of the own targets."""
    rows = []
    for case, raters in cases.items():
        sums = {
            rater: [r.sum_mm for r in assess(course.visits, course.targets)]
            for rater, course in raters.items()
        }
        for index, visit in enumerate(next(iter(raters.values())).visits):
            values = {rater: of_rater[index] for rater, of_rater in sums.items()}
            rows.append({"case": case, "time_point": visit.name, **values})
    return rows


# --- choice of lesions --------------------------------------------------------------------------------------


def choice_rows(cases: Mapping[str, Mapping[str, RaterCourse]]) -> list[dict[str, Any]]:
    """Returns for each case, last time point, whether the choice of target lesions made the raters' classes differ.

    Each rater's class is found anew with one choice for all, that of most raters (of equally frequent ones the first).
    `reason` is "agree" where the classes are the same anyway; "choice" where one choice makes them the same;
    "measurement" where all chose alike and differ; "both" where they chose otherwise, and differ with one choice too.
    Raters who did not find a lesion of that choice keep their own.
    """
    rows = []
    for case, raters in cases.items():
        choices = {rater: course.target_names() for rater, course in raters.items()}
        common = collections.Counter(choices.values()).most_common(1)[0][0]
        own, shared = {}, {}
        for rater, course in raters.items():
            numbers = [n for n, name in course.names.items() if name in common and _at_baseline(course, n)]
            has_all = {course.names[n] for n in numbers} == set(common)
            own[rater] = course.classes()[-1]
            shared[rater] = course.classes(numbers if has_all else None)[-1]
        same_choice = len(set(choices.values())) == 1
        if len(set(own.values())) == 1:
            reason = "agree"
        elif len(set(shared.values())) == 1:
            reason = "choice"
        else:
            reason = "measurement" if same_choice else "both"
        for rater in raters:
            rows.append(
                {
                    "case": case,
                    "rater": rater,
                    "targets": " ".join(choices[rater]),
                    "class": own[rater],
                    "common_targets": " ".join(common),
                    "class_with_common_targets": shared[rater],
                    "reason": reason,
                }
            )
    return rows


def _at_baseline(course: RaterCourse, number: int) -> bool:
    return any(number in finding.members and finding.parts for finding in course.visits[0].findings)


# --- simulated raters ---------------------------------------------------------------------------------------


def simulate_raters(
    course: RaterCourse,
    raters: int,
    *,
    error_mm: float,
    bias_mm: float = 0.0,
    slice_mm: float = 0.0,
    choose: bool = True,
    seed: int = 0,
) -> list[RaterCourse]:
    """Returns what raters with stated errors would have measured, from one course, to plan a study.

    Each diameter is the measured one plus the rater's own bias plus an error, independent for each lesion, time point
    and diameter; both are normal. A diameter below 0 is 0: the lesion is there, and too small. All raters find the same
    lesions.

    Args:
      course: the true diameters.
      raters: number of raters.
      error_mm: standard deviation of the error.
      bias_mm: standard deviation of the bias between raters.
      slice_mm: distance between slices, by which lesions are measurable.
      choose: each rater takes the largest lesions by the own measurements; else the targets of the course.
      seed: of the draws, which depend on it, the case and the rater's number alone.
    """
    found = []
    for rater in range(raters):
        rng = np.random.default_rng([seed, rater, *course.case.encode()])
        # The bias is the rater's, whatever the case.
        bias = np.random.default_rng([seed, rater]).normal(0, bias_mm)

        def measured(mm: float, rng: np.random.Generator = rng, bias: float = bias) -> float:
            return max(mm + bias + rng.normal(0, error_mm), 0.0)

        visits = tuple(
            dataclasses.replace(
                visit,
                findings=tuple(
                    Finding(f.members, tuple(_measured_part(part, measured) for part in f.parts))
                    for f in visit.findings
                ),
            )
            for visit in course.visits
        )
        targets = course.targets
        if choose:
            sizes = [(f.members[0], f.parts[0].longest_mm) for f in visits[0].findings if f.parts]
            targets = propose_targets(Candidate(number, mm, slice_mm) for number, mm in sizes)
        found.append(RaterCourse(f"rater {rater + 1}", course.case, visits, targets, course.names))
    return found


def _measured_part(part: Part, measured: Any) -> Part:
    longest, across = measured(part.longest_mm), measured(part.perpendicular_mm)
    return dataclasses.replace(
        part,
        longest_mm=longest,
        perpendicular_mm=min(across, longest),
        viable_mm=math.nan,
        volume_ml=math.nan,
    )
