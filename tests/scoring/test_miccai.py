"""The MICCAI score against its definition."""

import math

import pytest

from liverjax.scoring import miccai


def test_a_trained_human_gets_75():
    assert miccai.score(miccai.REFERENCES) == pytest.approx(75)


def test_a_perfect_mask_gets_100():
    assert miccai.score(dict.fromkeys(miccai.REFERENCES, 0.0)) == 100


def test_each_metric_has_its_own_reference():
    # By hand: 100 - 25 * 8 / 6.4 = 68.75; 100 - 25 * 2.35 / 4.7 = 87.5; 100 - 25 * 0.6 / 1 = 85;
    # 100 - 25 * 0.9 / 1.8 = 87.5; 100 - 25 * 38 / 19 = 50.
    values = {"voe": 8.0, "rvd": -2.35, "assd": 0.6, "rmsd": 0.9, "hausdorff": 38.0}
    points = {metric: miccai.points(metric, value) for metric, value in values.items()}
    assert points == pytest.approx({"voe": 68.75, "rvd": 87.5, "assd": 85, "rmsd": 87.5, "hausdorff": 50})
    assert miccai.score(values) == pytest.approx((68.75 + 87.5 + 85 + 87.5 + 50) / 5)


def test_points_do_not_fall_below_0_and_the_sign_does_not_matter():
    assert miccai.points("assd", 4.0) == 0
    assert miccai.points("assd", 400.0) == 0
    assert miccai.points("rvd", -4.7) == miccai.points("rvd", 4.7) == 75


def test_a_missed_liver_gets_0():
    missed = {"voe": 100.0, "rvd": -100.0, "assd": math.inf, "rmsd": math.inf, "hausdorff": math.inf}
    assert miccai.score(missed) == 0


def test_both_empty_is_undefined():
    assert math.isnan(miccai.score(dict.fromkeys(miccai.REFERENCES, math.nan)))
