"""Maps and scores of doubt: values worked out by hand."""

import numpy as np
import pytest

from liverjax.inference.fuse import Fused
from liverjax.inference.uncertainty import uncertainty_maps
from liverjax.prediction import slice_quality
from liverjax.scans.grid import working_grid
from liverjax.volume import Volume


def _entropy(*shares):
    return -sum(p * np.log(p) for p in shares if p)


def test_views_that_agree_and_views_that_do_not():
    # One voxel each: sure; all members at 1/2; one member sure of the one class, the other of the other.
    members = np.array([[[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    mean = members.mean(0)[:, None, None].astype(np.float32)
    own = np.mean([[_entropy(*p) for p in member] for member in members], 0)[:, None, None].astype(np.float32)
    maps = uncertainty_maps(Fused(mean, own))
    np.testing.assert_allclose(maps.entropy.ravel(), [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(maps.mutual_information.ravel(), [0, 0, 1], atol=1e-6)


def test_entropy_is_a_share_of_that_of_equal_classes():
    mean = np.array([[1, 1, 1], [2, 1, 1]], np.float32) / np.array([[3], [4]], np.float32)
    maps = uncertainty_maps(Fused(mean[:, None, None], np.zeros((2, 1, 1), np.float32)))
    expected = [1, _entropy(0.5, 0.25, 0.25) / np.log(3)]
    np.testing.assert_allclose(maps.entropy.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("flipped", [False, True])
def test_doubt_of_slices_by_hand(flipped):
    # Slices of 10 x 10 voxels of 2 x 2 mm, one per row of this table: liver probability p in all voxels.
    p = np.array([0.0, 1.0, 0.75, 0.25])
    liver = np.broadcast_to(p, (10, 10, 4))
    probabilities = np.stack([1 - liver, liver], -1).astype(np.float32)
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    if flipped:  # the scan stores its slices from the head down
        affine[2, 2], affine[2, 3] = -5.0, 15.0
    scan = Volume(np.zeros((10, 10, 4), np.int16), affine)
    doubt = slice_quality(probabilities, working_grid(scan, (2.0, 2.0, 5.0)), scan)
    # Area 400 mm2, s = 100 mm2: 1 - s/s; 1 - 900/900; 1 - (2*300 + 100)/(400 + 300 + 100); 1 - 100/(100 + 100).
    expected = np.array([0, 0, 1 / 8, 1 / 2])
    np.testing.assert_allclose(doubt, expected[::-1] if flipped else expected, atol=1e-6)


def test_doubt_between_slices_of_the_grid():
    # Working slices at -1, 1, 3, 5 mm hold doubt 0, 0, 1/2, 1/2; those of the scan lie at 0 and 4 mm.
    p = np.broadcast_to(np.array([0.0, 0.0, 0.25, 0.25]), (10, 10, 4))
    probabilities = np.stack([1 - p, p], -1).astype(np.float32)
    scan = Volume(np.zeros((10, 20, 2), np.int16), np.diag([2.0, 1.0, 4.0, 1.0]))
    grid = working_grid(scan, (2.0, 2.0, 2.0))
    assert grid.shape == (10, 10, 4)
    np.testing.assert_allclose(slice_quality(probabilities, grid, scan), [0, 1 / 2], atol=1e-6)
