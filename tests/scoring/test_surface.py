"""Surface distances against hand-derived values, brute force, and their own symmetries."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from liverjax.scoring import surface

SPACINGS = st.tuples(*[st.sampled_from((0.5, 0.7, 1.0, 2.5, 5.0))] * 3)
MASK_PAIRS = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def _mask(shape, *voxels):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


# --- surface voxels -----------------------------------------------------------------------------------------


def test_the_surface_of_a_cube_is_all_but_its_inside():
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    inside = np.zeros_like(cube)
    inside[2:5, 2:5, 2:5] = True
    for neighbours in (6, 18):
        assert np.array_equal(surface.surface_voxels(cube, neighbours), cube & ~inside)


@pytest.mark.parametrize(
    ("missing", "six", "eighteen"),
    [((0, 1, 1), True, True), ((0, 0, 1), False, True), ((0, 0, 0), False, False)],
    ids=["face", "edge", "corner"],
)
def test_which_neighbours_make_the_centre_of_a_cube_surface(missing, six, eighteen):
    cube = np.ones((3, 3, 3), bool)
    cube[missing] = False
    assert surface.surface_voxels(cube, 6)[1, 1, 1] == six
    assert surface.surface_voxels(cube, 18)[1, 1, 1] == eighteen


def test_outside_the_array_is_background():
    assert surface.surface_voxels(np.ones((3, 3, 3), bool)).sum() == 26
    assert surface.surface_voxels(np.ones((4, 4, 1), bool)).all()


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)), st.sampled_from((6, 18)))
def test_the_surface_is_the_mask_without_scipys_erosion(mask, neighbours):
    structure = ndimage.generate_binary_structure(3, 1 if neighbours == 6 else 2)
    expected = mask & ~ndimage.binary_erosion(mask, structure)
    assert np.array_equal(surface.surface_voxels(mask, neighbours), expected)


# --- distances between voxels -------------------------------------------------------------------------------


def test_two_voxels_by_pythagoras():
    a, b = _mask((5, 5, 3), (0, 0, 0)), _mask((5, 5, 3), (3, 4, 0))
    distances = surface.between_voxels(a, b, (1, 1, 1))
    values = (
        distances.assd,
        distances.rmsd,
        distances.hausdorff,
        distances.hd95,
        distances.hd95_max_of_directed,
    )
    assert values == pytest.approx((5,) * 5)


def test_spacing_counts_along_each_axis():
    a, b = _mask((3, 1, 2), (0, 0, 0)), _mask((3, 1, 2), (2, 0, 1))
    assert surface.between_voxels(a, b, (0.5, 1, 3)).hausdorff == pytest.approx(math.sqrt(1 + 9))


def test_distances_across_empty_slices():
    a, b = _mask((1, 1, 40), (0, 0, 0), (0, 0, 39)), _mask((1, 1, 40), (0, 0, 20))
    distances = surface.between_voxels(a, b, (1, 1, 2.5))
    assert distances.to_reference == pytest.approx([50, 47.5])
    assert distances.to_prediction == pytest.approx([47.5])


def test_unequal_surfaces_distinguish_the_definitions():
    # A has one voxel, B that and one 10 mm away: distances [0] from A, [0, 10] from B.
    a, b = _mask((11, 1, 1), (0, 0, 0)), _mask((11, 1, 1), (0, 0, 0), (10, 0, 0))
    distances = surface.between_voxels(a, b, (1, 1, 1))
    assert distances.assd == pytest.approx(10 / 3)  # The mean of the two directed means would be 2.5.
    assert distances.rmsd == pytest.approx(math.sqrt(100 / 3))
    assert distances.hausdorff == 10
    assert distances.hd95 == pytest.approx(9)  # Of [0, 0, 10], at position 0.95 * 2 = 1.9.
    assert distances.hd95_max_of_directed == pytest.approx(9.5)  # Of [0, 10], at position 0.95.


@given(MASK_PAIRS, SPACINGS, st.sampled_from((6, 18)))
def test_distances_are_those_of_brute_force(masks, spacing, neighbours):
    points = [np.argwhere(surface.surface_voxels(mask, neighbours)) * spacing for mask in masks]
    assume(all(map(len, points)))
    apart = cdist(*points)
    found = surface.between_voxels(*masks, spacing, neighbours)
    # In C order: the order in which `argwhere` lists the points of an array.
    assert found.to_reference == pytest.approx(apart.min(1), rel=1e-6)
    assert found.to_prediction == pytest.approx(apart.min(0), rel=1e-6)


@given(MASK_PAIRS, SPACINGS, st.permutations(range(3)))
def test_distances_do_not_depend_on_roles_axes_or_memory_order(masks, spacing, order):
    def values(a, b, spacing):
        voxels, elements = surface.between_voxels(a, b, spacing), surface.between_elements(a, b, spacing)
        return (
            *(voxels.assd, voxels.rmsd, voxels.hausdorff, voxels.hd95, voxels.hd95_max_of_directed),
            *(elements.nsd(1), elements.nsd(3)),
        )

    a, b = masks
    expected = pytest.approx(values(a, b, spacing), rel=1e-6, nan_ok=True)
    assert values(b, a, spacing) == expected
    assert values(np.asfortranarray(a), np.asfortranarray(b), spacing) == expected
    moved = (mask.transpose(order) for mask in masks)
    assert values(*moved, [spacing[axis] for axis in order]) == expected
    assert values(np.pad(a, 3), np.pad(b, 3), spacing) == expected


@given(MASK_PAIRS, SPACINGS)
def test_the_order_of_the_metrics_by_size(masks, spacing):
    assume(all(mask.any() for mask in masks))
    distances = surface.between_voxels(*masks, spacing)
    slack = 1e-6 * (1 + distances.hausdorff)
    assert 0 <= distances.assd <= distances.rmsd + slack <= distances.hausdorff + 2 * slack
    assert max(distances.hd95, distances.hd95_max_of_directed) <= distances.hausdorff + slack
    assert (distances.hausdorff == 0) == np.array_equal(*(surface.surface_voxels(mask) for mask in masks))


# --- distances between surface elements ---------------------------------------------------------------------


def test_the_elements_of_a_voxel_form_an_octahedron():
    voxel = _mask((1, 1, 1), (0, 0, 0))
    cube = surface.between_elements(voxel, voxel, (1, 1, 1))
    assert cube.prediction_areas == pytest.approx([math.sqrt(3) / 8] * 8)
    # Each of the eight faces cuts off half of each side of its 2 x 3 x 5 mm cell: |(15, 10, 6)| / 8.
    stretched = surface.between_elements(voxel, voxel, (2, 3, 5))
    assert stretched.prediction_areas == pytest.approx([math.sqrt(15**2 + 10**2 + 6**2) / 8] * 8)


def test_the_area_of_a_cube_by_faces_edges_and_corners():
    side = 4
    cube = np.ones((side,) * 3, bool)
    inner = side - 1
    expected = 6 * inner**2 + 12 * inner * math.sqrt(0.5) + 8 * math.sqrt(3) / 8
    assert surface.between_elements(cube, cube, (1, 1, 1)).reference_areas.sum() == pytest.approx(expected)


def test_a_voxel_moved_by_its_width():
    # The four corners that the two share are 0 mm apart, the other four 2 mm.
    a, b = _mask((2, 1, 1), (0, 0, 0)), _mask((2, 1, 1), (1, 0, 0))
    elements = surface.between_elements(a, b, (2, 1, 1))
    assert sorted(elements.to_reference) == [0, 0, 0, 0, 2, 2, 2, 2]
    assert elements.nsd(0) == elements.nsd(1.9) == pytest.approx(0.5)
    assert elements.nsd(2) == 1
    assert elements.hd95_area_weighted == 2


def test_rounding_does_not_decide_what_lies_at_the_tolerance():
    a, b = _mask((4, 1, 1), (0, 0, 0)), _mask((4, 1, 1), (3, 0, 0))
    assert surface.between_elements(a, b, (0.7, 0.7, 0.7)).nsd(3 * 0.7) == 1
    assert surface.between_elements(a, b, (0.7, 0.7, 0.7)).nsd(2.09) < 1


def test_areas_of_all_patterns_add_up_alike_from_either_side():
    # A pattern of eight voxels and its complement have the same surface between them.
    areas = surface._element_areas((0.7, 1.3, 2.9))
    assert np.array_equal(areas, areas[::-1])
    assert areas[0] == areas[255] == 0
    assert (areas[1:255] > 0).all()


# --- empty masks, bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (0, 0, 0)])
def test_both_empty_is_undefined(shape):
    empty = np.zeros(shape, bool)
    voxels = surface.between_voxels(empty, empty, (1, 1, 1))
    elements = surface.between_elements(empty, empty, (1, 1, 1))
    values = (voxels.assd, voxels.rmsd, voxels.hausdorff, voxels.hd95, voxels.hd95_max_of_directed)
    assert np.isnan([*values, elements.hd95_area_weighted, elements.nsd(1)]).all()


@pytest.mark.parametrize("swapped", [False, True])
def test_one_empty_is_infinitely_far(swapped):
    masks = np.zeros((3, 3, 3), bool), _mask((3, 3, 3), (1, 1, 1))
    masks = masks[::-1] if swapped else masks
    voxels = surface.between_voxels(*masks, (1, 1, 1))
    elements = surface.between_elements(*masks, (1, 1, 1))
    values = (voxels.assd, voxels.rmsd, voxels.hausdorff, voxels.hd95, voxels.hd95_max_of_directed)
    assert {*values, elements.hd95_area_weighted} == {math.inf}
    assert elements.nsd(100) == 0


def test_equal_masks_are_0_apart():
    mask = _mask((4, 4, 4), (0, 0, 0), (3, 2, 1))
    assert surface.between_voxels(mask, mask, (1, 2, 3)).hausdorff == 0
    assert surface.between_elements(mask, mask, (1, 2, 3)).nsd(0) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": np.ones((3, 3, 4))}, r"\(3, 3, 3\).*\(3, 3, 4\)"),
        ({"prediction": np.ones((3, 3)), "reference": np.ones((3, 3))}, r"\(3, 3\).*\(x, y, z\)"),
        ({"spacing": (1, 1)}, r"\[1.0, 1.0\].*three sizes"),
        ({"spacing": (1, 0, 1)}, "above 0"),
        ({"spacing": (1, math.nan, 1)}, "above 0"),
        ({"neighbours": 26}, "26, expected 6 or 18"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"prediction": np.ones((3, 3, 3)), "reference": np.ones((3, 3, 3)), "spacing": (1, 1, 1)}
    with pytest.raises(ValueError, match=message):
        surface.between_voxels(**good | change)
