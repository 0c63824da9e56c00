"""Overlap metrics against values worked out by hand, and against their own identities."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.scoring import overlap
from liverjax.scoring.overlap import Overlap

MASK_PAIRS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def test_values_of_a_pair_counted_by_hand():
    prediction = np.array([[1, 1, 1, 0], [0, 0, 1, 0]])
    reference = np.array([[0, 1, 1, 1], [0, 0, 0, 0]])
    counted = overlap.count(prediction, reference)
    assert counted == Overlap(intersection=2, prediction=4, reference=3)
    assert counted.union == 5
    assert counted.dice == pytest.approx(4 / 7)
    assert counted.iou == pytest.approx(2 / 5)
    assert counted.voe == pytest.approx(60)
    assert counted.rvd == pytest.approx(100 / 3)


def test_both_empty_is_undefined():
    empty = Overlap(0, 0, 0)
    assert all(math.isnan(value) for value in (empty.dice, empty.iou, empty.voe, empty.rvd))


def test_one_empty_is_the_worst_value():
    missed, invented = Overlap(0, 0, 5), Overlap(0, 5, 0)
    assert (missed.dice, missed.iou, missed.voe, missed.rvd) == (0, 0, 100, -100)
    assert (invented.dice, invented.iou, invented.voe, invented.rvd) == (0, 0, 100, math.inf)


def test_rvd_is_positive_for_a_prediction_too_large():
    assert Overlap(2, 3, 2).rvd == 50
    assert Overlap(2, 2, 4).rvd == -50


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        overlap.count(np.ones((2, 2)), np.ones((2, 3)))


def test_means_over_cases():
    # Dice 0.5, 0 (missed) and undefined (both empty).
    cases = [Overlap(1, 2, 2), Overlap(0, 0, 6), Overlap(0, 0, 0)]
    assert overlap.dice_per_case(cases) == pytest.approx(0.25)
    assert overlap.dice_per_case_lits(cases) == pytest.approx(0.5)
    assert overlap.dice_global(cases) == pytest.approx(2 / 10)


def test_means_without_a_defined_case():
    assert math.isnan(overlap.dice_per_case([Overlap(0, 0, 0)]))
    assert math.isnan(overlap.dice_global([Overlap(0, 0, 0)]))
    assert overlap.dice_per_case_lits([Overlap(0, 0, 0)]) == 1
    assert math.isnan(overlap.dice_per_case_lits([]))


@given(MASK_PAIRS)
def test_identities(masks):
    prediction, reference = masks
    one, other = overlap.count(prediction, reference), overlap.count(reference, prediction)
    assert one.union == np.logical_or(prediction, reference).sum()
    if not one.union:
        return
    assert 0 <= one.iou <= one.dice <= 1
    assert one.dice == pytest.approx(2 * one.iou / (1 + one.iou))
    assert (one.dice, one.iou, one.voe) == (other.dice, other.iou, other.voe)
    assert (one.dice == 1) == np.array_equal(prediction, reference)


@given(MASK_PAIRS)
def test_agrees_with_simpleitk(masks):
    prediction, reference = masks
    if not (prediction.any() or reference.any()):
        return
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)))
    counted = overlap.count(prediction, reference)
    assert counted.dice == pytest.approx(measures.GetDiceCoefficient(), abs=1e-12)
    assert counted.iou == pytest.approx(measures.GetJaccardCoefficient(), abs=1e-12)
