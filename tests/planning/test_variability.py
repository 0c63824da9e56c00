"""How response varies with the rater."""

import csv
import math
import time

import numpy as np
import pytest

from liverjax.errors import InputError
from liverjax.planning import variability
from liverjax.planning.course import Finding, Part, Visit
from liverjax.planning.raters import compare_raters
from liverjax.planning.variability import RaterCourse, fleiss_kappa, kappa, simulate_raters
from liverjax.report import raters_report
from liverjax.scoring.rater_agreement import limits_of_agreement

#: Fourteen psychiatrists, ten patients, five diagnoses: published kappa 0.210.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def _course(rater, baseline, follow_up, targets, case="a"):
    """Diameters of lesions 1, 2, ... at two time points; 0 is gone."""
    visits = [
        Visit(name, tuple(Finding((i + 1,), (Part(float(mm)),) if mm else ()) for i, mm in enumerate(sizes)))
        for name, sizes in (("t0", baseline), ("t1", follow_up))
    ]
    return RaterCourse(
        rater, case, tuple(visits), targets, {i + 1: f"L{i + 1}" for i in range(len(follow_up))}
    )


def test_fleiss_kappa_of_the_published_example():
    """P = 0.378, P_e = 0.213: kappa = (0.378 - 0.213) / (1 - 0.213) = 0.210."""
    counts = np.array(FLEISS)
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    # The value of statsmodels 0.15.0.
    assert fleiss_kappa(counts) == pytest.approx(0.20993070442195522, abs=1e-12)


def test_fleiss_kappa_equals_statsmodels():
    theirs = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = rng.multinomial(rng.integers(2, 9), rng.dirichlet(np.ones(4)), size=rng.integers(2, 20))
        expected = theirs.fleiss_kappa(counts)
        assert fleiss_kappa(counts) == pytest.approx(float(expected), abs=1e-12, nan_ok=True)


def test_fleiss_kappa_by_hand():
    # Two cases, two raters: agreed on A; one A, one B. P = (1 + 0) / 2; p_A = 3/4, p_B = 1/4: P_e = 10/16.
    assert fleiss_kappa(np.array([[2, 0], [1, 1]])) == pytest.approx((0.5 - 0.625) / 0.375)
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1
    assert math.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    counts = np.array([[1, 1, 1, 3], [0, 3, 3, 0], [2, 0, 2, 2]])
    assert fleiss_kappa(counts) == fleiss_kappa(
        counts[:, [2, 0, 3, 1]]
    )  # the order of classes does not matter


def test_the_interval_of_kappa_is_drawn_over_cases():
    rows = [dict.fromkeys(variability.CLASSES, 0.0) | {"raters": 4, "PR": 1.0} for _ in range(10)]
    for row in rows[:5]:
        row.update(PR=0.0, SD=1.0)
    found = kappa(rows)
    assert (found["kappa"], found["ci_low"], found["ci_high"]) == (1, 1, 1)
    rows[0].update(SD=0.5, PD=0.5)
    found = kappa(rows)
    assert found["ci_low"] < found["kappa"] < found["ci_high"] <= 1
    assert found == kappa(rows)
    assert math.isnan(kappa(rows[:1])["ci_low"])


def test_shares_of_classes_and_agreement():
    # 30 -> 20: PR; 30 -> 22: SD (-27 %); 30 -> 36: PD.
    courses = [_course(str(i), [30], [mm], (1,)) for i, mm in enumerate((20, 20, 22, 36))]
    (row,) = variability.class_rows(variability.by_case(courses))
    assert (row["case"], row["time_point"], row["raters"]) == ("a", "t1", 4)
    assert [row[name] for name in ("CR", "PR", "SD", "PD")] == [0, 0.5, 0.25, 0.25]
    # Of the six pairs of raters one agrees.
    assert row["agreement"] == pytest.approx(1 / 6)


