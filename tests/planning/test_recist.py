"""Response criteria: published thresholds at their borders, and courses derived by hand."""

import math

import pytest

from liverjax.errors import InputError
from liverjax.planning.course import Elsewhere, Finding, Part, Visit, assess
from liverjax.planning.recist import (
    MRECIST,
    WHO,
    Candidate,
    check_targets,
    measurable,
    non_target_response,
    overall_response,
    propose_targets,
    smallest_measurable,
    target_response,
)

OTHERS = Elsewhere(non_target="non-CR/non-PD")
NODES = Elsewhere(sum_mm=20)


def _visit(index, lesions, elsewhere):
    """`{1: 30, (2, 3): 40, 4: (12, 8), 5: 0}`: a lesion, two that merged, one that split, one that is gone."""
    findings = []
    for members, sizes in lesions.items():
        members = members if isinstance(members, tuple) else (members,)
        sizes = sizes if isinstance(sizes, tuple) else (sizes,)
        findings.append(Finding(members, tuple(Part(size) for size in sizes if size)))
    return Visit(f"t{index}", tuple(findings), elsewhere)


def _course(lesions, targets, elsewhere=None):
    stated = [Elsewhere(), *(elsewhere or [Elsewhere()] * (len(lesions) - 1))]
    if elsewhere and len(elsewhere) == len(lesions):
        stated = elsewhere
    visits = [_visit(i, each, other) for i, (each, other) in enumerate(zip(lesions, stated, strict=True))]
    return assess(visits, targets)


