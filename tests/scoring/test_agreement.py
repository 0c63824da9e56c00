"""The agreement of observers, against outside tools and by hand."""

import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest
from scipy import ndimage

from liverjax.scoring import consensus
from liverjax.scoring.rater_agreement import fleiss_kappa, icc, krippendorff_alpha


def _load(name):
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _load("agreement_values")
STORED = json.loads(oracle.STORED.read_text(encoding="utf-8"))


def test_icc_equals_pingouin():
    for index, expected in enumerate(STORED["icc"]):
        found = icc(oracle.table(index))
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, abs=1e-6), (index, name)


def test_kappa_equals_statsmodels_and_alpha_krippendorff():
    for index, expected in enumerate(STORED["alpha"]):
        assert krippendorff_alpha(oracle.counts(oracle.classes(index))) == pytest.approx(expected, abs=1e-6)
    for index, expected in enumerate(STORED["fleiss"]):
        assert fleiss_kappa(oracle.counts(np.abs(oracle.classes(index)))) == pytest.approx(expected, abs=1e-6)


def _assert_staple(masks, expected):
    patterns = consensus.patterns(masks)
    found = consensus.staple(consensus.pattern_counts(patterns, len(masks)))
    # Both stop when no performance changes by more than 1e-7, which leaves differences of some 1e-6.
    assert found.sensitivity == pytest.approx(expected["sensitivity"], abs=3e-6)
    assert found.specificity == pytest.approx(expected["specificity"], abs=1e-6)
    for pattern, value in expected["probability"].items():
        assert found.probability[int(pattern)] == pytest.approx(value, abs=3e-6)


def _assert_voxels(masks, expected):
    counts = consensus.pattern_counts(consensus.patterns(masks), len(masks))
    kappa, alpha = consensus.voxel_agreement(counts)
    assert (kappa, alpha) == pytest.approx((expected["kappa"], expected["alpha"]), abs=1e-6)


def test_staple_equals_itk_and_voxels_the_other_two():
    for index in range(20):
        _assert_staple(oracle.masks(index), STORED["staple"][index])
        _assert_voxels(oracle.masks(index), STORED["voxels"][index])


def test_the_same_of_three_radiologists(real_data):
    masks = oracle.real_masks(real_data)
    _assert_staple(masks, STORED["real"]["staple"])
    _assert_voxels(masks, STORED["real"]["voxels"])


def test_icc_by_hand():
    # Two raters, three cases, the second always 2 above: consistency is full, agreement is not. Row means 2, 4, 6:
    # MSR = 2 x 4 = 8; MSC = 3 x 2 = 6; MSE = 0. ICC(2,1) = 8 / (8 + 2 x 6 / 3) = 2/3.
    found = icc([[1, 3], [3, 5], [5, 7]])
    assert found["ICC(3,1)"] == (1, 1, 1)
    assert found["ICC(2,1)"][0] == pytest.approx(2 / 3)
    assert found["ICC(2,1)"][1] < 2 / 3 < found["ICC(2,1)"][2]
    # The example of Shrout and Fleiss 1979, table 2: 0.29 and 0.71.
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = icc(judges)
    assert (found["ICC(2,1)"][0], found["ICC(3,1)"][0]) == pytest.approx((0.29, 0.71), abs=0.005)


def test_icc_of_what_defines_none():
    assert icc([[1, 1], [2, 2], [4, 4]]) == {"ICC(2,1)": (1, 1, 1), "ICC(3,1)": (1, 1, 1)}
    for undefined in ([[1, 2]], [[1], [2]], [[1, 2], [math.nan, 3]], [[3, 3], [3, 3]]):
        assert all(math.isnan(value) for values in icc(undefined).values() for value in values)
    # A case that lacks a value is left out.
    assert icc([[1, 2], [math.nan, 9], [4, 6], [3, 3]]) == icc([[1, 2], [4, 6], [3, 3]])


def test_patterns_hold_every_reader_and_lose_one():
    masks = [np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])]
    found = consensus.patterns(masks)
    assert found.tolist() == [0, 1, 7, 2]
    assert consensus.votes(3)[found].tolist() == [0, 1, 3, 1]
    counts = consensus.pattern_counts(found, 3)
    for reader in range(3):
        others = [mask for index, mask in enumerate(masks) if index != reader]
        assert consensus.drop(found, reader).tolist() == consensus.patterns(others).tolist()
        expected = consensus.pattern_counts(consensus.patterns(others), 2)
        assert consensus.without(counts, reader).tolist() == expected.tolist()
    assert consensus.majority(3)[found].tolist() == [False, False, True, False]
    assert not consensus.majority(2)[1]  # A tie is outside.
    with pytest.raises(ValueError, match="expected 1 to 16 of one shape"):
        consensus.patterns([np.zeros(3), np.zeros(4)])


def test_the_band_is_within_its_distance_of_a_disagreement():
    rng = np.random.default_rng(0)
    masks = [np.zeros((20, 18, 16), bool) for _ in range(3)]
    for mask in masks:
        mask[5:12, 5:12, 5:12] = True
        mask[tuple(rng.integers(4, 12, (3, 2)))] ^= True
    found, spacing = consensus.patterns(masks), (1.0, 1.5, 3.0)
    differ = (found != 0) & (found != 7)
    expected = ndimage.distance_transform_edt(~differ, sampling=spacing) <= 3.0
    assert np.array_equal(consensus.band(found, 3, spacing, 3.0), expected)
    assert not consensus.band(np.full((3, 3, 3), 7, np.uint16), 3, spacing, 3.0).any()


def test_agreement_of_identical_readers_is_not_defined_by_an_empty_band():
    assert all(map(math.isnan, consensus.voxel_agreement(np.zeros(8))))
    found = consensus.staple(np.array([90, 0, 0, 10]))
    assert found.probability[[0, 3]] == pytest.approx([0, 1], abs=1e-6)
    assert found.sensitivity == pytest.approx([1, 1]) and found.specificity == pytest.approx([1, 1])


def test_staple_finds_the_reader_who_is_worse():
    """40,000 voxels, a quarter in the structure; readers with known performance, independent of one another."""
    rng = np.random.default_rng(1)
    truth = rng.random(40_000) < 0.25
    sensitivity, specificity = np.array([0.95, 0.9, 0.7]), np.array([0.9, 0.95, 0.8])
    masks = [
        np.where(truth, rng.random(truth.size) < p, rng.random(truth.size) > q)
        for p, q in zip(sensitivity, specificity, strict=True)
    ]
    found = consensus.staple(consensus.pattern_counts(consensus.patterns(masks), 3), prior=0.25)
    assert found.sensitivity == pytest.approx(sensitivity, abs=0.02)
    assert found.specificity == pytest.approx(specificity, abs=0.02)
