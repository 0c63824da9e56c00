"""Which lesions are the same over time."""

import numpy as np
import pytest

from liverjax.planning import measure
from liverjax.planning.tracking import follow

AFFINE = np.diag([1.0, 1, 2, 1])


def _mask(*boxes, shape=(40, 40, 20)):
    """A mask of boxes, each (first voxel, size)."""
    mask = np.zeros(shape, np.uint8)
    for first, size in boxes:
        mask[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = 1
    return mask


def _follow(*masks, transforms=None, affines=None, near_mm=0.0):
    affines = affines or [AFFINE] * len(masks)
    measured = [measure(mask, affine) for mask, affine in zip(masks, affines, strict=True)]
    found = follow(measured, transforms or [np.eye(4)] * len(masks), near_mm)
    return [{finding.members: [part.id for part in finding.parts] for finding in each} for each in found]


A, B = ((2, 2, 2), (6, 6, 4)), ((20, 20, 10), (8, 8, 4))
NEW = ((30, 2, 2), (4, 4, 3))


def test_lesions_keep_their_numbers_whatever_their_ids():
    # A new lesion that comes first in the array takes id 1, and number 3.
    earlier = ((0, 30, 2), (2, 2, 2))
    found = _follow(_mask(A, B), _mask(earlier, A, B), _mask(B))
    assert found == [
        {(1,): [1], (2,): [2]},
        {(1,): [2], (2,): [3], (3,): [1]},
        {(1,): [], (2,): [1], (3,): []},
    ]


def test_a_lesion_that_returns_is_the_same():
    assert _follow(_mask(A, B), _mask(B), _mask(A, B)) == [
        {(1,): [1], (2,): [2]},
        {(1,): [], (2,): [1]},
        {(1,): [1], (2,): [2]},
    ]


def test_a_lesion_that_splits_has_parts_until_one_of_them_goes():
    halves = ((20, 20, 10), (3, 8, 4)), ((25, 20, 10), (3, 8, 4))
    found = _follow(_mask(A, B), _mask(A, *halves), _mask(A, halves[1]))
    assert found == [{(1,): [1], (2,): [2]}, {(1,): [1], (2,): [2, 3]}, {(1,): [1], (2,): [2]}]


def test_lesions_that_merge_stay_one_finding_even_when_they_part():
    left, right = ((5, 5, 5), (5, 5, 4)), ((14, 5, 5), (5, 5, 4))
    whole = ((5, 5, 5), (14, 5, 4))
    found = _follow(_mask(left, right, B), _mask(whole, B), _mask(left, right, B), _mask(left))
    assert found == [
        {(1,): [1], (2,): [2], (3,): [3]},
        {(1, 2): [1], (3,): [2]},
        {(1, 2): [1, 2], (3,): [3]},
        {(1, 2): [1], (3,): []},
    ]


def test_time_points_come_into_the_frame_of_the_baseline():
    """The second scan has other voxels and axes, and the patient lies 25 mm further right and is turned."""
    turn = np.eye(4)
    cos, sin = np.cos(0.3), np.sin(0.3)
    turn[:2, :2], turn[:3, 3] = [[cos, -sin], [sin, cos]], (25, -8, 40)
    affine = np.diag([-0.8, 0.8, 3.0, 1])  # the first axis runs to the left
    affine[:3, 3] = 100, -20, -50
    inside = np.stack(np.meshgrid(*(np.arange(n) for n in (160, 140, 40)), indexing="ij"), -1)
    world = inside @ affine[:3, :3].T + affine[:3, 3]
    # Where each voxel of the second scan lies in the baseline's scan.
    baseline = (world @ turn[:3, :3].T + turn[:3, 3]) / [1, 1, 2]
    mask = np.zeros(inside.shape[:3], np.uint8)
    for first, size in (A, B):
        mask |= (
            ((baseline >= np.array(first) - 0.5) & (baseline < np.add(first, size) - 0.5))
            .all(-1)
            .astype(np.uint8)
        )
    found = _follow(_mask(A, B), mask, transforms=[np.eye(4), turn], affines=[AFFINE, affine])
    assert sorted(found[1]) == [(1,), (2,)] and all(len(ids) == 1 for ids in found[1].values())
    measured = measure(mask, affine)
    # Lesion 1 is the smaller one.
    assert (
        measured.lesions[found[1][(1,)][0] - 1].lesion.voxels
        < measured.lesions[found[1][(2,)][0] - 1].lesion.voxels
    )
    # Without the transform, both are new.
    assert set(_follow(_mask(A, B), mask, affines=[AFFINE, affine])[1]) == {(1,), (2,), (3,), (4,)}


def test_a_small_lesion_between_the_centres_of_thick_slices_is_found():
    thin, thick = np.diag([1.0, 1, 1, 1]), np.diag([1.0, 1, 8, 1])
    small = _mask(
        ((10, 10, 3), (4, 4, 3))
    )  # z = 3 to 5 mm; slices of the other scan have centres at 0, 8, 16 mm
    coarse = np.zeros((40, 40, 3), np.uint8)
    coarse[10:14, 10:14, 1] = 1  # z = 4 to 12 mm
    assert _follow(small, coarse, affines=[thin, thick])[1] == {(1,): [1]}
    assert _follow(coarse, small, affines=[thick, thin])[1] == {(1,): [1]}


def test_lesions_that_do_not_overlap_are_matched_only_up_to_a_distance():
    moved = ((2, 9, 2), (6, 6, 4))  # 7 mm from A
    assert _follow(_mask(A), _mask(moved))[1] == {(1,): [], (2,): [1]}
    assert _follow(_mask(A), _mask(moved), near_mm=6.9)[1] == {(1,): [], (2,): [1]}
    assert _follow(_mask(A), _mask(moved), near_mm=7)[1] == {(1,): [1]}
    # The nearest pair first, and what overlaps before that.
    two = _mask(((2, 9, 2), (4, 4, 4)), ((2, 20, 2), (4, 4, 4)))
    assert _follow(_mask(((2, 2, 2), (4, 4, 4))), two, near_mm=50)[1] == {(1,): [1], (2,): [2]}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_findings_come_in_order_of_their_numbers(order):
    boxes = [A, B, NEW]
    first = _mask(*(boxes[i] for i in order[:2]))
    found = _follow(first, _mask(*boxes))
    assert list(found[1]) == sorted(found[1])
