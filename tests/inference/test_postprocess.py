"""Clean-up of masks: small cases by hand, and scipy as the outside tool."""

import numpy as np
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.inference import postprocess
from liverjax.options import Predict

NOTHING = Predict(largest_component=False, fill_holes=False, tumor_within_liver=False)
FACES, CORNERS = (scipy.ndimage.generate_binary_structure(3, rank) for rank in (1, 3))
masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, 2))


def _line(*labels) -> np.ndarray:
    return np.array(labels, np.uint8)[:, None, None]


def _clean(labels, **options) -> list:
    return postprocess.clean(labels, (1, 1, 1), Predict(**{**vars(NOTHING), **options})).ravel().tolist()


@given(masks)
@settings(max_examples=50, deadline=None)
def test_without_any_step_nothing_changes(labels):
    before = labels.copy()
    assert np.array_equal(postprocess.clean(labels, (1, 2, 3), NOTHING), before)


def test_the_largest_component_counts_its_tumours():
    assert _clean(_line(1, 1, 0, 1, 2, 2, 0, 1), largest_component=True) == [0, 0, 0, 1, 2, 2, 0, 0]


def test_components_are_connected_by_corners():
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert np.array_equal(postprocess.largest_liver_component(labels), labels)


def test_tumours_without_liver_are_dropped():
    assert _clean(_line(2, 2, 0, 2, 1, 0, 1), tumor_within_liver=True) == [0, 0, 0, 2, 1, 0, 1]


def test_small_components_are_measured_in_mm3():
    # 1 x 2 x 3 mm: a voxel has 6 mm3, so that 12 mm3 are two voxels, which stay, and 12.5 mm3 need three.
    labels = _line(1, 1, 0, 1, 1, 1, 2, 2, 1)
    for limit, expected in ((12, labels), (12.5, _line(0, 0, 0, 1, 1, 1, 2, 2, 1))):
        options = Predict(**{**vars(NOTHING), "min_liver_mm3": limit})
        assert np.array_equal(postprocess.clean(labels, (1, 2, 3), options), expected)
    options = Predict(**{**vars(NOTHING), "min_tumor_mm3": 12.5})
    assert np.array_equal(postprocess.clean(labels, (1, 2, 3), options), _line(1, 1, 0, 1, 1, 1, 1, 1, 1))


def test_a_hole_becomes_what_encloses_it():
    labels = np.ones((5, 5, 9), np.uint8)
    labels[1:4, 1:4, 1:4] = 2
    labels[2, 2, 2] = 0  # enclosed by tumour
    labels[2, 2, 6] = 0  # enclosed by liver
    labels[2, 2, 8] = 0  # open at the border
    filled = postprocess.fill_holes(labels)
    assert (filled[2, 2, 2], filled[2, 2, 6], filled[2, 2, 8]) == (2, 1, 0)
    assert (filled != labels).sum() == 2


@given(masks)
@settings(max_examples=200, deadline=None)
def test_holes_are_those_that_scipy_fills(labels):
    filled = postprocess.clean(labels, (1, 1, 1), Predict(**{**vars(NOTHING), "fill_holes": True}))
    assert np.array_equal(filled > 0, scipy.ndimage.binary_fill_holes(labels > 0, FACES))
    assert np.array_equal(
        filled == 2, (labels == 2) | (scipy.ndimage.binary_fill_holes(labels == 2) & (labels == 0))
    )


@given(masks, st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_small_components_are_those_that_scipy_counts(labels, min_liver, min_tumor):
    def kept(mask, least):
        ids, _ = scipy.ndimage.label(mask, CORNERS)
        return mask & (np.bincount(ids.ravel()) >= least)[ids]

    cleaned = postprocess.remove_small(labels, min_liver, min_tumor)
    assert np.array_equal(cleaned > 0, kept(labels > 0, min_liver))
    assert np.array_equal(cleaned == 2, kept(labels == 2, min_tumor) & (cleaned > 0))


@given(masks)
@settings(max_examples=100, deadline=None)
def test_all_steps_leave_one_liver_and_its_tumours(labels):
    options = Predict()
    cleaned = postprocess.clean(labels, (1, 1, 1), options)
    assert scipy.ndimage.label(cleaned > 0, CORNERS)[1] <= 1
    assert not (cleaned == 2).any() or (cleaned == 1).any() or not (labels == 1).any()
    assert np.array_equal(postprocess.clean(cleaned, (1, 1, 1), options), cleaned)
