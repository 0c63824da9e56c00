"""Components and lesions: small cases by hand, and scipy as the outside tool, in either memory order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from liverjax import objects
from liverjax.objects import components

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7))
STRUCTURES = {6: ndimage.generate_binary_structure(3, 1), 26: ndimage.generate_binary_structure(3, 3)}


def _orders(mask):
    """Returns the same mask in C order, in Fortran order, and as every second voxel of a larger array."""
    apart = np.zeros([2 * size for size in mask.shape], bool)
    apart[::2, ::2, ::2] = mask
    return np.ascontiguousarray(mask), np.asfortranarray(mask), apart[::2, ::2, ::2]


@given(MASKS, st.sampled_from((6, 26)))
@settings(max_examples=200, deadline=None)
def test_ids_are_those_of_scipy_in_any_memory_order(mask, connectivity):
    expected, count = ndimage.label(mask, STRUCTURES[connectivity])
    for ordered in _orders(mask):
        ids = components.label(ordered, connectivity)
        assert np.array_equal(ids, expected) and ids.max() == count


def test_which_neighbours_are_connected():
    for step, connected in {(1, 0, 0): (6, 26), (1, 1, 0): (26,), (1, 1, 1): (26,), (2, 0, 0): ()}.items():
        mask = np.zeros((3, 3, 3), bool)
        mask[0, 0, 0] = mask[step] = True
        for connectivity in (6, 26):
            assert components.label(mask, connectivity).max() == (1 if connectivity in connected else 2)


def test_any_value_but_0_is_in_the_mask():
    mask = np.array([0, 2, -1, 0, 256]).reshape(1, 1, -1)
    assert components.label(mask).tolist() == [[[0, 1, 1, 0, 2]]]


@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 2, 3), (1, 1, 1), (1, 1, 3)])
def test_masks_without_a_component(shape):
    empty = np.zeros(shape, bool)
    assert components.label(empty).shape == shape and not components.label(empty).any()
    assert components.lesions(components.label(empty), (1, 1, 1)) == []
    assert not components.largest(empty).any() and not components.holes(empty).any()


def test_a_lesion_by_hand():
    mask = np.zeros((12, 10, 8), bool)
    mask[2:4, 3:6, 4] = True
    mask[9, 9, 7] = True
    first, second = components.lesions(components.label(mask), (1, 2, 5), corner=(10, 20, 30))
    assert (first.id, first.voxels, first.volume_ml) == (1, 6, pytest.approx(0.06))
    assert first.diameter_mm == pytest.approx(2 * (60 * 3 / (4 * math.pi)) ** (1 / 3))
    assert first.centre == pytest.approx((12.5, 24, 34))
    assert first.box == (slice(12, 14), slice(23, 26), slice(34, 35))
    assert (second.id, second.voxels, second.centre) == (2, 1, (19, 29, 37))


def test_the_diameter_is_that_of_a_sphere():
    ball = ((np.indices((31, 31, 31)) - 15) ** 2).sum(0) <= 12.5**2
    (lesion,) = components.lesions(components.label(ball), (1, 1, 1))
    assert lesion.diameter_mm == pytest.approx(25, rel=0.01)


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_lesions_are_measured_as_scipy_does(mask):
    ids = components.label(mask)
    found = components.lesions(ids, (1, 1, 1))
    assert [lesion.id for lesion in found] == list(range(1, ids.max() + 1))
    assert [lesion.box for lesion in found] == ndimage.find_objects(ids.astype(np.int32))
    centres = ndimage.center_of_mass(mask, ids, range(1, ids.max() + 1))
    assert [lesion.centre for lesion in found] == [pytest.approx(centre) for centre in centres]
    assert sum(lesion.voxels for lesion in found) == mask.sum()


@given(MASKS, st.sampled_from((6, 26)), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_components_are_chosen_as_by_counting(mask, connectivity, least):
    ids, _ = ndimage.label(mask, STRUCTURES[connectivity])
    voxels = np.bincount(ids.ravel(), minlength=2)
    seeds = np.indices(mask.shape).sum(0) % 3 == 0
    touched = np.isin(ids, np.unique(ids[seeds])) & mask
    for ordered in _orders(mask):
        # Of components of one size the first counts.
        assert np.array_equal(
            components.largest(ordered, connectivity), (ids == voxels[1:].argmax() + 1) & mask
        )
        assert np.array_equal(
            components.without_small(ordered, least, connectivity), mask & (voxels >= least)[ids]
        )
        assert np.array_equal(components.touching(ordered, seeds, connectivity), touched)


def test_a_size_between_two_whole_numbers():
    row = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool).reshape(-1, 1, 1)
    assert components.without_small(row, 2.5).ravel().tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_holes_are_those_that_scipy_fills(mask):
    for ordered in _orders(mask):
        assert np.array_equal(components.holes(ordered), ndimage.binary_fill_holes(mask) & ~mask)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
@settings(deadline=None)
def test_the_bounding_box_holds_the_mask_and_no_more(mask):
    box = components.bounding_box(mask)
    assert mask[box].sum() == mask.sum()
    for axis in range(mask.ndim) if mask.any() else ():
        layers = np.moveaxis(mask[box], axis, 0)
        assert layers[0].any() and layers[-1].any()


def test_public_names():
    assert objects.label is components.label and "Matching" in dir(objects)
    with pytest.raises(AttributeError, match="no attribute 'find'"):
        objects.find  # noqa: B018