#: Name: lesions at each time point, targets, (target, overall) after the baseline, and what is stated elsewhere.
COURSES = {
    # 30 + 20 = 50 -> 34 (-32 %) -> 34
    "partial response, then stable against the nadir": (
        [{1: 30, 2: 20}, {1: 20, 2: 14}, {1: 20, 2: 14}], {1, 2}, ["PR PR", "PR PR"],
    ),
    # 100 -> 50 -> 61: +22 % and 11 mm above the nadir, though 39 % below the baseline.
    "progression from the nadir, far below the baseline": (
        [{1: 60, 2: 40}, {1: 30, 2: 20}, {1: 41, 2: 20}], {1, 2}, ["PR PR", "PD PD"],
    ),
    # 20 -> 12 -> 15: +25 %, but 3 mm; 15 is 25 % below the baseline.
    "20 % above the nadir, but less than 5 mm": ([{1: 20}, {1: 12}, {1: 15}], {1}, ["PR PR", "SD SD"]),
    # 100 -> 106 -> 119: +19 % of the baseline, which is the nadir.
    "5 mm more, but less than 20 %": ([{1: 100}, {1: 106}, {1: 119}], {1}, ["SD SD", "SD SD"]),
    "exactly 20 % and 5 mm": ([{1: 25}, {1: 30}], {1}, ["PD PD"]),
    "exactly 30 % less": ([{1: 30}, {1: 21}], {1}, ["PR PR"]),
    # Each step is below 20 % of the sum before it, but not of the nadir: 50 -> 55 -> 60.
    "slow growth adds up against the nadir": ([{1: 50}, {1: 55}, {1: 60}], {1}, ["SD SD", "PD PD"]),
    "a new lesion beside shrinking targets": (
        [{1: 40, 2: 30}, {1: 10, 2: 10, 3: 12}], {1, 2}, ["PR PD"],
    ),
    "a new lesion stays progression after it has gone": (
        [{1: 40}, {1: 20, 2: 12}, {1: 20, 2: 0}], {1}, ["PR PD", "PR PD"],
    ),
    "a new lesion too small to be unequivocal": ([{1: 40}, {1: 20, 2: 3}], {1}, ["PR PR"]),
    # It is confirmed at the third time point: progression dates from the second.
    "a small new lesion that grows was new when it appeared": (
        [{1: 40}, {1: 20, 2: 3}, {1: 20, 2: 9}], {1}, ["PR PD", "PR PD"],
    ),
    "a lesion that is listed before it appears is new": ([{1: 40, 2: 0}, {1: 20, 2: 12}], {1}, ["PR PD"]),
    "complete response": ([{1: 40, 2: 20}, {1: 0, 2: 0}], {1, 2}, ["CR CR"]),
    "complete response of targets with another lesion left is partial": (
        [{1: 40, 2: 12}, {1: 0, 2: 12}], {1}, ["CR PR"],
    ),
    "complete response of all lesions": ([{1: 40, 2: 12}, {1: 0, 2: 0}], {1}, ["CR CR"]),
    # After a complete response a lesion of any size is progression, here of 2 mm.
    "return after complete response": ([{1: 40}, {1: 0}, {1: 2}], {1}, ["CR CR", "PD PD"]),
    # Complete with normal nodes of 36 mm in all: what is back adds 14 % to the sum, and yet is progression.
    "return after complete response, beside normal nodes": (
        [{1: 40}, {1: 0}, {1: 5}], {1}, ["CR CR", "PD PD"],
        [Elsewhere(sum_mm=50), Elsewhere(sum_mm=36, gone=True), Elsewhere(sum_mm=36, gone=True)],
    ),
    # Nothing was seen at a time point that is not evaluable: no complete response, so no return either.
    "not seen, but not evaluable, and there again": (
        [{1: 40}, {1: 0}, {1: 38}], {1}, ["NE NE", "SD SD"], [Elsewhere(evaluable=False), Elsewhere()],
    ),
    # Lesion 2 never reaches 5 mm by itself; the 41 mm are those of the target with which it has merged: 41 / 40 = +3 %.
    "an equivocal new lesion that merges with a target stays equivocal": (
        [{1: 40}, {1: 40, 2: 3}, {(1, 2): 41}], {1}, ["SD SD", "SD SD"],
    ),
    "an unequivocal one stays progression when it merges": (
        [{1: 40}, {1: 20, 2: 12}, {(1, 2): 23}], {1}, ["PR PD", "PR PD"],
    ),
    # 60 -> 30 -> lesion 2 returns with 8 mm: 30 + 8 = 38 is 27 % and 8 mm above the nadir of 30.
    "disappearance and return, above the nadir": (
        [{1: 40, 2: 20}, {1: 30, 2: 0}, {1: 30, 2: 8}], {1, 2}, ["PR PR", "PD PD"],
    ),
    # 100 + 20 = 120 -> 90 (-25 %) -> 90 + 10 = 100: +11 %: the return alone is no progression.
    "disappearance and return, within the nadir's limits": (
        [{1: 100, 2: 20}, {1: 90, 2: 0}, {1: 90, 2: 10}], {1, 2}, ["SD SD", "SD SD"],
    ),
    # 40 -> 22 + 14 = 36: the parts are added, which is -10 %.
    "a lesion splits: its parts are added": ([{1: 40}, {1: (22, 14)}], {1}, ["SD SD"]),
    # 30 + 20 -> 62 as one: 62 / 50 = +24 % and 12 mm.
    "two targets merge: the diameter of the whole": ([{1: 30, 2: 20}, {(1, 2): 62}], {1, 2}, ["PD PD"]),
    # 30 + 20 -> 34 as one: -32 %.
    "two targets merge to less": ([{1: 30, 2: 20}, {(1, 2): 34}], {1, 2}, ["PR PR"]),
    # 30 -> 45: the whole counts for the target.
    "a target merges with another lesion": ([{1: 30, 2: 9}, {(1, 2): 45}], {1}, ["PD PD"]),
    # Merged at first, then 20 + 12 apart: their sum of 32 is -36 % of 50.
    "merged and apart again": (
        [{1: 30, 2: 20}, {(1, 2): 44}, {(1, 2): (20, 12)}], {1, 2}, ["SD SD", "PR PR"],
    ),
    # 20 + 15 = 35 -> 3 counts 5: 5 + 15 = 20 is -43 %.
    "too small to measure counts 5 mm": ([{1: 20, 2: 15}, {1: 3, 2: 15}], {1, 2}, ["PR PR"]),
    # 12 + 5 (for 2) = 17 -> 12 + 5 (for 4): no change, as both are too small.
    "too small to measure does not grow": (
        [{1: 12, 2: 12}, {1: 12, 2: 2}, {1: 12, 2: 4}], {1, 2}, ["SD SD", "SD SD"],
    ),
    # 10 + 20 of nodes = 30 -> 6 + 20 = 26: -13 %.
    "sums elsewhere are added": ([{1: 10}, {1: 6}], {1}, ["SD SD"], [NODES, NODES]),
    # The liver's targets are gone, nodes of 8 mm are normal: complete, though the sum is 8.
    "normal lymph nodes": ([{1: 30}, {1: 0}], {1}, ["CR CR"], [NODES, Elsewhere(sum_mm=8, gone=True)]),
    "enlarged lymph nodes": ([{1: 30}, {1: 0}], {1}, ["PR PR"], [NODES, Elsewhere(sum_mm=14)]),
    "progression of non-targets": ([{1: 30}, {1: 15}], {1}, ["PR PD"], [Elsewhere(non_target="PD")]),
    "non-targets elsewhere are left": ([{1: 30}, {1: 0}], {1}, ["CR PR"], [OTHERS]),
    "non-targets not evaluated": ([{1: 30}, {1: 0}], {1}, ["CR PR"], [Elsewhere(non_target="NE")]),
    "a new lesion elsewhere": (
        [{1: 30}, {1: 15}, {1: 15}], {1}, ["PR PD", "PR PD"], [Elsewhere(new_lesion=True), Elsewhere()],
    ),
    "targets not evaluable": ([{1: 30}, {1: 15}], {1}, ["NE NE"], [Elsewhere(evaluable=False)]),
    # What was seen is already more than the nadir allows: 37 of 30.
    "not evaluable, and yet progression": ([{1: 30}, {1: 37}], {1}, ["PD PD"], [Elsewhere(evaluable=False)]),
    # The 10 mm of a time point that was not evaluable are no nadir: 24 is -20 % of 30.
    "a time point that is not evaluable is no nadir": (
        [{1: 30}, {1: 10}, {1: 24}], {1}, ["NE NE", "SD SD"], [Elsewhere(evaluable=False), Elsewhere()],
    ),
    "no targets: others persist": ([{1: 8}, {1: 8}], set(), [" non-CR/non-PD"]),
    "no targets: others gone": ([{1: 8}, {1: 0}], set(), [" CR"]),
    "no targets: not evaluated": ([{1: 8}, {1: 8}], set(), [" NE"], [Elsewhere(non_target="NE")]),
    "no targets: a new lesion": ([{1: 8}, {1: 8, 2: 11}], set(), [" PD"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COURSES)
def test_courses_derived_by_hand(name):
    lesions, targets, expected, *elsewhere = COURSES[name]
    found = _course(lesions, targets, *elsewhere)
    assert [f"{response.target} {response.overall}" for response in found[1:]] == expected
    assert found[0].target == found[0].overall == ""


def test_sums_nadirs_and_changes():
    found = _course([{1: 60, 2: 40}, {1: 30, 2: 20}, {1: 41, 2: 20}, {1: 0, 2: 0}, {1: 7, 2: 0}], {1, 2})
    assert [response.sum_mm for response in found] == [100, 50, 61, 0, 7]
    assert [response.nadir_mm for response in found] == [100, 100, 50, 50, 0]
    assert [response.change for response in found] == pytest.approx([0, -50, -39, -100, -93])
    assert [response.change_from_nadir for response in found] == pytest.approx([0, -50, 22, -100, math.inf])


def test_equivocal_new_lesions_are_named():
    found = _course([{1: 40}, {1: 40, 2: 3}, {1: 40, 2: 4, 3: 6}], {1})
    assert [(response.new, response.equivocal) for response in found] == [((), ()), ((), (2,)), ((3,), (2,))]


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ((100, 70), "PR"), ((100, 70.1), "SD"), ((30, 21), "PR"), ((100, 119.9), "SD"), ((100, 120), "PD"),
        ((100, 50, 60), "PD"), ((100, 50, 59.9), "PR"), ((100, 20, 24.9), "PR"), ((100, 20, 25), "PD"),
        ((24, 28.9), "SD"), ((24, 29), "PD"), ((25, 30), "PD"), ((0.1 + 0.2, 0.21), "PR"),
        # Progression goes before partial response: 60 is -40 % of the baseline.
        ((100, 45, 60), "PD"),
    ],
)  # fmt: skip
def test_published_thresholds_at_their_borders(sums, expected):
    assert target_response(sums, [False] * len(sums)) == expected


