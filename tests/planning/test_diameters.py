"""Diameters: against shapes whose diameters are known, all pairs of points, and pyradiomics."""

import time

import numpy as np
import pytest

from liverjax.errors import InputError
from liverjax.objects.components import largest
from liverjax.planning import lesion_diameters, measure, slice_axis, slice_distance
from liverjax.planning.diameters import _plane, outline
from tests.planning.lesion_shapes import longest_by_brute_force, random_lesion, widest_by_scanning


def _mm(affine, line):
    first, second = (affine[:3, :3] @ end + affine[:3, 3] for end in np.array(line.ends))
    return first, second, float(np.linalg.norm(second - first))


def _rotation(degrees, axis):
    turn = np.eye(4)
    a, b = {0, 1, 2} - {axis}
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[[a, a, b, b], [a, b, a, b]] = cos, -sin, sin, cos
    return turn


def test_a_row_of_ten_pixels_is_ten_pixels_long_and_a_single_pixel_one():
    mask = np.zeros((20, 6, 3), bool)
    mask[4:14, 2, 1] = True
    found = lesion_diameters(mask, np.diag([0.7, 0.8, 5, 1]))
    assert found.longest.mm == pytest.approx(7.0)
    assert found.longest.ends == ((3.5, 2.0, 1.0), (13.5, 2.0, 1.0))
    assert found.perpendicular.mm == pytest.approx(0.8)
    assert (found.axis, found.slice, found.slices, found.next_mm) == (2, 1, 1, 0.0)
    # The perpendicular nearest to the first end, which is a vertex of the outline.
    assert found.perpendicular.ends == ((4.0, 1.5, 1.0), (4.0, 2.5, 1.0))
    one = np.ones((1, 1, 1))
    assert lesion_diameters(one, np.diag([0.7, 0.8, 5, 1])).longest.mm == pytest.approx(0.8)
    assert lesion_diameters(one, np.diag([0.7, 0.8, 5, 1])).perpendicular.mm == pytest.approx(0.7)


def test_a_box_by_hand():
    # 10 x 4 pixels of 1 x 2 mm: from (-0.5, 0) to (9.5, 3) is 10 by 3 pixels, 10 by 6 mm; from (0, -0.5) to (9, 3.5) is
    # 9 by 4 pixels, 9 by 8 mm: sqrt(145) is the longer one. Both diagonals are equal; the one of the lower end counts.
    mask = np.zeros((14, 8, 4), bool)
    mask[2:12, 2:6, 1:3] = True
    found = lesion_diameters(mask, np.diag([1, 2, 3, 1]))
    assert found.longest.mm == pytest.approx(np.sqrt(145))
    assert found.longest.ends == ((2.0, 1.5, 1.0), (11.0, 5.5, 1.0))
    assert found.slice == 1 and found.next_mm == pytest.approx(np.sqrt(145))


def test_a_notch_is_crossed_by_the_longest_diameter_but_ends_lie_on_the_outline():
    # A letter C of 9 x 9 pixels, 3 wide, open to the right.
    mask = np.zeros((11, 11, 1), bool)
    mask[1:10, 1:10, 0] = True
    mask[4:10, 4:7, 0] = False
    found = lesion_diameters(mask, np.eye(4))
    edges = outline(mask[:, :, 0]).reshape(-1, 2)
    for end in found.longest.ends:
        assert np.abs(edges - end[:2]).sum(1).min() == 0
    assert found.longest.mm == pytest.approx(np.hypot(9, 8))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.9, 5), (0.6, 1.4, 2.5)])