def test_the_choice_of_lesions_makes_the_difference():
    # Lesion 1 is stable, lesion 2 shrinks by half: whoever measures 1 sees SD, whoever measures 2 PR.
    sizes = [30, 28], [30, 14]
    courses = [_course("x", *sizes, (1,)), _course("y", *sizes, (2,)), _course("z", *sizes, (1,))]
    rows = variability.choice_rows(variability.by_case(courses))
    assert [row["class"] for row in rows] == ["SD", "PR", "SD"]
    assert [row["class_with_common_targets"] for row in rows] == ["SD", "SD", "SD"]
    assert {row["reason"] for row in rows} == {"choice"} and rows[0]["common_targets"] == "L1"
    # They chose alike, but measured otherwise.
    courses = [_course("x", [30, 28], [30, 14], (1,)), _course("y", [30, 28], [20, 14], (1,))]
    assert {row["reason"] for row in variability.choice_rows(variability.by_case(courses))} == {"measurement"}
    # They chose otherwise, and the common lesion is measured otherwise too.
    courses = [_course("x", [30, 28], [20, 28], (1,)), _course("y", [30, 28], [36, 28], (2,))]
    assert {row["reason"] for row in variability.choice_rows(variability.by_case(courses))} == {"both"}
    courses = [_course("x", [30, 28], [30, 28], (1,)), _course("y", [30, 28], [30, 28], (2,))]
    assert {row["reason"] for row in variability.choice_rows(variability.by_case(courses))} == {"agree"}


def test_limits_of_agreement_by_hand():
    rows = [{"x": 10.0, "y": 12.0}, {"x": 20.0, "y": 20.0}, {"x": 30.0, "y": 34.0}, {"x": 7.0, "y": math.nan}]
    pair, any_two = limits_of_agreement(rows, ["x", "y"])
    # Differences -2, 0, -4: mean -2, sd 2.
    assert (pair["raters"], pair["n"], pair["bias"], pair["sd"]) == ("x - y", 3, -2, 2)
    assert (pair["lower"], pair["upper"]) == pytest.approx((-5.92, 1.92))
    # Within lesions: (2 + 0 + 8) / 3 is the variance; of a difference twice that.
    assert any_two["n"] == 3 and any_two["sd"] == pytest.approx(math.sqrt(20 / 3))
    assert any_two["upper"] == pytest.approx(1.96 * math.sqrt(20 / 3)) == -any_two["lower"]


def test_a_lesion_that_one_rater_did_not_find_is_left_out_of_limits():
    courses = [_course("x", [30, 9], [30, 9], (1,)), _course("y", [32, 0], [31, 8], (1,))]
    found = compare_raters(courses)
    assert [(row["time_point"], row["lesion"]) for row in found.diameters] == [
        ("t0", "L1"), ("t0", "L2"), ("t1", "L1"), ("t1", "L2"),
    ]  # fmt: skip
    assert math.isnan(found.diameters[1]["y"])
    assert found.limits["diameters"][0]["n"] == 3
    assert [row["x"] for row in found.sums] == [30, 30]
    # Rater y has a new lesion of 8 mm at t1.
    assert found.classes[0]["PD"] == 0.5


def test_raters_must_have_read_the_same():
    with pytest.raises(InputError, match="raters: x; expected at least two"):
        compare_raters([_course("x", [30], [30], (1,))])
    with pytest.raises(InputError, match="no reading of b by x"):
        compare_raters([_course("x", [30], [30], (1,)), *(_course("y", [30], [30], (1,), c) for c in "ab")])
    other = _course("y", [30], [30], (1,))
    other = RaterCourse("y", "a", other.visits[:1], (1,), other.names)
    with pytest.raises(InputError, match="case a: time points t0 by y and t0, t1 by x; expected the same"):
        compare_raters([_course("x", [30], [30], (1,)), other])