@pytest.mark.parametrize(
    ("criteria", "sums", "expected"),
    [
        (MRECIST, (20, 24), "PD"), (MRECIST, (20, 23.9), "SD"), (MRECIST, (20, 14), "PR"),
        (WHO, (100, 50), "PR"), (WHO, (100, 50.1), "SD"), (WHO, (100, 125), "PD"), (WHO, (100, 124.9), "SD"),
    ],
)  # fmt: skip
def test_thresholds_of_other_criteria(criteria, sums, expected):
    assert target_response(sums, [False] * 2, criteria) == expected


def test_who_judges_each_lesion_against_its_own_nadir():
    def visit(name, *sizes):
        return Visit(name, tuple(Finding((i + 1,), (Part(*size),)) for i, size in enumerate(sizes)))

    # Products 30 x 20 = 600 and 10 x 10 = 100; then 300 and 130: the sum is 39 % less, lesion 2 is 30 % more.
    found = assess([visit("a", (30, 20), (10, 10)), visit("b", (20, 15), (13, 10))], {1, 2})
    assert (found[1].who, found[1].target, found[1].products_mm2) == ("PD", "SD", 430)
    found = assess([visit("a", (30, 20), (10, 10)), visit("b", (20, 12.5), (10, 10))], {1, 2})
    assert (found[1].who, found[1].products_mm2) == ("PR", 350)
    # What was not seen at a time point that was not evaluable is no nadir of 0.
    unseen = Visit("b", (Finding((1,), ()),), Elsewhere(evaluable=False))
    found = assess([visit("a", (30, 20)), unseen, visit("c", (29, 20))], {1})
    assert [response.who for response in found] == ["", "NE", "SD"]
    # Without perpendiculars there is no WHO.
    assert _course([{1: 30}, {1: 10}], {1})[1].who == ""


