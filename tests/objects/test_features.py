"""Features: values derived by hand for boxes and balls, quantiles of numpy, and what must change nothing."""

import math
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax import objects
from liverjax.errors import InputError
from liverjax.objects import features
from liverjax.objects.intercepts import DIRECTIONS, _directions

SPACING = np.array([0.8, 1.0, 2.5])
AFFINE = np.diag([*SPACING, 1.0])
OPTIONS = objects.CandidateOptions(threshold=0.3, margin_mm=0, least_ml=0)
DOCS = pathlib.Path(__file__).parent.parent.parent / "docs" / "lesions.md"


def _measured(scan, liver, chance, views=None, affine=AFFINE):
    found = objects.find_candidates(chance, liver, affine, OPTIONS)
    names = features.feature_names(bool(views))
    return [dict(zip(names, row, strict=True)) for row in objects.measure(found, scan, chance, views)]


def _box_case(seed=0):
    """A box of 6 x 4 x 3 voxels within a liver of 30 x 24 x 14, in noise about 100."""
    rng = np.random.default_rng(seed)
    liver = np.zeros((34, 28, 18), bool)
    liver[2:32, 2:26, 2:16] = True
    scan = rng.normal(100, 10, liver.shape)
    chance = np.zeros(liver.shape)
    box = slice(10, 16), slice(8, 12), slice(6, 9)
    scan[box] -= 40
    chance[box] = rng.uniform(0.3, 0.9, (6, 4, 3))
    return scan, liver, chance, box


def test_the_table_is_complete_and_is_the_one_of_the_documentation():
    names = [feature.name for feature in features.FEATURES]
    assert len(set(names)) == len(names) == 44
    assert features.feature_names(True) == (
        *features.feature_names(False),
        *(f.name for f in features.OF_VIEWS),
    )
    assert features.table() in DOCS.read_text(encoding="utf-8")


def test_a_box_by_hand():
    scan, liver, chance, _ = _box_case()
    (found,) = _measured(scan, liver, chance)
    a, b, c = np.array([6, 4, 3]) * SPACING  # 4.8, 4 and 7.5 mm
    assert found["volume_ml"] == pytest.approx(a * b * c / 1000)
    assert (found["extent_right_mm"], found["extent_anterior_mm"]) == (pytest.approx(a), pytest.approx(b))
    assert (found["extent_superior_mm"], found["slices"], found["box_fill"]) == (7.5, 3, pytest.approx(1))
    # Of a solid box the variances are a^2 / 12.
    assert found["elongation"] == pytest.approx(a / c) and found["flatness"] == pytest.approx(b / c)
    assert found["major_axis_mm"] == pytest.approx(2 * math.sqrt(5 / 12) * c)
    assert found["minor_axis_mm"] == pytest.approx(2 * math.sqrt(5 / 12) * b)
    # Of 4 rows the inner ones are 2 mm from the outside; 3 voxels of 0.8 mm reach farther.
    assert found["inner_radius_mm"] == pytest.approx(2)
    # 8 voxels to the border along x, 6 along y, 4 along z: 7.2, 7 and 12.5 mm.
    assert found["depth_min"] == pytest.approx(min(9 * 0.8, 7, 5 * 2.5))
    assert found["outside_share"] == 0
    assert found["position_right"] == pytest.approx((10 + 3 - 2) / 30)
    assert found["position_anterior"] == pytest.approx((8 + 2 - 2) / 24)
    assert found["position_superior"] == pytest.approx((6 + 1.5 - 2) / 14)


def test_intensities_by_numpy():
    scan, liver, chance, box = _box_case()
    (found,) = _measured(scan, liver, chance)
    tissue = scan[liver & (chance == 0)]
    middle = np.median(tissue)
    z = (scan - middle) / (1.4826 * np.median(np.abs(tissue - middle)))
    inside = z[box]
    assert found["intensity_mean"] == pytest.approx(scan[box].mean())
    assert found["intensity_sd"] == pytest.approx(scan[box].std())
    assert found["z_mean"] == pytest.approx(inside.mean()) and found["z_sd"] == pytest.approx(inside.std())
    expected = np.quantile(inside, (0.1, 0.5, 0.9))
    assert [found[name] for name in ("z_p10", "z_median", "z_p90")] == pytest.approx(expected)
    # Shells of the only candidate, by brute force.
    own = np.argwhere(chance > 0) * SPACING
    others = np.argwhere(liver & (chance == 0))
    distance = np.sqrt(((others[:, None] * SPACING - own) ** 2).sum(-1)).min(1)
    near, far = (z[tuple(others[pick].T)] for pick in (distance <= 3, (distance > 3) & (distance <= 8)))
    assert found["z_near"] == pytest.approx(near.mean()) and found["z_far"] == pytest.approx(far.mean())
    assert found["z_near_sd"] == pytest.approx(near.std())
    assert found["contrast_near"] == pytest.approx(inside.mean() - near.mean())
    assert found["contrast_to_noise"] == pytest.approx(
        (inside.mean() - far.mean()) / np.hypot(inside.std(), 1)
    )


