"""Lesions, their correspondence and detection, on masks that one can read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.scoring import lesions

MASK_PAIRS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def _row(drawing):
    """Returns a mask of one row of voxels: # is tumour."""
    return np.array([letter == "#" for letter in drawing]).reshape(-1, 1, 1)


def _find(prediction, reference):
    return lesions.find(_row(prediction), _row(reference), (1, 1, 1))


def _counts(prediction, reference, threshold):
    counted = lesions.detection(_find(prediction, reference).records, threshold)
    return (counted.found, counted.references), (counted.confirmed, counted.predictions)


# Found and all reference lesions, confirmed and all predicted ones, at any overlap and at IoU > 0.5.
CASES = {
    "one to one": ("###.", ".###", ((1, 1), (1, 1)), ((0, 1), (0, 1))),
    "one to one, above half": ("####.", ".####", ((1, 1), (1, 1)), ((1, 1), (1, 1))),
    "exactly half is not above half": ("##..", "####", ((1, 1), (1, 1)), ((0, 1), (0, 1))),
    "missed": ("......##", "##......", ((0, 1), (0, 1)), ((0, 1), (0, 1))),
    "touching is not overlapping": ("##..", "..##", ((0, 1), (0, 1)), ((0, 1), (0, 1))),
    "nothing predicted": ("........", "##....##", ((0, 2), (0, 0)), ((0, 2), (0, 0))),
    "nothing there": ("##....##", "........", ((0, 0), (0, 2)), ((0, 0), (0, 2))),
    "both empty": ("....", "....", ((0, 0), (0, 0)), ((0, 0), (0, 0))),
    "one good prediction over two": ("#########", "####.####", ((2, 2), (1, 1)), ((2, 2), (1, 1))),
    "one bad prediction over two": ("#########", "#.......#", ((2, 2), (1, 1)), ((0, 2), (0, 1))),
    "one lesion split in two": ("####.####", "#########", ((1, 1), (2, 2)), ((1, 1), (2, 2))),
    "one lesion in two small pieces": ("#.......#", "#########", ((1, 1), (2, 2)), ((0, 1), (0, 2))),
    "two and two": ("###...###", "###...###", ((2, 2), (2, 2)), ((2, 2), (2, 2))),
    # The first prediction is the only one over the first lesion, but overlaps the second more.
    "left alone": ("######.####", "##.########", ((1, 2), (2, 2)), ((1, 2), (2, 2))),
}


@pytest.mark.parametrize("name", CASES)
def test_every_row_of_the_correspondence(name):
    prediction, reference, any_overlap, above_half = CASES[name]
    assert _counts(prediction, reference, 0.0) == any_overlap
    assert _counts(prediction, reference, 0.5) == above_half


def test_merged_pairs_are_counted_as_one():
    (match,) = _find("#########", "####.####").matches
    assert (match.predictions, match.references) == ((1,), (1, 2))
    counts = match.overlap
    assert (counts.intersection, counts.prediction, counts.reference) == (8, 9, 8)


def test_a_chain_is_divided_by_the_largest_overlap():
    # Lesion 2 overlaps prediction 2 (4 voxels) more than prediction 1 (3): 7 of 10 and 8 voxels.
    (match,) = _find("######.####", "##.########").matches
    assert (match.predictions, match.references) == ((1, 2), (2,))
    assert match.overlap.iou == pytest.approx(7 / 11)


def test_lesions_are_connected_by_faces():
    corners = np.zeros((2, 2, 1), bool)
    corners[0, 0] = corners[1, 1] = True
    assert len(lesions.find(corners, corners, (1, 1, 1)).matches) == 2


def test_what_is_known_of_each_lesion():
    prediction, reference = np.zeros((2, 12, 10, 8), bool)
    reference[2:4, 3:6, 4] = True
    prediction[2:4, 3:5, 4] = True
    prediction[9, 9, 7] = True
    first, second, third = lesions.find(prediction, reference, (1, 2, 5)).records
    assert (first.side, first.id, first.size, first.match) == ("reference", 1, "small", 0)
    assert first.volume_ml == pytest.approx(6 * 10 / 1000)
    assert first.diameter_mm == pytest.approx(2 * (60 * 3 / (4 * math.pi)) ** (1 / 3))
    assert first.centre == pytest.approx((2.5, 4, 4))
    assert (first.dice, first.iou) == pytest.approx((0.8, 2 / 3))
    assert (second.side, second.id, second.iou) == ("prediction", 1, first.iou)
    assert (third.id, third.match, third.dice, third.iou) == (2, None, 0, 0)
    assert third.centre == pytest.approx((9, 9, 7))


@pytest.mark.parametrize(
    ("diameter", "size"), [(9.9, "small"), (10, "medium"), (20, "medium"), (20.1, "large")]
)
def test_size_classes(diameter, size):
    assert lesions.Lesion("reference", 1, 1, diameter, (0, 0, 0), None, 0, 0).size == size


def test_the_diameter_is_that_of_a_sphere():
    grid = np.indices((31, 31, 31)) - 15
    ball = (grid**2).sum(0) <= 12.5**2
    (record, _) = lesions.find(ball, ball, (1, 1, 1)).records
    assert record.diameter_mm == pytest.approx(25, rel=0.01)


def test_precision_recall_and_f1():
    counted = lesions.Detection(references=4, found=3, predictions=6, confirmed=3)
    assert (counted.recall, counted.precision) == (0.75, 0.5)
    assert counted.f1 == pytest.approx(0.6)


def test_f1_without_hits_and_without_lesions():
    assert lesions.Detection(2, 0, 0, 0).f1 == 0
    assert math.isnan(lesions.Detection(2, 0, 0, 0).precision)
    assert math.isnan(lesions.Detection(0, 0, 1, 0).recall)
    assert math.isnan(lesions.Detection(0, 0, 0, 0).f1)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 1, 1\).*\(3, 1, 1\)"):
        _find("##", "###")


@given(MASK_PAIRS)
def test_what_holds_for_any_masks(masks):
    prediction, reference = masks
    found = lesions.find(prediction, reference, (1, 1, 1))
    ids = {side: [r.id for r in found.records if r.side == side] for side in ("prediction", "reference")}
    for side, matched in (
        ("prediction", [id for match in found.matches for id in match.predictions]),
        ("reference", [id for match in found.matches for id in match.references]),
    ):
        assert len(set(matched)) == len(matched) and set(matched) <= set(ids[side])
    volumes = {side: sum(r.volume_ml for r in found.records if r.side == side) for side in ids}
    assert volumes["reference"] == pytest.approx(reference.sum() / 1000)
    assert volumes["prediction"] == pytest.approx(prediction.sum() / 1000)
    for match in found.matches:
        merged_prediction, merged_reference = found.masks(match)
        assert merged_prediction.sum() == match.overlap.prediction
        assert merged_reference.sum() == match.overlap.reference
        assert (merged_prediction & merged_reference).sum() == match.overlap.intersection > 0
    # Every predicted lesion that overlaps the reference has a match: it goes where it overlaps most.
    touching = {int(id) for id in np.unique(found.predicted[found.referenced > 0])} - {0}
    assert touching == {id for match in found.matches for id in match.predictions}
