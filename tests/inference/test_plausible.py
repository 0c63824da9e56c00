"""What is said of a predicted liver by its volume, place and pieces, and by what the networks expect."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from liverjax.datasets.layouts import find_cases
from liverjax.inference.plausible import Evidence, doubts, evidence
from liverjax.options import Preprocess
from liverjax.scans.grid import to_canonical, to_grid
from liverjax.scans.intensity import intensity_window, normalise
from liverjax.volume import Volume

ORDINARY = Evidence(liver_ml=1500, body_ml=9000, right_mm=65, cut=0.0, kept=1.0, expected_dice=0.93)


def test_an_ordinary_liver_is_not_doubted():
    assert doubts(ORDINARY) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"liver_ml": 0}, "no liver is found"),
        ({"liver_ml": 299}, "a liver of 299 ml is found, expected 300 ml or more"),
        ({"liver_ml": 5001, "body_ml": 2e4}, "a liver of 5001 ml is found, expected at most 5000 ml"),
        (
            {"liver_ml": 450, "body_ml": 600},
            "the liver that is found fills 75% of the 600 ml that are not air, expected at most 50%",
        ),
        (
            {"body_ml": 0},
            "the liver that is found fills nothing but air, expected at most 50%",
        ),
        (
            {"right_mm": -12.4},
            "the liver that is found lies 12 mm to the left of the body's middle, expected to the right (is the scan "
            "mirrored?)",
        ),
        (
            {"cut": 0.66},
            "the liver that is found is cut by the end of the scan (66% of its largest section lie there)",
        ),
        (
            {"kept": 0.55},
            "only 55% of what the networks call liver is one piece, expected 90% or more",
        ),
        (
            {"expected_dice": 0.43},
            "the networks expect a Dice of 0.43, of ordinary scans 0.80 or more",
        ),
    ],
)
def test_what_is_said(changes, said):
    assert doubts(dataclasses.replace(ORDINARY, **changes)) == [said]


def test_several_doubts_are_said_side_by_side():
    assert len(doubts(Evidence(12_000, 16_000, -3, 0.5, 0.2, 0.5))) == 6


@pytest.mark.parametrize(
    "limit",
    [
        {"liver_ml": 300.0},
        {"liver_ml": 5000.0, "body_ml": 10_000.0},
        {"right_mm": 0.0},
        {"cut": 0.4},
        {"kept": 0.9},
        {"expected_dice": 0.8},
    ],
)
def test_the_limits_themselves_are_ordinary(limit):
    assert doubts(dataclasses.replace(ORDINARY, **limit)) == []


def _scan(axes=(0, 1, 2), flips=()):
    """Returns mask, labels before clean-up and body, 2 x 1 x 3 mm, with the liver in the voxels below.

    The body fills x from 2 to 21; the liver, x from 14 to 19 (the patient's right is where x is large), reaches the
    last plane along z with 6 x 4 voxels, its largest section along z having 6 x 8.
    """
    body = np.zeros((24, 20, 12), bool)
    body[2:22] = True
    liver = np.zeros(body.shape, np.uint8)
    liver[14:20, 4:12, 5:11] = 1
    liver[14:20, 4:8, 11] = 1
    liver[15, 5, 6] = 2
    found = liver.copy()
    found[3:5, 4:12, 6] = 1
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (-20, 7, 100)
    volume, before = Volume(liver, affine), Volume(found, affine)
    mixed = np.zeros((4, 4))
    mixed[3, 3] = 1
    for new, old in enumerate(axes):
        mixed[:3, new] = affine[:3, old]
    voxels, had = volume.voxels.transpose(axes), before.voxels.transpose(axes)
    mixed[:3, 3] = affine[:3, 3]
    for axis in flips:
        voxels, had = np.flip(voxels, axis), np.flip(had, axis)
        mixed[:3, 3] += mixed[:3, axis] * (voxels.shape[axis] - 1)
        mixed[:3, axis] *= -1
    return Volume(np.ascontiguousarray(voxels), mixed), np.ascontiguousarray(had), body, affine


@hypothesis.given(axes=st.permutations((0, 1, 2)), flips=st.sets(st.sampled_from((0, 1, 2))))
@hypothesis.settings(deadline=None)
def test_evidence_of_a_known_mask_however_its_axes_lie(axes, flips):
    labels, found, body, affine = _scan(axes, sorted(flips))
    np.testing.assert_array_equal(to_canonical(labels).voxels, _scan()[0].voxels)
    seen = evidence(labels, found, body, affine, 0.9)
    count = 6 * 8 * 6 + 6 * 4
    assert seen.liver_ml == pytest.approx(count * 6 / 1000)
    assert seen.body_ml == pytest.approx(20 * 20 * 12 * 6 / 1000)
    # Centres along x: of the liver between 14 and 19, of the body between 2 and 21.
    assert seen.right_mm == pytest.approx((16.5 - 11.5) * 2)
    assert seen.cut == 0.5
    assert seen.kept == pytest.approx(count / (count + 2 * 8))
    assert seen.expected_dice == 0.9


def test_evidence_of_a_mirrored_scan_an_empty_mask_and_no_body():
    labels, found, body, affine = _scan()
    mirrored = evidence(labels.with_voxels(labels.voxels[::-1].copy()), found[::-1], body[::-1], affine, 0.9)
    assert mirrored.right_mm == pytest.approx(-10)
    empty = labels.with_voxels(np.zeros_like(labels.voxels))
    assert evidence(empty, empty.voxels, body, affine, 0.0) == Evidence(
        0.0, pytest.approx(28.8), 0.0, 0.0, 1.0, 0.0
    )
    assert evidence(empty, found, body, affine, 0.4).kept == 0.0
    assert evidence(labels, found, np.zeros_like(body), affine, 0.9).right_mm == 0.0


def test_holes_that_were_filled_are_not_counted_as_kept():
    labels, _, body, affine = _scan()
    found = labels.voxels.copy()
    found[16, 6, 7] = 0
    assert evidence(labels, found, body, affine, 0.9).kept == 1.0


@pytest.mark.parametrize(
    ("folder", "modality", "scans"),
    [("ct", "ct", 31), ("lits", "ct", 4), ("chaos_mr", "mr", 14), ("mr_hbp", "mr", 14)],
)
def test_livers_that_people_drew_are_not_doubted(real_data, folder, modality, scans):
    """With -s, the values from which the limits were chosen."""
    if not (real_data / folder).is_dir():
        pytest.skip(f"{folder} is not among the real scans")
    options = Preprocess(modality=modality)
    seen = []
    for case in find_cases(real_data / folder, labelled=True):
        scan, mask = case.read_pair()
        on_grid = to_grid(scan, (3.0, 3.0, 3.0))
        body = normalise(on_grid.voxels, *intensity_window(on_grid.voxels, options)) > -1
        seen.append(evidence(mask, mask.voxels, body, on_grid.affine, 1.0))
        share = seen[-1].liver_ml / seen[-1].body_ml
        print(
            f"{case.id}: {seen[-1].liver_ml:.0f} ml, share {share:.2f}, right {seen[-1].right_mm:.0f} mm, cut "
            f"{seen[-1].cut:.2f}"
        )
        assert doubts(seen[-1]) == [], case.id
    assert len(seen) == scans
    assert min(one.liver_ml for one in seen) > 1000 and max(one.liver_ml for one in seen) < 3500
    assert min(one.right_mm for one in seen) > 24 and max(one.cut for one in seen) < 0.34