@pytest.mark.parametrize("turn", [(0, 0), (2, 30), (0, 20), (1, -17)], ids=str)
@pytest.mark.parametrize("shape", ["sphere", "ellipsoid", "box"])
def test_solids_to_half_a_pixel_at_each_end(shape, spacing, turn):
    """The scan is turned, so that its slices are oblique; the solid's section by each slice is known exactly."""
    affine = _rotation(turn[1], turn[0]) @ np.diag([*spacing, 1])
    affine[:3, 3] = affine[:3, :3] @ [-30.3, -30.1, -12.2]
    inside = np.meshgrid(*(np.arange(n) for n in (61, 61, 25)), indexing="ij")
    x, y, z = np.tensordot(affine[:3, :3], inside, 1) + affine[:3, 3, None, None, None]
    if shape == "box":  # with edges along the voxel axes, 20.5 x 12.3 x 9 voxels
        mask = np.ones_like(x, bool)
        for axis, half, centre in zip(inside, (10.25, 6.15, 4.5), (30.3, 30.1, 12.2), strict=True):
            mask &= np.abs(axis - centre) <= half
        expected = np.hypot(20.5 * spacing[0], 12.3 * spacing[1])
    else:
        halves = np.array((13.0, 13, 13) if shape == "sphere" else (15.0, 9, 12))
        mask = (x / halves[0]) ** 2 + (y / halves[1]) ** 2 + (z / halves[2]) ** 2 <= 1
        # Semi-axes of the central section: u -> u^T Q u on the plane of the slice, Q = diag(1 / halves^2).
        u, v = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
        plane = np.stack([u, v], 1)
        quadric = plane.T @ np.diag(1 / halves**2) @ plane
        # The slice nearest to the centre is up to half a slice away from it.
        offset = affine[:3, :3] @ [0, 0, 0.2]
        level = 1 - (offset**2 / halves**2).sum()
        expected = 2 * np.sqrt(level / np.linalg.eigvalsh(quadric)[0])
    found = lesion_diameters(mask, affine)
    pixel = max(spacing[:2])
    # Half a pixel at each end, and for the box another quarter of the diagonal that a corner between pixels takes.
    tolerance = pixel if shape != "box" else pixel + np.hypot(*spacing[:2]) / 4
    assert abs(found.longest.mm - expected) <= tolerance
    first, second, length = _mm(affine, found.longest)
    across_first, across_second, across_length = _mm(affine, found.perpendicular)
    assert length == pytest.approx(found.longest.mm) and across_length == pytest.approx(
        found.perpendicular.mm
    )
    assert abs((second - first) @ (across_second - across_first)) < 1e-6
    if shape == "sphere":
        assert abs(found.perpendicular.mm - 2 * 13 * np.sqrt(1 - (0.2 * spacing[2] / 13) ** 2)) <= pixel
    if shape == "ellipsoid":
        other = 2 * np.sqrt(level / np.linalg.eigvalsh(quadric)[1])
        # It is turned with the longest diameter, which half a pixel at each end turns by little.
        assert abs(found.perpendicular.mm - other) <= 2 * pixel


def test_200_random_lesions_equal_all_pairs_of_points():
    for seed in range(200):
        mask, affine = random_lesion(seed)
        found = lesion_diameters(mask, affine)
        expected = longest_by_brute_force(mask, affine, slice_axis(affine))
        assert found.longest.mm == pytest.approx(expected, rel=1e-9), seed
        first, second, length = _mm(affine, found.longest)
        assert length == pytest.approx(expected, rel=1e-9)
        across_first, across_second, across_length = _mm(affine, found.perpendicular)
        assert across_length == pytest.approx(found.perpendicular.mm, rel=1e-6)
        assert abs((second - first) @ (across_second - across_first)) < 1e-6 * length * across_length + 1e-9
        assert {end[found.axis] for end in (*found.longest.ends, *found.perpendicular.ends)} == {found.slice}


def test_perpendiculars_equal_a_scan_over_the_outline():
    for seed in range(40):
        mask, affine = random_lesion(seed)
        found = lesion_diameters(mask, affine)
        region = np.moveaxis(mask, found.axis, 0)[found.slice]
        ends = np.delete(np.array(found.longest.ends), found.axis, axis=1)
        scanned = widest_by_scanning(region, ends, _plane(affine, found.axis), 4000)
        assert scanned <= found.perpendicular.mm * (1 + 1e-9)
        assert found.perpendicular.mm == pytest.approx(scanned, rel=0.01), seed


def test_equal_to_pyradiomics():
    """Runs where pyradiomics is installed. Convex lesions: its mesh is nowhere wider between slices than in one."""
    shape = pytest.importorskip("radiomics.shape", reason="pyradiomics is not installed")
    sitk = pytest.importorskip("SimpleITK")
    for seed in range(200):
        rng = np.random.default_rng(seed)
        halves, spacing = rng.uniform(2, 14, 3), rng.uniform(0.5, 5, 3)
        grid = np.meshgrid(*(np.arange(32) - 15.5 + rng.uniform(-0.5, 0.5) for _ in range(3)), indexing="ij")
        mask = largest(sum((axis / half) ** 2 for axis, half in zip(grid, halves, strict=True)) <= 1, 6)
        image = sitk.GetImageFromArray(mask.T.astype(np.uint8))
        image.SetSpacing(spacing.tolist())
        theirs = shape.RadiomicsShape(image, image).getMaximum2DDiameterSliceFeatureValue()
        ours = lesion_diameters(mask, np.diag([*spacing, 1])).longest.mm
        assert ours == pytest.approx(float(theirs), rel=1e-9), seed


