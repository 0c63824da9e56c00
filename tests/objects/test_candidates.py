"""Candidates: by hand on small grids, and the same whichever way a scan is stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax import objects
from liverjax.errors import ConfigError, InputError
from liverjax.objects import candidates

SPACING = (1.0, 2.0, 4.0)
AFFINE = np.diag([*SPACING, 1.0])
ALL = objects.CandidateOptions(threshold=0.5, margin_mm=0, least_ml=0)


def _arrays(shape=(12, 10, 8)):
    liver = np.zeros(shape, bool)
    liver[2:10, 2:8, 1:7] = True
    return np.zeros(shape, np.float32), liver


def test_candidates_are_components_within_the_liver():
    chance, liver = _arrays()
    chance[3:5, 3, 3] = 0.5
    chance[5, 4, 3] = 0.9  # Touches the first by an edge only: another one.
    chance[8, 6, 5] = 0.49
    chance[1:3, 5, 2] = 0.8  # One voxel of it is outside the liver.
    found = objects.find_candidates(chance, liver, AFFINE, ALL)
    assert (found.count, found.dropped) == (3, 0)
    sizes = np.bincount(found.ids.ravel())[1:]
    assert sizes.tolist() == [1, 2, 1]
    assert np.argwhere(found.mask(np.array([True, False, False]))).tolist() == [[2, 5, 2]]
    assert found.mask(np.ones(3, bool)).sum() == 4 and not found.mask(np.zeros(3, bool)).any()


def test_the_margin_is_in_mm():
    chance, liver = _arrays()
    chance[0, 4, 3] = chance[4, 0, 3] = chance[4, 4, 7] = 0.9  # 2, 4 and 4 mm outside.
    counts = [
        objects.find_candidates(chance, liver, AFFINE, objects.CandidateOptions(0.5, mm, 0)).count
        for mm in (0, 1.9, 2, 4)
    ]
    assert counts == [0, 0, 1, 3]


def test_depth_is_the_distance_to_the_border_and_negative_outside():
    chance, liver = _arrays()
    found = objects.find_candidates(chance, liver, AFFINE, objects.CandidateOptions(0.5, 4, 0))
    depth = np.full(liver.shape, np.nan)
    frame = found.frame
    candidates._turned(depth, frame.order, frame.flipped)[frame.box] = found.depth
    assert depth[2, 4, 3] == 1 and depth[4, 4, 3] == 3 and depth[1, 4, 3] == -1
    assert depth[0, 0, 3] == pytest.approx(-np.hypot(2, 4))
    # The edge of a scan that cuts the liver is no border.
    everywhere = objects.find_candidates(chance, np.ones_like(liver), AFFINE, ALL)
    assert (everywhere.depth == candidates.FARTHEST_MM).all()


def test_small_ones_and_those_beyond_the_number_are_dropped():
    chance, liver = _arrays()
    for x, size in ((2, 1), (4, 3), (6, 3), (8, 2)):
        chance[x, 2 : 2 + size, 3] = 0.9
    found = objects.find_candidates(chance, liver, AFFINE, objects.CandidateOptions(0.5, 0, least_ml=0.016))
    assert (found.count, found.dropped) == (3, 1)  # A voxel has 8 mm3: two are 0.016 ml.
    few = objects.find_candidates(chance, liver, AFFINE, objects.CandidateOptions(0.5, 0, 0, most=2))
    assert np.bincount(few.ids.ravel())[1:].tolist() == [3, 3] and few.dropped == 2


def test_scans_without_liver_or_without_probability_have_none():
    chance, liver = _arrays()
    for probability, organ in ((chance, liver), (chance + 1, np.zeros_like(liver))):
        found = objects.find_candidates(probability, organ, AFFINE)
        assert found.count == 0 and not found.mask(np.zeros(0, bool)).any()
        assert objects.measure(found, chance, probability).shape == (0, 40)
        true = objects.truth(found, organ)
        assert len(true.true) == 0 and true.lesions == int(organ.any())


def test_truth_counts_lesions_that_nothing_hits_and_those_outside_the_liver():
    chance, liver = _arrays()
    chance[3:6, 3, 3] = chance[8, 5, 5] = 0.9
    reference = np.zeros_like(liver)
    reference[2:4, 3, 3] = reference[5, 3:5, 3] = True  # Two lesions of one candidate.
    reference[0, 0, 0] = reference[9, 7, 6] = True
    true = objects.truth(objects.find_candidates(chance, liver, AFFINE, ALL), reference)
    assert true.true.tolist() == [True, False]
    assert true.lesions == 4 and len(true.hits) == 2 and set(true.hits[:, 0]) == {0}


@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_how_a_scan_is_stored_changes_nothing(order, flips, seed):
    rng = np.random.default_rng(seed)
    liver = np.zeros((9, 8, 7), bool)
    liver[1:8, 1:7, 1:6] = True
    chance, scan = rng.random((2, 9, 8, 7), dtype=np.float32)
    options = objects.CandidateOptions(0.75, 2, 0)
    stored, affine = _stored([chance, liver, scan], order, flips)
    found = objects.find_candidates(chance, liver, AFFINE, options)
    other = objects.find_candidates(stored[0], stored[1], affine, options)
    assert np.array_equal(found.ids, other.ids)
    features = objects.measure(found, scan, chance, {"a": chance, "b": chance**2})
    again = objects.measure(other, stored[2], stored[0], {"a": stored[0], "b": stored[0] ** 2})
    assert np.array_equal(features, again)  # Bit for bit: all is computed on canonical axes.
    kept = rng.random(found.count) < 0.5
    assert np.array_equal(_stored([found.mask(kept)], order, flips)[0][0], other.mask(kept))


def _stored(arrays, order, flips):
    """Returns arrays with axes in another order, some flipped, and the affine that goes with them."""
    affine = AFFINE[:, [*order, 3]].copy()
    mirror = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    shape = arrays[0].transpose(order).shape
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    return [array.transpose(order)[mirror] for array in arrays], affine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5, expected between 0 and 1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"margin_mm": -1}, "margin_mm is -1, expected 0 to 50 mm"),
        ({"least_ml": float("inf")}, "least_ml is inf"),
        ({"most": 0}, "most is 0, expected 1"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        objects.CandidateOptions(**change)


def test_maps_that_do_not_fit_are_refused():
    chance, liver = _arrays()
    with pytest.raises(InputError, match=r"shape \(3, 3, 3\), expected \(12, 10, 8\) as the liver mask"):
        objects.find_candidates(np.zeros((3, 3, 3)), liver, AFFINE)
    for value, shown in ((np.nan, "nan to nan"), (np.inf, "0 to inf"), (255, "0 to 255"), (-1, "-1 to 0")):
        chance[4, 4, 4] = value
        with pytest.raises(
            InputError, match=f"in the liver's box is {shown}, expected finite numbers of 0 to 1"
        ):
            objects.find_candidates(chance, liver, AFFINE)
    with pytest.raises(InputError, match=r"an affine of shape \(3, 3\), expected"):
        objects.find_candidates(chance, liver, np.eye(3))
