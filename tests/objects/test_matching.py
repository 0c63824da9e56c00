"""The correspondence of lesions, on masks that one can read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.objects.matching import match_lesions

MASK_PAIRS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def _row(drawing):
    """Returns a mask of one row of voxels: # is tumour."""
    return np.array([letter == "#" for letter in drawing]).reshape(-1, 1, 1)


def _match(prediction, reference):
    return match_lesions(_row(prediction), _row(reference), (1, 1, 1))


def test_merged_pairs_are_counted_as_one():
    (match,) = _match("#########", "####.####").matches
    assert (match.predictions, match.references) == ((1,), (1, 2))
    assert (match.voxels_both, match.voxels_prediction, match.voxels_reference) == (8, 9, 8)
    assert (match.dice, match.iou) == pytest.approx((16 / 17, 8 / 9))


def test_a_chain_is_divided_by_the_largest_overlap():
    # Lesion 2 overlaps prediction 2 (4 voxels) more than prediction 1 (3): 7 of 10 and 8 voxels.
    (match,) = _match("######.####", "##.########").matches
    assert (match.predictions, match.references) == ((1, 2), (2,))
    assert match.iou == pytest.approx(7 / 11)


def test_lesions_are_connected_by_faces():
    corners = np.zeros((2, 2, 1), bool)
    corners[0, 0] = corners[1, 1] = True
    assert len(match_lesions(corners, corners, (1, 1, 1)).matches) == 2


def test_lesions_lie_in_the_scan_not_in_the_box_that_holds_them():
    prediction, reference = np.zeros((2, 12, 10, 8), bool)
    reference[2:4, 3:6, 4] = True
    prediction[2:4, 3:5, 4] = True
    prediction[9, 9, 7] = True
    found = match_lesions(prediction, reference, (1, 2, 5))
    assert found.corner == (2, 3, 4)
    assert [lesion.centre for lesion in found.referenced] == [(2.5, 4, 4)]
    assert [lesion.centre for lesion in found.predicted] == [(2.5, 3.5, 4), (9, 9, 7)]
    predicted, referenced = found.masks(found.matches[0])
    assert predicted.ravel().tolist() == [1, 1, 0] * 2 and referenced.all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 1, 1\).*\(3, 1, 1\)"):
        _match("##", "###")


@given(MASK_PAIRS)
@settings(deadline=None)
def test_what_holds_for_any_masks(masks):
    prediction, reference = masks
    found = match_lesions(prediction, reference, (1, 1, 1))
    for lesions, matched, mask in (
        (found.predicted, [id for match in found.matches for id in match.predictions], prediction),
        (found.referenced, [id for match in found.matches for id in match.references], reference),
    ):
        assert len(set(matched)) == len(matched) and set(matched) <= {lesion.id for lesion in lesions}
        assert sum(lesion.voxels for lesion in lesions) == mask.sum()
    for match in found.matches:
        merged_prediction, merged_reference = found.masks(match)
        assert merged_prediction.sum() == match.voxels_prediction
        assert merged_reference.sum() == match.voxels_reference
        assert (merged_prediction & merged_reference).sum() == match.voxels_both > 0
    # Every predicted lesion that overlaps the reference has a match: it goes where it overlaps most.
    touching = {int(id) for id in np.unique(found.predicted_ids[found.referenced_ids > 0])} - {0}
    assert touching == {id for match in found.matches for id in match.predictions}
