"""Robustness, features and novelty."""

import numpy as np
import pytest

from liverjax.datasets.layouts import find_cases
from liverjax.errors import ConfigError, InputError
from liverjax.insight import Novelty, features, principal_axes, profiles
from liverjax.insight.changes import CHANGES, robustness
from liverjax.pretrained.load import load_model

BY_NAME = {change.name: change for change in CHANGES}


def test_changes_do_what_they_say():
    spacing = np.array([3.0, 3.0, 3.0])
    voxels = np.random.default_rng(0).uniform(-1, 1, (40, 30, 20)).astype(np.float32)
    applied = {name: lambda s, c=change: c.apply(voxels, s, spacing) for name, change in BY_NAME.items()}
    np.testing.assert_allclose(applied["contrast"](0.5), voxels / 2)
    np.testing.assert_array_equal(applied["mirrored"](1), voxels[::-1])
    shifted = applied["shift"](15)  # 5 voxels to the right, which is where x grows
    np.testing.assert_array_equal(shifted[5:], voxels[:-5])
    assert (shifted[:5] == -1).all() and (applied["shift"](1000) == -1).all()
    left = applied["missing slices"](4)
    np.testing.assert_array_equal(left[:, :, [0, 3, 4, 19]], voxels[:, :, [0, 0, 4, 16]])
    grey = np.zeros((60, 60, 60), np.float32)
    # 10 % of the window, which is 2 wide.
    assert BY_NAME["noise"].apply(grey, 10, spacing).std() == pytest.approx(0.2, rel=0.01)
    line = grey.copy()
    line[30, 30, 30] = 1
    profile = BY_NAME["blur"].apply(line, 20, spacing)[30, 30]
    # Half the maximum 10 mm from the middle: between the third and the fourth voxel.
    assert profile[33] > profile[30] / 2 > profile[34]
    for change in CHANGES:
        np.testing.assert_allclose(change.apply(voxels, change.strengths[0], spacing), voxels, atol=1e-6)


def test_masks_move_with_the_patient():
    mask = np.zeros((10, 4, 4), bool)
    mask[2] = True
    moved = BY_NAME["shift"].apply(mask, 6, np.full(3, 3.0))
    assert moved.dtype == bool and moved[4].all() and moved.sum() == 16
    assert BY_NAME["mirrored"].apply(mask, 1, np.full(3, 3.0))[7].all()


def test_profiles_have_a_row_for_all_and_start_from_one_dice(tiny_run, phantom_scans):
    (case, *_) = find_cases(phantom_scans)
    rows = robustness(load_model(tiny_run), [(case.id, *case.read_pair())])
    assert len(rows) == sum(len(change.strengths) for change in CHANGES)
    starts = {row["dice"] for row in rows if row["strength"] == BY_NAME[row["change"]].strengths[0]}
    assert len(starts) == 1


def test_principal_axes_of_a_known_cloud():
    # Points on a line through (1, 2) along (3, 4) / 5 with standard deviation 10.
    along = np.array([-10.0, 0.0, 10.0])
    mean, axes, deviations = principal_axes(np.array([1, 2]) + along[:, None] * np.array([0.6, 0.8]))
    np.testing.assert_allclose(mean, [1, 2])
    np.testing.assert_allclose(axes, [[0.6, 0.8]])
    np.testing.assert_allclose(deviations, [10])


def test_novelty_is_the_mean_distance_to_five_neighbours_in_standard_deviations():
    training = np.arange(11.0)[:, None] * np.array([[2.0, 0.0]])
    novelty = Novelty.of(training)
    deviation = training[:, 0].std(ddof=1)
    # From 30 the nearest are 20, 18, 16, 14, 12: 14 away in the mean. What lies off the axis is not seen.
    np.testing.assert_allclose(novelty.distance(np.array([[30.0, 5.0]])), [14 / deviation])
    # From 10 itself: 0, 2, 2, 4, 4.
    np.testing.assert_allclose(novelty.distance(np.array([[10.0, 0.0]])), [12 / 5 / deviation])


def test_bottleneck_vectors_are_means_of_the_maps(pooled):
    network, variables = pooled
    slices = np.random.default_rng(0).uniform(0.1, 1, (3, 8, 8)).astype(np.float32)
    expected = slices.reshape(3, 4, 2, 4, 2).max((2, 4)).mean((1, 2))
    np.testing.assert_allclose(features.bottleneck(network, variables, slices)[:, 0], expected, rtol=1e-5)
    maps = features.feature_maps(network, variables, slices[0], "encoder_1")
    np.testing.assert_allclose(maps, slices[:1].reshape(1, 4, 2, 4, 2).max((2, 4)), rtol=1e-5)
    assert features.exciting(np.array([[1.0], [3.0], [2.0]]), 0, 2) == [1, 2]


def test_ranking_counts_failures():
    rows = [
        {"data set": "a", "case": str(i), "dice": dice, "distance": distance, "expected dice": expected}
        for i, (dice, distance, expected) in enumerate(
            [(0.9, 1, 0.9), (0.95, 2, 0.9), (0.3, 3, 0.9), (0.1, 0, 0.2)]
        )
    ]
    distance, expected = profiles.ranking(rows)
    # Failed: distances 3 and 0 against 1 and 2: two of four pairs. Expected Dice: 0.9 ties twice, 0.2 is below.
    assert distance.startswith(
        "AUROC of the distance to the training slices for a Dice below 0.8 (2 of 4 scans): 0.50"
    )
    assert "low first" in expected and ": 0.75 (" in expected
    assert "no ranking" in profiles.ranking(rows[:2])[0]


def test_features_need_training_and_other_cases(tiny_run, phantom_scans):
    model = load_model(tiny_run)
    cases = find_cases(phantom_scans)
    chosen = [case for case in cases if case.id in model.subset("train")][:2]
    with pytest.raises(InputError, match="only cases that trained"):
        profiles.features(model, {"phantoms": chosen})
    with pytest.raises(ConfigError, match="channel is 9, but encoder_1 has 8 feature maps, expected 0 to 7"):
        profiles.features(model, {"phantoms": chosen}, channel=9)
