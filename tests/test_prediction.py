"""What a prediction tells beside its mask: the quality of slices and volumes, worked out by hand."""

import itertools
import tracemalloc

import numpy as np
import pytest

from liverjax.prediction import Prediction
from liverjax.scans.grid import labels_on_scan, working_grid
from liverjax.volume import Volume


def _prediction(probabilities, spacing=(2.0, 2.0, 5.0), decision="nested", affine=None, scan_shape=None):
    """A prediction of probabilities (X, Y, Z, C), with the labels that are decided from them."""
    shape = probabilities.shape[:3] if scan_shape is None else scan_shape
    scan = Volume(np.zeros(shape, np.int16), np.diag([*spacing, 1.0]) if affine is None else affine)
    grid = working_grid(scan, spacing)
    labels = labels_on_scan(probabilities, grid, scan, decision=decision)
    return Prediction(labels, scan, probabilities, grid)


@pytest.mark.parametrize("flipped", [False, True])
def test_quality_of_slices_by_hand(flipped):
    # Slices of 10 x 10 voxels of 2 x 2 mm, one for each liver probability, which all its voxels have.
    p = np.array([0.0, 1.0, 0.75, 0.55, 0.25])
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    if flipped:  # the scan stores its slices from the head down
        affine[2, 2], affine[2, 3] = -5.0, 20.0
    liver = np.broadcast_to(p, (10, 10, 5))
    found = _prediction(np.stack([1 - liver, liver], -1).astype(np.float32), affine=affine).slice_quality()
    # Area 400 mm2, s = 100 mm2; the mask is all of the slice where p > 1/2, else nothing.
    expected = np.array([100 / 100, 900 / 900, 700 / 800, 540 / 720, 100 / 200])
    np.testing.assert_allclose(found, expected[::-1] if flipped else expected, atol=1e-6)


def test_quality_is_that_of_the_mask_that_was_decided():
    probabilities = np.broadcast_to(np.float32([0.40, 0.35, 0.25]), (10, 10, 2, 3))
    nested, argmax = (_prediction(probabilities, decision=rule) for rule in ("nested", "argmax"))
    assert (nested.labels.voxels == 1).all() and not argmax.labels.voxels.any()
    # By the one rule the mask is all of the slice's 400 mm2, of which 240 are expected, by the other nothing.
    np.testing.assert_allclose(nested.slice_quality(), (2 * 240 + 100) / (400 + 240 + 100), atol=1e-6)
    np.testing.assert_allclose(argmax.slice_quality(), 100 / (240 + 100), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_quality_is_the_expected_dice_of_the_labels_that_are_written(seed):
    # Any mask, as a clean-up may leave it, in any order of the axes.
    noise = np.random.default_rng(seed)
    order = list(itertools.permutations(range(3)))[noise.integers(6)]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.0, 3.0, 4.0])[:, order] * noise.choice([-1, 1], 3)
    shape = (6, 5, 7)
    scan = Volume(np.zeros(shape, np.int16), affine)
    grid = working_grid(scan, (2.0, 3.0, 4.0))
    probabilities = noise.dirichlet([1, 1, 1], grid.shape).astype(np.float32)
    labels = scan.with_voxels(noise.integers(0, 3, shape, np.uint8))
    prediction = Prediction(labels, scan, probabilities, grid)
    liver = prediction.probabilities()[..., 1:].sum(-1)
    axis = order.index(2)
    for index, quality in enumerate(prediction.slice_quality()):
        mask, p = labels.voxels.take(index, axis) > 0, liver.take(index, axis)
        both = 6.0 * (mask.sum() + p.sum())  # pixels of 2 x 3 mm
        assert quality == pytest.approx((2 * 6 * p[mask].sum() + 100) / (both + 100), abs=1e-5)


def test_quality_rests_on_the_mean_not_on_votes():
    votes = np.broadcast_to(np.float32([0, 1]), (10, 10, 1, 2))
    mean = np.broadcast_to(np.float32([0.45, 0.55]), votes.shape)
    one = _prediction(votes)
    other = Prediction(one.labels, one.scan, votes, one.grid, other_mean=mean)
    np.testing.assert_allclose([*one.slice_quality(), *other.slice_quality()], [1, 540 / 720], atol=1e-6)


