"""Boxes of the working grid: what they hold, and that they are crops of the whole grid."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from liverjax.scans.grid import (
    box_grid,
    labels_on_scan,
    probabilities_on_scan,
    to_canonical,
    to_grid,
    working_grid,
)
from liverjax.volume import Volume
from tests.scans.geometry import OBLIQUE, make_affine, orientations, world


def crop_of(grid, box):
    """The slices of a grid's array that are a box of it."""
    first = (np.linalg.inv(grid.affine) @ box.affine)[:3, 3].round().astype(int)
    return tuple(slice(int(a), int(a) + n) for a, n in zip(first, box.shape, strict=True))


def test_a_box_worked_out_by_hand():
    # Voxels of 3 mm from edge 0 to edge 30 on a grid of 4 mm: cells from -1 + 4 i. The mask fills 9 to 15 mm along x,
    # in the cells of 7 to 11 and 11 to 15; with 2.5 mm around it 6.5 to 17.5, in the cells from 3 to 19. Along z, 27
    # to 30 mm is in the last cell, from 27 to 31; with the margin it reaches to 24.5, in the cell from 23.
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[3:5, 0, 9] = 2
    mask = Volume(mask, make_affine(np.eye(3), (3, 3, 3), (1.5, 1.5, 1.5)))
    grid = working_grid(mask, (4, 4, 4))
    tight, wide = box_grid(grid, mask), box_grid(grid, mask, 2.5)
    assert tight.shape == (2, 1, 1)
    assert np.allclose(tight.affine[:3, 3], [9, 1, 29])
    assert wide.shape == (4, 2, 2)
    assert np.allclose(wide.affine[:3, 3], [5, 1, 25])
    assert np.allclose(wide.affine[:3, :3], np.eye(3) * 4)
    with pytest.raises(ValueError, match="empty mask"):
        box_grid(grid, mask.with_voxels(mask.voxels * 0))


@st.composite
def boxes(draw):
    """A scan of labels, its working grid, and a mask on the scan with a margin."""
    directions = draw(st.sampled_from([np.eye(3), OBLIQUE])) @ list(orientations())[draw(st.integers(0, 47))]
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    affine = make_affine(directions, draw(st.tuples(*[st.floats(0.7, 5)] * 3)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scan = Volume(rng.integers(0, 3, shape, dtype=np.uint8), affine, name="scan")
    mask = np.zeros(shape, np.uint8)
    for _ in range(2):
        mask[tuple(rng.integers(0, shape))] = 1
    grid = working_grid(scan, draw(st.tuples(*[st.floats(0.9, 4)] * 3)))
    return scan, grid, scan.with_voxels(mask), draw(st.floats(0, 6))


@hypothesis.given(boxes())
@hypothesis.settings(deadline=None, max_examples=60)
def test_a_box_holds_the_mask_and_its_margin_and_no_voxel_more(example):
    _, grid, mask, margin = example
    box = box_grid(grid, mask, margin)
    crop = crop_of(grid, box)
    assert np.allclose(world(box.affine, box.shape), world(grid.affine, grid.shape)[crop], atol=1e-9)
    canonical = to_canonical(mask)
    voxels = np.argwhere(canonical.voxels)
    to_box = np.linalg.inv(box.affine) @ canonical.affine
    for axis in range(3):
        spacing = np.linalg.norm(grid.affine[:3, axis])
        ends = [voxels[:, axis].min() - 0.5, voxels[:, axis].max() + 0.5]
        low, high = (
            to_box[axis, axis] * np.array(ends) + to_box[axis, 3] + [-margin / spacing, margin / spacing]
        )
        # The box reaches from -1/2 to n - 1/2, and the margin ends in its outermost voxels, where the grid does not.
        assert crop[axis].start == 0 or -0.501 <= low < 0.501
        last = box.shape[axis] - 1
        assert crop[axis].stop == grid.shape[axis] or last - 0.501 < high <= last + 0.501


@hypothesis.given(boxes())
@hypothesis.settings(deadline=None, max_examples=60)
def test_a_scan_on_a_box_is_the_crop_of_the_scan_on_the_grid(example):
    scan, grid, mask, margin = example
    box = box_grid(grid, mask, margin)
    crop = crop_of(grid, box)
    for labels in (False, True):
        whole, part = to_grid(scan, grid, labels=labels), to_grid(scan, box, labels=labels)
        assert np.array_equal(part.affine, box.affine)
        close = np.abs(part.voxels.astype(float) - whole.voxels[crop]) < 1e-4
        assert (
            close.all() if not labels else close.mean() > 0.99
        )  # labels of equal shares may round either way


@hypothesis.given(boxes())
@hypothesis.settings(deadline=None, max_examples=60)
def test_probabilities_on_a_box_come_back_as_those_of_the_grid_and_are_zero_outside(example):
    scan, grid, mask, margin = example
    box = box_grid(grid, mask, margin)
    crop = crop_of(grid, box)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], grid.shape).astype(np.float32)
    whole = to_canonical(scan.with_voxels(labels_on_scan(shares, grid, scan).voxels)).voxels
    part = to_canonical(labels_on_scan(shares[crop], box, scan)).voxels
    expected = probabilities_on_scan(shares, grid, scan)
    found = probabilities_on_scan(shares[crop], box, scan)
    expected, found = (
        np.stack([to_canonical(scan.with_voxels(maps[..., c])).voxels for c in range(3)], -1)
        for maps in (expected, found)
    )
    canonical = to_canonical(scan)
    step = np.linalg.inv(grid.affine) @ canonical.affine
    inside, outside = np.ones(canonical.shape, bool), np.zeros(canonical.shape, bool)
    for axis, along in enumerate(crop):
        place = step[axis, axis] * np.arange(canonical.shape[axis]) + step[axis, 3]
        # A voxel of ratio r is the mean of the linear interpolant over sqrt(r^2 - 1) voxels of the grid.
        reach = 1 + np.sqrt(max(step[axis, axis] ** 2 - 1, 0)) / 2
        low = -np.inf if along.start == 0 else along.start
        high = np.inf if along.stop == grid.shape[axis] else along.stop - 1
        spread = np.expand_dims(place, [a for a in range(3) if a != axis])
        inside &= (spread - reach >= low) & (spread + reach <= high)
        outside |= (spread < along.start - 0.501) | (spread > along.stop - 0.499)
    assert np.allclose(found[inside], expected[inside], atol=1e-5)
    assert (found[outside] == 0).all() and (part[outside] == 0).all()
    assert np.allclose(found[~outside & (found.sum(-1) > 0)].sum(-1), 1, atol=1e-5)
    clear = np.abs(expected[..., 1] + expected[..., 2] - expected[..., 0]) > 1e-4
    clear &= np.abs(expected[..., 2] - expected[..., 1]) > 1e-4
    assert np.array_equal(part[inside & clear], whole[inside & clear])
