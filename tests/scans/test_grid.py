"""The way to the working grid and back: where voxels land, and what becomes of values."""

import tracemalloc

import hypothesis
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liverjax.scans.grid import (
    AIR,
    Grid,
    from_canonical,
    labels_on_scan,
    probabilities_on_scan,
    to_canonical,
    to_grid,
    working_grid,
)
from liverjax.volume import Volume
from tests.scans.geometry import OBLIQUE, grid_of, make_affine, orientations, world

# --- axes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_canonical_voxels_stay_where_they_are_and_come_back(turn):
    for directions in orientations():
        shape = (4, 5, 6)
        volume = Volume(np.arange(120).reshape(shape), make_affine(turn @ directions))
        canonical = to_canonical(volume)
        assert nib.aff2axcodes(canonical.affine) == ("R", "A", "S")
        places = world(canonical.affine, canonical.shape).reshape(-1, 3)
        for place, value in zip(places, canonical.voxels.ravel(), strict=True):
            index = np.linalg.solve(volume.affine, [*place, 1])[:3]
            assert np.allclose(index, np.unravel_index(value, shape), atol=1e-9)
        assert np.array_equal(from_canonical(canonical.voxels, volume), volume.voxels)
        with_channels = np.stack([canonical.voxels, canonical.voxels + 1], -1)
        assert np.array_equal(from_canonical(with_channels, volume)[..., 1], volume.voxels + 1)


# --- the grid -----------------------------------------------------------------------------------------------


def test_the_grid_worked_out_by_hand():
    # 10 voxels of 3 mm from edge 0 to edge 30; 4 mm: 30 / 4 -> 8 voxels, 2 mm too long, 1 mm at either end:
    # the first centre is at -1 + 2 = 1 mm. 5 mm: 6 voxels fit, first centre 2.5 mm. 100 mm: one, at 15 mm.
    volume = Volume(np.zeros((10, 10, 10)), make_affine(np.eye(3), (3, 3, 3), (1.5, 1.5, 1.5)))
    grid = working_grid(volume, (4, 5, 100))
    assert grid.shape == (8, 6, 1)
    assert np.allclose(grid.affine, [[4, 0, 0, 1], [0, 5, 0, 2.5], [0, 0, 100, 15], [0, 0, 0, 1]])


def test_the_grid_of_equal_spacing_is_the_scan_itself():
    volume = Volume(np.zeros((512, 512, 164), np.uint8), make_affine(OBLIQUE, (0.69335902, 0.69335902, 1)))
    grid = working_grid(volume, np.float32(volume.spacing))
    assert grid.shape == volume.shape
    assert np.allclose(grid.affine, volume.affine, atol=1e-4)


@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    old=st.tuples(*[st.floats(0.3, 9)] * 3),
    new=st.tuples(*[st.floats(0.3, 9)] * 3),
    order=st.integers(0, 47),
)
@hypothesis.settings(deadline=None)
def test_the_grid_covers_the_field_of_view_and_shares_its_centre(shape, old, new, order):
    volume = Volume(np.zeros(shape, np.uint8), make_affine(OBLIQUE @ list(orientations())[order], old))
    grid = working_grid(volume, new)
    canonical = to_canonical(volume)
    assert np.allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), new, rtol=1e-9)
    extent, covered = canonical.shape * canonical.spacing, grid.shape * np.array(new)
    assert (covered >= extent * (1 - 1e-6) - 1e-3 * np.array(new)).all()
    assert (covered < extent + new).all() or min(grid.shape) == 1
    centres = [
        (volume_affine @ [*(np.array(s) - 1) / 2, 1])[:3]
        for volume_affine, s in ((volume.affine, shape), (grid.affine, grid.shape))
    ]
    assert np.allclose(*centres, atol=1e-6)


# --- there and back -----------------------------------------------------------------------------------------


def interior(shape, ratios):
    """The voxels that no interpolation across the border reaches, by ratios of spacing per axis."""
    return tuple(slice(margin := int(np.ceil(2 + r)), n - margin) for n, r in zip(shape, ratios, strict=True))