def test_simulated_raters_have_the_stated_errors():
    truth = _course("", [30, 25, 40], [20, 25, 35], (1, 3))
    raters = simulate_raters(truth, 2000, error_mm=2, bias_mm=1.5)
    sizes = np.array([[f.parts[0].longest_mm for visit in r.visits for f in visit.findings] for r in raters])
    assert sizes.mean(0) == pytest.approx([30, 25, 40, 20, 25, 35], abs=0.25)
    assert sizes.std(0) == pytest.approx(np.full(6, math.hypot(2, 1.5)), rel=0.08)
    # What two measurements of one rater share is the bias: their covariance is 1.5 squared.
    assert np.cov(sizes[:, 0], sizes[:, 4])[0, 1] == pytest.approx(2.25, abs=0.4)
    three = repr(simulate_raters(truth, 3, error_mm=2))  # not known numbers are NaN, which equals nothing
    assert three == repr(simulate_raters(truth, 5, error_mm=2)[:3])
    assert three != repr(simulate_raters(truth, 3, error_mm=2, seed=1))


def test_raters_without_error_agree_and_choose_the_largest():
    truth = _course("", [30, 25, 40], [20, 25, 35], (2, 3))
    (one, two) = simulate_raters(truth, 2, error_mm=0)
    assert repr(one.visits) == repr(two.visits) == repr(truth.visits) and one.targets == (1, 3)
    assert simulate_raters(truth, 2, error_mm=0, choose=False)[0].targets == (2, 3)
    found = compare_raters([one, two])
    assert found.classes[0]["agreement"] == 1 and {row["reason"] for row in found.choices} == {"agree"}


def test_lesions_of_nearly_one_size_are_chosen_differently():
    truth = _course("", [30, 29.5, 29], [30, 15, 29], (1, 2))
    raters = simulate_raters(truth, 40, error_mm=1)
    assert len({rater.target_names() for rater in raters}) == 3
    found = compare_raters(raters)
    assert found.choices[0]["reason"] in ("choice", "both")


def test_many_raters_are_each_compared_with_the_mean_of_the_others():
    """Three rows by hand, of which the first rater lacks the second; all 21 others say 10, but the last 12."""
    raters = [f"r{i}" for i in range(22)]
    rows = [dict.fromkeys(raters, 10.0) | {"r0": first, "r21": 12.0} for first in (14.0, math.nan, 11.0)]
    found = limits_of_agreement(rows, raters)
    assert [row["raters"] for row in found] == [f"{r} - mean of the others" for r in raters] + ["any two"]
    # Of r0: 14 and 11 against (20 * 10 + 12) / 21.
    others = 212 / 21
    assert found[0]["n"] == 2 and found[0]["bias"] == pytest.approx((14 + 11) / 2 - others)
    assert found[0]["sd"] == pytest.approx(np.std([14 - others, 11 - others], ddof=1))
    assert (found[21]["n"], found[1]["n"]) == (3, 3)
    # With 20 raters or fewer every pair is there.
    pairs = limits_of_agreement(rows, raters[:20])
    assert len(pairs) == 20 * 19 // 2 + 1
    assert pairs[-1] == limits_of_agreement(rows, raters[:20])[-1]


def test_four_hundred_raters_take_seconds_and_a_small_page(tmp_path):
    course = _course("x", [30, 28, 15], [20, 28, 15], (1, 2))
    start = time.process_time()
    found = compare_raters(simulate_raters(course, 400, error_mm=2, bias_mm=1))
    found.save(tmp_path)
    page = raters_report(tmp_path / "raters.html", **found.report_rows())
    assert time.process_time() - start < 15  # Every pair by itself took a minute.
    assert page.stat().st_size < 200_000 and "400, rater 1 to rater 400" in page.read_text()
    with open(tmp_path / "limits.csv", newline="") as file:
        limits = list(csv.DictReader(file))
    assert {row["of"] for row in limits} == {"diameters", "sums"} and len(limits) == 2 * 401
    assert not (tmp_path / "volumes.csv").exists()  # Simulated raters have no volumes.