def test_mrecist_sums_what_is_viable_without_the_5_mm_rule():
    def visit(name, longest, viable):
        return Visit(name, (Finding((1,), (Part(longest, viable_mm=viable),)),))

    visits = [visit("a", 30, 20), visit("b", 30, 10), visit("c", 30, 12), visit("d", 30, 0)]
    found = assess(visits, {1}, viable_targets={1})
    assert [response.mrecist for response in found] == ["", "PR", "PD", "CR"]
    assert [response.target for response in found] == ["", "SD", "SD", "SD"]
    assert [response.viable_mm for response in found] == [20, 10, 12, 0]


@pytest.mark.parametrize(
    ("target", "non_target", "new", "overall"),
    [
        # Table 1 of Eisenhauer 2009
        ("CR", "CR", False, "CR"), ("CR", "", False, "CR"), ("CR", "non-CR/non-PD", False, "PR"),
        ("CR", "NE", False, "PR"), ("PR", "non-CR/non-PD", False, "PR"), ("PR", "NE", False, "PR"),
        ("SD", "non-CR/non-PD", False, "SD"), ("SD", "NE", False, "SD"), ("NE", "non-CR/non-PD", False, "NE"),
        ("PD", "CR", False, "PD"), ("SD", "PD", False, "PD"), ("CR", "CR", True, "PD"), ("NE", "", True, "PD"),
        # Table 2: non-target lesions only
        ("", "CR", False, "CR"), ("", "non-CR/non-PD", False, "non-CR/non-PD"), ("", "NE", False, "NE"),
        ("", "PD", False, "PD"), ("", "CR", True, "PD"),
    ],
)  # fmt: skip
def test_tables_of_overall_response(target, non_target, new, overall):
    assert overall_response(target, non_target, new) == overall


def test_non_targets_count_by_the_worst():
    assert non_target_response([]) == ""
    assert non_target_response([False, False]) == "CR"
    assert non_target_response([True, False]) == "non-CR/non-PD"
    assert non_target_response([False], "PD") == "PD"
    assert non_target_response([True], "CR") == "non-CR/non-PD"


def test_measurable_lesions_by_size_and_slices():
    assert measurable(10, 5) and not measurable(9.99, 1)
    assert measurable(10, 5.0) and not measurable(10, 5.1) and measurable(10.2, 5.1)
    assert smallest_measurable(7.7) == pytest.approx(15.4) and smallest_measurable(2) == 10
    assert smallest_measurable(5) == 10


def test_targets_are_the_largest_that_can_be_measured_reproducibly():
    lesions = [
        Candidate(1, 30, 5, next_mm=29),
        Candidate(2, 50, 5, next_mm=20),  # the next slice would say 20
        Candidate(3, 40, 5, next_mm=39, cut=True),
        Candidate(4, 12, 5, next_mm=11),
        Candidate(5, 9, 5, next_mm=9),
    ]
    assert propose_targets(lesions) == (1, 4)
    assert propose_targets(lesions[1:3]) == (2, 3)
    assert propose_targets(lesions[4:]) == ()
    # Equally large: the lower number.
    assert propose_targets([Candidate(n, 20, 5) for n in (3, 1, 2)]) == (1, 2)


def test_chosen_targets_must_be_there_and_measurable():
    lesions = [Candidate(1, 30, 5), Candidate(2, 9, 5), Candidate(3, 12, 7)]
    assert check_targets([1], lesions) == (1,)
    with pytest.raises(
        InputError, match=r"lesion 7 has no voxel in any slice at .*, expected one of 1 \(30.0 mm\)"
    ):
        check_targets([7], lesions)
    with pytest.raises(
        InputError, match="lesion 2 has a longest diameter of 9.0 mm, expected .* at least 10 mm"
    ):
        check_targets([2], lesions)
    with pytest.raises(InputError, match="lesion 3 .* at least 14 mm"):
        check_targets([3], lesions)
    with pytest.raises(InputError, match="1, 2, 3, expected at most 2"):
        check_targets([1, 2, 3], lesions)
    with pytest.raises(InputError, match="1, 1, expected at most 2, each once"):
        check_targets([1, 1], lesions)