def test_probabilities_and_views_by_numpy():
    scan, liver, chance, box = _box_case()
    rng = np.random.default_rng(1)
    views = {name: np.clip(chance + rng.normal(0, 0.2, chance.shape), 0, 1) for name in "abc"}
    (found,) = _measured(scan, liver, chance, views)
    inside = chance[box]
    each = np.stack([view[box] for view in views.values()])
    assert found["p_mean"] == pytest.approx(inside.mean()) and found["p_max"] == inside.max()
    assert found["p_p90"] == pytest.approx(np.quantile(inside, 0.9))
    assert found["p_half_share"] == pytest.approx((inside >= 0.5).mean())
    assert found["p_drop"] == pytest.approx(inside.mean())  # Outside the probability is 0.
    means = each.mean((1, 2, 3))
    assert found["view_sd"] == pytest.approx(each.std(0).mean())
    assert found["view_lowest"] == pytest.approx(means.min())
    assert found["view_range"] == pytest.approx(means.max() - means.min())
    assert found["view_all_share"] == pytest.approx((each >= 0.5).all(0).mean())


def test_the_core_is_the_deeper_half():
    liver = np.ones((11, 11, 11), bool)
    x = np.abs(np.indices(liver.shape) - 5).max(0)
    chance, scan = (x <= 2) * 1.0, np.where(x <= 1, 50.0, 80.0)  # A cube of 5, with a core of 3.
    (found,) = _measured(scan, liver, chance, affine=np.eye(4))
    # Distances are 1, 2 and 3 mm from the rim to the centre: voxels from 1.5 mm on are the core.
    assert found["core_to_rim"] == pytest.approx(50 - 80)  # The liver is of one value: no unit of noise.
    assert found["inner_radius_mm"] == 3


def test_crossings_of_a_box_by_hand():
    liver = np.ones((20, 20, 12), bool)
    chance = np.zeros(liver.shape)
    chance[5:11, 6:10, 4:7] = 1
    (found,) = _measured(np.zeros(liver.shape), liver, chance)
    sides, surface = np.array([6, 4, 3]), 0.0
    shares, lengths = _directions(tuple(SPACING))
    assert len(DIRECTIONS) == 13 and shares.sum() == pytest.approx(1)
    for step, share, length in zip(DIRECTIONS, shares, lengths, strict=True):
        # Voxels with a neighbour in the box along a step: the box, shortened by the step. Both ends cross.
        crossings = 2 * (sides.prod() - (sides - np.abs(step)).prod())
        surface += 2 * share * crossings * SPACING.prod() / length
    assert found["surface_to_volume"] == pytest.approx(surface / (72 * SPACING.prod()))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.0), (0.6, 1.0, 1.5)])
def test_a_ball_is_round_at_any_spacing(spacing):
    shape = [int(40 / size) + 4 for size in spacing]
    offsets = [(np.arange(n) - n / 2) * size for n, size in zip(shape, spacing, strict=True)]
    ball = sum(axis**2 for axis in np.ix_(*offsets)) <= 15**2
    (found,) = _measured(np.zeros(shape), np.ones(shape, bool), ball * 1.0, affine=np.diag([*spacing, 1.0]))
    assert found["sphericity"] == pytest.approx(1, abs=0.03)
    assert found["volume_ml"] == pytest.approx(4 / 3 * math.pi * 15**3 / 1000, rel=0.01)
    assert found["surface_to_volume"] == pytest.approx(3 / 15, rel=0.04)
    assert found["major_axis_mm"] == pytest.approx(30, rel=0.02)
    assert found["flatness"] == pytest.approx(1, abs=0.02)
    assert found["inner_radius_mm"] == pytest.approx(15, rel=0.05)


SHIFTS = st.tuples(*[st.integers(-1, 1)] * 3)


@given(SHIFTS, st.floats(-500, 500), st.floats(0.1, 10), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_place_offset_and_gain_of_a_scan_change_nothing(shift, offset, gain, seed):
    scan, liver, chance, _ = _box_case(seed)
    (found,) = _measured(scan, liver, chance, {"a": chance, "b": chance})
    moved = [np.roll(array, shift, axis=(0, 1, 2)) for array in (scan * gain + offset, liver, chance)]
    (other,) = _measured(*moved, {"a": moved[2], "b": moved[2]})
    of_unit = {feature.name for feature in features.FEATURES if feature.unit == "scan's unit"}
    assert of_unit == {"intensity_mean", "intensity_sd"}
    for name, value in found.items():
        if name not in of_unit:
            assert other[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    assert other["intensity_mean"] == pytest.approx(gain * found["intensity_mean"] + offset, abs=1e-6)


def test_candidates_that_fill_the_liver_and_single_voxels_have_finite_features():
    liver = np.zeros((6, 6, 6), bool)
    liver[1:5, 1:5, 1:5] = True
    for chance in (liver * 0.9, np.where(np.indices(liver.shape).sum(0) % 2, liver * 0.9, 0)):
        for scan in (np.zeros(liver.shape), np.arange(216.0).reshape(liver.shape)):
            rows = _measured(scan, liver, chance)
            assert rows and all(np.isfinite(list(row.values())).all() for row in rows)


def test_values_that_are_not_finite_are_named():
    scan, liver, chance, box = _box_case()
    scan[box][0, 0, 0] = np.nan
    with pytest.raises(InputError, match="feature intensity_mean of candidate 1 is nan"):
        _measured(scan, liver, chance)
    scan, liver, chance, box = _box_case()
    broken = chance.copy()
    broken[box] = np.inf
    with pytest.raises(InputError, match="feature view_"):
        _measured(scan, liver, chance, {"a": chance, "b": broken})
    with pytest.raises(InputError, match=r"shape \(2, 2, 2\), expected"):
        _measured(np.zeros((2, 2, 2)), liver, chance)