def check_ramp(affine, shape, spacing):
    places = world(affine, shape)
    grid, back = None, []
    for axis in range(3):
        scan = Volume(places[..., axis].astype(np.float32), affine)
        on_grid = to_grid(scan, spacing)
        grid = grid_of(on_grid)
        inner = interior(grid.shape, to_canonical(scan).spacing / spacing)
        assert on_grid.voxels.dtype == np.float32
        assert np.abs(on_grid.voxels - world(grid.affine, grid.shape)[..., axis])[inner].max() < 1e-3
        back.append(on_grid.voxels)
    scan_spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    ratios = np.array(spacing)[axes] / scan_spacing
    returned = probabilities_on_scan(np.stack(back, -1), grid, scan)
    assert returned.shape == (*shape, 3)
    inner = interior(shape, 2 * ratios)
    assert returned[inner].size
    assert np.abs(returned - places)[inner].max() < 1e-3


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_a_ramp_of_world_coordinates_survives_there_and_back(turn):
    for directions in orientations():
        check_ramp(make_affine(turn @ directions, (0.9, 1.3, 2.7)), (40, 31, 22), (2.0, 1.6, 1.2))


@hypothesis.given(old=st.tuples(*[st.floats(0.5, 6)] * 3), new=st.tuples(*[st.floats(0.5, 3)] * 3))
@hypothesis.settings(max_examples=40, deadline=None)
def test_a_ramp_survives_any_ratio_of_spacings(old, new):
    shape = [
        int(np.ceil((2 * (2 + 2 * b / a) + 3) + 12 * max(1, b / a))) for a, b in zip(old, new, strict=True)
    ]
    check_ramp(make_affine(OBLIQUE, old), shape, new)


def centroid(mask, affine):
    return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_centroids_of_labels_stay_on_the_grid_and_back(turn):
    # The centre of the field of view, and every point multiples of 3 mm from it along the axes, is a point of
    # symmetry of the 1, 1.5 and 3 mm lattices: so is, exactly, the centroid of what is symmetric about it.
    for directions in orientations():
        spacing = np.abs(directions.T @ [1, 1, 3])
        shape = tuple((np.abs(directions.T @ [71, 60, 87]) / spacing).astype(int))
        affine = make_affine(turn @ directions, spacing)
        middle = affine[:3] @ [*(np.array(shape) - 1) / 2, 1] + turn @ (6, -3, 9)
        radii = np.sqrt((((world(affine, shape) - middle) @ turn / (1, 0.8, 1.2)) ** 2).sum(-1))
        labels = (radii < 20.3).astype(np.uint8) + (radii < 9.7)
        scan = Volume(labels, affine)
        on_grid = to_grid(scan, (1.5, 1.5, 1.5), labels=True)
        shares = np.eye(3, dtype=np.float32)[on_grid.voxels]
        back = labels_on_scan(shares, grid_of(on_grid), scan)
        for volume in (on_grid, back):
            for label in (1, 2):
                assert np.linalg.norm(centroid(volume.voxels == label, volume.affine) - middle) < 0.001
            size = (volume.voxels > 0).sum() * np.prod(volume.spacing)
            assert size == pytest.approx((labels > 0).sum() * 3, rel=0.03)


# --- interpolation ------------------------------------------------------------------------------------------


