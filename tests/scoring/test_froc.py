"""FROC curves, operating points and effects, by hand on a small cohort."""

import math

import numpy as np
import pytest

from liverjax.objects.candidates import Truth
from liverjax.scoring import froc

# Case a: candidates 0 (hits lesions 0 and 1), 1 (false), 2 (hits lesion 1). Case b: 3 (false), 4 (hits lesion 3);
# lesion 2 is missed. Case c: nothing at all.
TRUTHS = [
    Truth(np.array([True, False, True]), np.array([[0, 0], [0, 1], [2, 1]]), 2),
    Truth(np.array([False, True]), np.array([[1, 1]]), 2),
    Truth(np.zeros(0, bool), np.zeros((0, 2), int), 0),
]
SCORE = np.array([0.9, 0.5, 0.95, 0.7, 0.3])


@pytest.fixture
def cohort():
    return froc.gather(TRUTHS, ("a", "b", "c"), ("p", "q", "q"))


def test_cases_are_put_together(cohort):
    assert cohort.case.tolist() == [0, 0, 0, 1, 1] and cohort.lesion_case.tolist() == [0, 0, 1, 1]
    assert cohort.hits.tolist() == [[0, 0], [0, 1], [2, 1], [4, 3]]
    assert cohort.patient.tolist() == ["p", "p", "p", "q", "q"]
    empty = froc.gather([], (), ())
    assert empty.hits.shape == (0, 2) and len(empty.true) == 0


def test_a_lesion_is_found_by_its_best_candidate(cohort):
    assert froc.best_of_lesions(cohort, SCORE).tolist() == [0.9, 0.95, -math.inf, 0.3]


def test_the_curve_by_hand(cohort):
    curve = froc.froc(cohort, SCORE)
    assert curve.threshold.tolist() == [0.95, 0.9, 0.7, 0.5, 0.3]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5, 0.5, 0.75]
    assert curve.false_positives.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 2 / 3])


def test_scores_that_tie_go_together(cohort):
    curve = froc.froc(cohort, np.full(5, 0.5))
    assert (curve.threshold.tolist(), curve.recall.tolist()) == ([0.5], [0.75])


@pytest.mark.parametrize(
    ("share", "threshold"), [(1, 0.3), (0.95, 0.3), (2 / 3, 0.9), (0.5, 0.9), (1 / 3, 0.95)]
)
def test_the_operating_point_is_the_highest_that_keeps_the_share(cohort, share, threshold):
    assert froc.operating_point(cohort, SCORE, share) == threshold


def test_95_percent_of_20_lesions_are_19():
    truth = Truth(np.ones(20, bool), np.stack([np.arange(20)] * 2, axis=1), 20)
    cohort = froc.gather([truth], ("a",), ("a",))
    assert froc.operating_point(cohort, np.arange(20) / 20) == 1 / 20


def test_without_lesions_there_is_no_operating_point(cohort):
    for share in (0.95, 0, 1.1):
        scores = SCORE if share != 0.95 else np.full(5, -math.inf)
        with pytest.raises(ValueError, match="of one or more"):
            froc.operating_point(cohort, scores, share)


def test_the_effect_by_hand(cohort):
    effect = froc.effect(cohort, SCORE >= 0.6)
    point = {name: value for name, (value, _, _) in effect.items()}
    assert list(point) == list(froc.EFFECTS)
    assert point == pytest.approx(
        {
            "recall_before": 0.75,
            "recall_after": 0.5,
            "recall_lost": 0.25,
            "false_positives_before": 2 / 3,
            "false_positives_after": 1 / 3,
            "false_positives_removed": 0.5,
        }
    )
    # Two patients: draws of the first alone, of both, and of the second alone are the extremes.
    assert effect["recall_after"][1:] == pytest.approx((0, 1))
    assert effect["false_positives_after"][1:] == pytest.approx((0, 0.5))


def test_the_difference_is_paired_and_drawn_by_patient():
    rng = np.random.default_rng(0)
    false = rng.integers(3, 9, size=30)
    truths = [Truth(np.zeros(n, bool), np.zeros((0, 2), int), 0) for n in false]
    ids = tuple(map(str, range(30)))
    cohort = froc.gather(truths, ids, ids)
    all_kept = np.ones(false.sum(), bool)
    first = np.r_[True, np.diff(cohort.case) > 0]
    # One candidate fewer in every case: the difference is 1 in every draw, however much the cases differ.
    assert froc.difference(cohort, all_kept & ~first, all_kept) == (-1, -1, -1)
    mean, low, high = froc.difference(cohort, first, all_kept)
    assert low < mean < high < 0 and mean == pytest.approx(1 - false.mean())
    alone = froc.gather(truths, ids, ("p",) * 30)
    assert np.isnan(froc.difference(alone, first, all_kept)[1:]).all()