def test_quality_between_slices_of_the_grid():
    # Working slices at 1 and 5 mm have p = 0 and 0.4; those of the scan lie at 0, 2, 4, 6 mm: p = 0, 0.1, 0.3, 0.4.
    p = np.broadcast_to(np.array([0.0, 0.4]), (10, 10, 2))
    probabilities = np.stack([1 - p, p], -1).astype(np.float32)
    affine = np.diag([2.0, 1.0, 2.0, 1.0])
    prediction = _prediction(probabilities, (2.0, 2.0, 4.0), affine=affine, scan_shape=(10, 20, 4))
    expected = [100 / (400 * share + 100) for share in (0, 0.1, 0.3, 0.4)]
    np.testing.assert_allclose(prediction.slice_quality(), expected, atol=1e-6)


def test_volumes_are_of_the_liver_with_its_tumours():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[:4], labels[:1] = 1, 2
    scan = Volume(np.zeros(labels.shape, np.int16), np.diag([2.0, -1.0, 5.0, 1.0]))
    grid = working_grid(scan, (2.0, 1.0, 5.0))
    prediction = Prediction(scan.with_voxels(labels), scan, np.zeros((*labels.shape, 3), np.float32), grid)
    assert prediction.volumes() == pytest.approx({"liver": 4.0, "tumor": 1.0})
    two_classes = Prediction(scan.with_voxels(labels), scan, np.zeros((*labels.shape, 2), np.float32), grid)
    assert two_classes.volumes() == pytest.approx({"liver": 4.0})


def test_expected_dice_of_the_whole_mask_by_hand():
    # 100 voxels for each liver probability; the mask is those of 1/2 or more.
    p = np.array([0.0, 1.0, 0.75, 0.5, 0.25])
    liver = np.broadcast_to(p, (10, 10, 5))
    one = _prediction(np.stack([1 - liver, 0.4 * liver, 0.6 * liver], -1).astype(np.float32))
    assert one.expected_dice() == pytest.approx(2 * 225 / (300 + 250))
    mean = np.broadcast_to(np.float32([0.45, 0.55]), (10, 10, 5, 2))
    votes = Prediction(one.labels, one.scan, one.grid_probabilities, one.grid, other_mean=mean)
    assert votes.expected_dice() == pytest.approx(2 * 275 / (500 + 275))


def test_expected_dice_of_a_mask_that_is_empty():
    nothing = _prediction(np.stack([np.full((4, 4, 4), 0.6), np.full((4, 4, 4), 0.4)], -1).astype(np.float32))
    assert nothing.expected_dice() == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_expected_dice_is_near_the_mean_dice_of_references_drawn_from_the_probabilities(seed):
    noise = np.random.default_rng(seed)
    liver = noise.beta(0.3, 0.5, (24, 24, 24)).astype(np.float32)
    mask, dices = liver >= 0.5, []
    for _ in range(20):
        drawn = noise.random(liver.shape) < liver
        dices.append(2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()))
    assert _prediction(np.stack([1 - liver, liver], -1)).expected_dice() == pytest.approx(
        np.mean(dices), abs=0.01
    )


def test_volumes_take_no_memory_to_speak_of():
    """A long scan that was segmented within its memory must not fail where its volumes are noted."""
    labels = np.zeros((160, 256, 256), np.uint8)
    labels[:40] = 1
    scan = Volume(labels, np.diag([1.0, 1.0, 1.0, 1.0]))
    prediction = Prediction(
        scan, scan, np.zeros((1, 1, 1, 2), np.float32), working_grid(scan, (2.0, 2.0, 2.0))
    )
    tracemalloc.start()
    volumes = prediction.volumes()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert volumes == pytest.approx({"liver": 40 * 256 * 256 / 1000})
    assert peak < 1.5 * labels.size  # masks of the regions took four times as much