def test_upsampling_is_linear_interpolation():
    scan = Volume(np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32), make_affine())
    on_grid = to_grid(scan, (0.61, 0.53, 1.7))
    image = sitk.GetImageFromArray(scan.voxels.T)
    image.SetSpacing(scan.spacing.tolist())
    image.SetDirection(OBLIQUE.ravel().tolist())
    image.SetOrigin(scan.affine[:3, 3].tolist())
    resampled = sitk.Resample(
        image, on_grid.shape, sitk.Transform(), sitk.sitkLinear, on_grid.affine[:3, 3].tolist(),
        on_grid.spacing.tolist(), OBLIQUE.ravel().tolist(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip
    inner = tuple(slice(2, -2) for _ in range(3))
    assert np.allclose(on_grid.voxels[inner], sitk.GetArrayFromImage(resampled).T[inner], atol=1e-5)


def test_equal_spacing_changes_no_voxel():
    voxels = np.random.default_rng(0).integers(-1000, 2000, (9, 8, 7), dtype=np.int16)
    for directions in orientations():
        scan = Volume(voxels, make_affine(directions, (2, 2, 2)))
        on_grid = to_grid(scan, (2, 2, 2))
        assert np.array_equal(from_canonical(on_grid.voxels, scan), voxels)


def test_weights_of_twice_the_spacing_worked_out_by_hand():
    # Centres lie midway between two voxels; the box is sqrt(3) wide, to 0.866 on either side. The hat of a
    # neighbour, 0.5 away, lacks only the tail from 0.366 off its middle: 1 - (1 - 0.366)^2 / 2 = 0.799.
    # Of the next hat, 1.5 away, only the tail from 0.634 on is inside: (1 - 0.634)^2 / 2 = 0.067.
    impulse = np.zeros((12, 1, 1), np.float32)
    impulse[6] = 1
    on_grid = to_grid(Volume(impulse, np.eye(4)), (2, 1, 1))
    assert np.allclose(on_grid.voxels.ravel(), [0, 0, 0.0387, 0.4613, 0, 0], atol=1e-4)


def test_what_the_grid_cannot_hold_is_averaged_out_not_sampled():
    stripes = np.where(np.arange(60)[:, None, None] % 2, 100, -100) + np.zeros((60, 4, 4), np.int16)
    for spacing in (2, 3, 4, 5.5):
        voxels = to_grid(Volume(stripes, np.eye(4)), (spacing, 1, 1)).voxels[2:-2]
        assert np.abs(voxels).max() < 20  # sampling gives 100


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_any_type_and_memory_order_gives_the_same_voxels(dtype):
    voxels = np.random.default_rng(0).integers(0, 200, (9, 8, 7)).astype(dtype)
    expected = to_grid(Volume(voxels.astype(np.float64), make_affine()), (1.3, 1.5, 3)).voxels
    for order in "CF":
        on_grid = to_grid(Volume(np.array(voxels, order=order), make_affine()), (1.3, 1.5, 3))
        assert np.allclose(on_grid.voxels, expected, rtol=1e-6)


def test_what_lies_below_air_does_not_bleed():
    voxels = np.full((12, 12, 12), 40, np.int16)
    voxels[:6] = -3024
    on_grid = to_grid(Volume(voxels, np.eye(4)), (1.7, 1.7, 1.7)).voxels
    assert on_grid.min() == pytest.approx(AIR)
    assert on_grid.max() == pytest.approx(40)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (6, 5, 1), (2, 2, 2)])
@pytest.mark.parametrize("spacing", [(0.4, 0.4, 0.4), (2, 2, 2), (50, 50, 50)])
def test_single_slices_and_tiny_scans(shape, spacing):
    scan = Volume(np.full(shape, 2, np.uint8), make_affine())
    on_grid = to_grid(scan, spacing)
    assert np.allclose(on_grid.voxels, 2)
    on_grid = to_grid(scan, spacing, labels=True)
    back = labels_on_scan(np.eye(3, dtype=np.float32)[on_grid.voxels], grid_of(on_grid), scan)
    assert np.array_equal(back.voxels, scan.voxels)


def test_labels_are_decided_from_the_shares_of_the_classes():
    # Three voxels of 1 mm become one of 3 mm: a box of sqrt(8) mm over their hat functions takes 0.312, 0.376, 0.312.
    cases = (([1, 2, 1], 1), ([0, 2, 0], 0), ([2, 2, 0], 2), ([0, 0, 0], 0), ([0, 1, 1], 1))
    # Liver and tumour together outweigh the background that neither of them does alone.
    for labels, expected in (*cases, ([1, 0, 2], 1), ([2, 0, 1], 1)):
        scan = Volume(np.array(labels, np.uint8)[:, None, None], np.eye(4))
        on_grid = to_grid(scan, (3, 1, 1), labels=True)
        assert on_grid.voxels.dtype == np.uint8
        assert on_grid.voxels.ravel().tolist() == [expected]


