"""Statistics against values worked out by hand and against theory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from liverjax.scoring import statistics


def test_what_is_undefined_is_left_out_and_counted():
    found = statistics.describe([1.0, math.nan, 2.0, 6.0])
    assert found == {
        "mean": 3, "median": 2, "sd": pytest.approx(math.sqrt(7)), "min": 1, "max": 6, "n": 3, "undefined": 1,
        "infinite": 0,
    }  # fmt: skip


def test_a_missed_case_does_not_improve_a_mean():
    found = statistics.describe([1.0, 2.0, math.inf])
    assert (found["mean"], found["median"], found["infinite"], found["n"]) == (math.inf, 2, 1, 3)
    assert math.isnan(found["sd"])


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_defined(values):
    found = statistics.describe(values)
    assert (found["n"], found["undefined"]) == (0, len(values))
    assert math.isnan(found["mean"]) and math.isnan(found["median"])


def test_one_value_has_no_spread():
    found = statistics.describe([4.0])
    assert found["mean"] == found["median"] == 4
    assert math.isnan(found["sd"])


def test_the_interval_of_many_normal_values_is_that_of_theory():
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = statistics.confidence_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_the_interval_depends_on_the_seed_alone():
    values = np.random.default_rng(0).normal(size=30)
    assert statistics.confidence_interval(values, seed=3) == statistics.confidence_interval(values, seed=3)
    assert statistics.confidence_interval(values, seed=3) != statistics.confidence_interval(values, seed=4)
    with_undefined = [*values, math.nan]
    assert statistics.confidence_interval(values) == statistics.confidence_interval(with_undefined)


@pytest.mark.parametrize(
    "values", [[], [1.0], [1, math.inf, 2, 3], [math.nan, 1], [1, 2], [1, 2, 9], [5, 5, 5]]
)
def test_too_little_for_an_interval(values):
    assert np.isnan(statistics.confidence_interval(values)).all()


def test_the_interval_of_few_cases_is_narrower_than_their_range():
    # Four equal draws of the smallest of four: 1 in 256, less than the tail of 1 in 40.
    low, high = statistics.confidence_interval([1.0, 2.0, 4.0, 9.0])
    assert 1 < low < 4 < high < 9
    # Three: 1 in 27, which a tail of 1 in 20 outweighs.
    assert not np.isnan(statistics.confidence_interval([1.0, 2.0, 9.0], confidence=0.9)).any()


def test_the_interval_of_a_skewed_sample_is_bias_corrected_and_accelerated():
    # Efron 1987: with means m* of resamples, z0 = PHI^-1(share of m* < m), a = sum(d^3) / (6 sum(d^2)^1.5) for the
    # deviations d of the mean from means without one case, and bounds at the quantiles
    # PHI(z0 + (z0 + z) / (1 - a (z0 + z))) of m*, for z = -1.96 and 1.96.
    values = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 2.5, 9.0])
    draws = np.random.default_rng(1).integers(10, size=(200_000, 10))
    means = np.sort(values[draws].mean(1))
    z0 = stats.norm.ppf((np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2)
    left_out = (values.sum() - values) / 9
    deviations = left_out.mean() - left_out
    a = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shifted = z0 + np.array([-1.96, 1.96])
    expected = np.quantile(means, stats.norm.cdf(z0 + shifted / (1 - a * shifted)))
    percentile = np.quantile(means, [0.025, 0.975])
    found = statistics.confidence_interval(values)
    assert found == pytest.approx(tuple(expected), rel=0.04)
    assert found[0] > 1.1 * percentile[0] and found[1] > 1.2 * percentile[1]


def test_the_interval_of_equal_values_is_a_point():
    assert statistics.confidence_interval([0.5] * 4) == (0.5, 0.5)


def test_five_cases_that_are_all_better():
    # Of the 2**5 ways to exchange pairs only all or none are as extreme: p = 2 / 32.
    a = np.array([0.91, 0.93, 0.92, 0.95, 0.90])
    b = a - [0.01, 0.02, 0.03, 0.04, 0.05]
    found = statistics.compare(a, b)
    assert found["mean_difference"] == pytest.approx(0.03)
    assert found["ci_low"] <= 0.03 <= found["ci_high"]
    assert found["p_wilcoxon"] == pytest.approx(2 / 32)
    assert found["p_permutation"] == pytest.approx(2 / 32)


def test_one_case_of_four_is_worse():
    # Signed ranks 1 (worse), 2, 3, 4: the sum of the worse ranks is 1; sums of 0 or 1, either side: 4 / 16.
    # Mean difference (2 + 3 + 4 - 1) / 4: eight or ten in magnitude, either sign: 4 / 16.
    found = statistics.compare([2.0, 3.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0])
    assert found["p_wilcoxon"] == pytest.approx(4 / 16)
    assert found["p_permutation"] == pytest.approx(4 / 16)


def test_pairs_with_an_undefined_value_are_left_out_and_counted():
    found = statistics.compare([1.0, math.nan, 3.0], [1.0, 2.0, math.nan])
    assert (found["n"], found["undefined"], found["mean_difference"]) == (1, 2, 0)


def test_equal_methods_and_methods_that_miss_the_same_case():
    for values in ([0.5, 0.6, 0.7], [math.inf, 1.0]):
        found = statistics.compare(values, values)
        assert (found["mean_difference"], found["p_wilcoxon"]) == (0, 1)


def test_a_case_that_one_method_missed():
    found = statistics.compare([math.inf, 1.0, 2.0, 3.0], [1.0, 0.9, 1.8, 2.7])
    assert found["mean_difference"] == math.inf
    assert found["p_wilcoxon"] == pytest.approx(2 / 16)
    assert math.isnan(found["p_permutation"]) and math.isnan(found["ci_low"])


def test_cases_that_either_method_missed_leave_no_mean():
    found = statistics.compare([math.inf, 1.0, 2.0], [1.0, math.inf, 1.5])
    assert (found["n"], found["undefined"]) == (3, 0)
    assert math.isnan(found["mean_difference"]) and math.isnan(found["ci_low"])
    # Ranks 2.5 (+), 2.5 (-) and 1 (+): of the 8 choices of signs, none has sums nearer to each other than 2.5 and 3.5.
    assert found["p_wilcoxon"] == pytest.approx(1)
    assert math.isnan(statistics.describe([math.inf, -math.inf])["mean"])


def test_no_pairs():
    found = statistics.compare([], [])
    assert found["n"] == 0 and math.isnan(found["p_wilcoxon"]) and math.isnan(found["p_permutation"])


def test_other_numbers_of_cases_are_refused():
    with pytest.raises(ValueError, match="3 values of one method and 2 of the other"):
        statistics.compare([1.0, 2.0, 3.0], [1.0, 2.0])


def test_holm_by_hand():
    # Sorted: 0.01 * 3, then the larger of that and 0.03 * 2, then the larger of that and 0.04 * 1.
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.7, 0.6]) == [1, 1]
    adjusted = statistics.holm([math.nan, 0.02, 0.03])
    assert math.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([0.04, 0.04])
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_helps(p_values):
    adjusted = statistics.holm(p_values)
    assert all(p <= after <= min(1, p * len(p_values)) for p, after in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values)
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_agreement_by_hand():
    # Differences 10, -10, 30; relative 10 %, -5 %, 10 %.
    found = statistics.agreement([110, 190, 330], [100, 200, 300])
    assert found["n"] == 3
    assert (found["bias"], found["sd"]) == pytest.approx((10, 20))
    assert (found["lower"], found["upper"]) == pytest.approx((10 - 39.2, 10 + 39.2))
    assert (found["relative_error"], found["absolute_relative_error"]) == pytest.approx((5, 25 / 3))
    # Deviations (-100, -20, 120) and (-100, 0, 100): 22000 / sqrt(24800 * 20000).
    assert found["r"] == pytest.approx(22000 / math.sqrt(24800 * 20000))


def test_agreement_of_what_is_empty():
    found = statistics.agreement([0, 5, math.nan], [0, 0, 1])
    assert (found["n"], found["bias"]) == (2, 2.5)
    assert math.isnan(found["r"]) and math.isnan(found["relative_error"])
    assert math.isnan(statistics.agreement([], [])["bias"])


def test_auroc_by_hand():
    # Pairs (3, 1), (3, 2), (2, 1) in order, (2, 2) a tie: 3.5 of 4.
    assert statistics.auroc([3, 1, 2, 2], [True, False, True, False]) == 3.5 / 4
    assert statistics.auroc([0, 1], [True, False]) == 0
    assert math.isnan(statistics.auroc([1, 2], [True, True]))


def test_the_interval_of_clusters_is_that_of_their_number_not_of_their_items():
    values = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    low, high = statistics.clustered_interval(
        lambda chosen: values[chosen].mean(keepdims=True), np.repeat(range(40), 10)
    )
    half = 1.96 * values[::10].std(ddof=1) / math.sqrt(40)
    assert (*low, *high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_one_cluster_or_nothing_defined_has_no_interval():
    def undefined(chosen):
        return np.full(2, math.nan)

    for statistic, clusters in ((lambda chosen: np.ones(2), [0, 0, 0]), (undefined, [0, 1, 2])):
        assert np.isnan(statistics.clustered_interval(statistic, clusters)).all()