def test_slices_are_those_nearest_to_axial():
    # A coronal series: the third voxel axis runs to the front, the second to the head.
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 4, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    assert slice_axis(coronal) == 1 and slice_distance(coronal) == pytest.approx(2)
    mask = np.zeros((12, 12, 12), bool)
    mask[2:8, 5, 3:6] = True  # 6 x 3 pixels of 1 x 4 mm in the axial slice 5
    found = lesion_diameters(mask, coronal)
    assert (found.axis, found.slice) == (1, 5)
    # Either 6 by 2 pixels, or 5 by 3: hypot(5, 12) is longer than hypot(6, 8).
    assert found.longest.mm == pytest.approx(13.0)
    # A gantry tilted by 20 degrees: slices are 5 mm apart along the table, less at a right angle.
    tilted = np.diag([1.0, 1, 5, 1]) @ np.eye(4)
    tilted[1, 1], tilted[2, 1] = np.cos(np.radians(20)), np.sin(np.radians(20))
    assert slice_distance(tilted) == pytest.approx(5 * np.cos(np.radians(20)))


def test_every_lesion_of_a_mask_is_measured_where_it_lies():
    mask = np.zeros((40, 40, 10), np.uint8)
    mask[5:15, 5, 4], mask[30:34, 30:32, 6:8], mask[0, 20, 2] = 2, 2, 2
    affine = np.diag([2.0, 2, 3, 1])
    found = measure(mask, affine)
    assert [lesion.diameters.slice for lesion in found.lesions] == [2, 4, 6]
    assert [lesion.lesion.voxels for lesion in found.lesions] == [1, 10, 16]
    assert [lesion.cut for lesion in found.lesions] == [True, False, False]
    assert found.lesions[1].diameters.longest.ends == ((4.5, 5.0, 4.0), (14.5, 5.0, 4.0))
    assert found.lesions[2].lesion.volume_ml == pytest.approx(16 * 12 / 1000)
    assert found.corner == (0, 5, 2) and found.ids.shape == (34, 27, 6) and found.slice_mm == 3
    assert measure(np.zeros((4, 4, 4)), affine).lesions == ()


def test_volumes_of_sheared_voxels_are_those_of_the_parallelepiped():
    affine = np.diag([1.0, 1, 5, 1])
    affine[:3, 1] = 0, np.cos(0.4), np.sin(0.4)
    found = measure(np.ones((3, 3, 3)), affine)
    assert found.lesions[0].lesion.volume_ml == pytest.approx(27 * np.linalg.det(affine) / 1000)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="no voxel in any slice"):
        lesion_diameters(np.zeros((3, 3, 3)), np.eye(4))
    with pytest.raises(InputError, match="singular"):
        measure(np.ones((3, 3, 3)), np.diag([1, 0, 1, 1]))


def test_fifty_lesions_of_a_large_scan_take_under_two_seconds():
    rng = np.random.default_rng(0)
    mask = np.zeros((512, 512, 300), np.uint8)
    cube = np.meshgrid(*(np.arange(-36, 37) for _ in range(3)), indexing="ij")
    places = [(x, y, z) for x in range(40, 480, 80) for y in range(40, 480, 80) for z in (50, 130, 210)]
    for index in rng.choice(len(places), 50, replace=False):
        ragged = 1 + 0.3 * np.sin(cube[0] / 3) * np.sin(cube[1] / 4)
        ball = sum(axis**2 for axis in cube) <= rng.uniform(5, 31) ** 2 * ragged
        x, y, z = places[index]
        mask[x - 36 : x + 37, y - 36 : y + 37, z - 36 : z + 37] |= ball.astype(np.uint8)
    affine = np.diag([0.8, 0.8, 1, 1])
    seconds = []
    for _ in range(3):
        start = time.process_time()
        found = measure(mask, affine)
        seconds.append(time.process_time() - start)
    assert len(found.lesions) == 50
    assert min(seconds) < 2


def test_noise_is_refused_in_time_that_is_bounded():
    specks = np.zeros((80, 80, 20), np.uint8)
    specks[::2, ::2, ::4] = 1
    specks[0, 0, 0] = 0
    with pytest.raises(InputError, match=r"holds 7999 separate lesions, expected at most 5000"):
        measure(specks, np.eye(4))
    specks[:, :, 4:] = 0
    assert len(measure(specks, np.eye(4)).lesions) == 1599