# --- back to the scan ---------------------------------------------------------------------------------------


@hypothesis.given(
    logits=hnp.arrays(np.float32, (5, 6, 4, 3), elements=st.floats(-8, 8, width=32)),
    background=st.integers(0, 12),
    order=st.integers(0, 47),
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_labels_on_the_scan_are_decided_from_the_probabilities_there(logits, background, order):
    logits[..., 0] += background
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    directions = list(orientations())[order]
    spacing = np.abs(directions.T @ [0.8, 1.9, 3.1])
    shape = np.rint(np.abs(directions.T @ [12, 6, 2])).astype(int)  # fields of view of 9.6, 11.4 and 6.2 mm
    scan = Volume(np.zeros(shape, np.int16), make_affine(OBLIQUE @ directions, spacing), name="scan")
    grid = working_grid(scan, (2, 2, 2))
    assert grid.shape == (5, 6, 4)
    labels = labels_on_scan(probabilities, grid, scan, decision="argmax")
    on_scan = probabilities_on_scan(probabilities, grid, scan)
    assert labels.voxels.dtype == np.uint8
    assert labels.shape == scan.shape
    assert labels.affine is scan.affine
    assert np.allclose(on_scan.sum(-1), 1, atol=1e-5)
    chosen = np.take_along_axis(on_scan, labels.voxels[..., None].astype(int), -1)[..., 0]
    assert (chosen >= on_scan.max(-1) - 1e-6).all()
    nested = labels_on_scan(probabilities, grid, scan).voxels
    for excess, decided in (
        (on_scan[..., 1] + on_scan[..., 2] - on_scan[..., 0], nested > 0),
        ((on_scan[..., 2] - on_scan[..., 1])[nested > 0], nested[nested > 0] == 2),
    ):
        clear = np.abs(excess) > 1e-5
        assert np.array_equal(decided[clear], excess[clear] > 0)
    single = probabilities_on_scan(probabilities[..., 1:2], grid, scan)
    assert np.array_equal(single[..., 0], on_scan[..., 1])


def test_equal_probabilities_go_to_the_lowest_label():
    scan = Volume(np.zeros((4, 4, 4)), np.eye(4))
    grid = working_grid(scan, (1, 1, 1))
    for probabilities, expected in (
        ([0.5, 0.5, 0], 0),
        ([0.2, 0.4, 0.4], 1),
        ([0, 0.5, 0.5], 1),
        ([0, 0, 1], 2),
    ):
        everywhere = np.broadcast_to(np.float32(probabilities), (4, 4, 4, 3))
        assert (labels_on_scan(everywhere, grid, scan).voxels == expected).all()


def test_another_grid_is_refused():
    scan = Volume(np.zeros((4, 4, 4)), make_affine())
    for affine in (make_affine(np.eye(3)), make_affine() @ np.diag([-1.0, 1, 1, 1])):
        with pytest.raises(ValueError, match="not parallel"):
            labels_on_scan(np.ones((4, 4, 4, 2)), Grid((4, 4, 4), affine), scan)


def test_labels_come_back_without_a_probability_map_at_the_resolution_of_the_scan():
    scan = Volume(np.zeros((256, 256, 128), np.uint8, order="F"), np.eye(4))
    grid = working_grid(scan, (4, 4, 4))
    probabilities = np.full((*grid.shape, 3), 0.3, np.float32)
    probabilities[..., 2] += 0.1
    tracemalloc.start()
    labels = labels_on_scan(probabilities, grid, scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (labels.voxels == 2).all()
    assert peak < 256 * 256 * 128 * 4  # one class in float32; the labels themselves are a quarter of it
