"""The box around a known liver, and the distance from it, against values by hand and scipy."""

import numpy as np
import scipy.ndimage

from liverjax.scans.grid import Grid, box_grid, working_grid
from liverjax.scans.liver_box import FARTHEST_MM, liver_distance, liver_grid
from liverjax.volume import Volume


def _pair(shape=(20, 18, 16), spacing=(2.0, 2.0, 3.0)):
    affine = np.diag([*spacing, 1.0])
    mask = np.zeros(shape, np.uint8)
    mask[8:12, 7:10, 6:9] = 1
    mask[9, 8, 7] = 2
    return Volume(np.zeros(shape, np.float32), affine, name="scan"), Volume(mask, affine, name="mask")


def test_the_box_is_that_of_the_working_grid_with_the_margin():
    scan, mask = _pair()
    grid = liver_grid(scan, mask, (2.0, 2.0, 3.0), 6.0)
    # 4, 3 and 3 voxels of liver, and 3, 3 and 2 voxels of margin on each side.
    assert grid.shape == (10, 9, 7)
    np.testing.assert_allclose(grid.affine[:3, 3], [5 * 2, 4 * 2, 4 * 3])
    same = box_grid(working_grid(scan, (2.0, 2.0, 3.0)), mask, 6.0)
    assert same.shape == grid.shape and np.array_equal(same.affine, grid.affine)


def test_distances_are_in_mm_rounded_up_and_tumours_are_liver():
    _, mask = _pair()
    grid = Grid(mask.shape, mask.affine)
    distance = liver_distance(mask, grid)
    assert distance.dtype == np.uint8 and (distance[mask.voxels > 0] == 0).all()
    # One voxel along x is 2 mm, three are 6 mm, exactly; one along z is 3 mm; one along each of x and y is 2.83.
    assert [distance[12, 8, 7], distance[14, 8, 7], distance[9, 8, 9], distance[12, 10, 7]] == [2, 6, 3, 3]
    exact = scipy.ndimage.distance_transform_edt(mask.voxels == 0, sampling=(2.0, 2.0, 3.0))
    np.testing.assert_array_equal(distance, np.ceil(exact - 1e-3).astype(np.uint8))


def test_the_distance_follows_the_axes_of_a_scan_that_is_flipped_and_permuted():
    _, mask = _pair()
    grid = Grid(mask.shape, mask.affine)
    turn = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    turn[1, 3], turn[0, 3] = 0, mask.shape[0] - 1
    other = Volume(mask.voxels.transpose(1, 0, 2)[:, ::-1], mask.affine @ np.array(turn), name="turned")
    np.testing.assert_array_equal(liver_distance(other, grid), liver_distance(mask, grid))


def test_without_liver_all_is_far():
    _, mask = _pair()
    empty = mask.with_voxels(np.zeros_like(mask.voxels))
    assert (liver_distance(empty, Grid(mask.shape, mask.affine)) == FARTHEST_MM).all()
