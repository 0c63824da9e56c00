"""What one can ask of a scan, and where the answer is looked for."""

import numpy as np
import pytest

from liverjax import insight
from liverjax.errors import InputError
from liverjax.insight import seen
from liverjax.insight.seen import Seen
from liverjax.pretrained.load import load_model
from liverjax.scans.grid import Grid
from liverjax.views import to_stack
from liverjax.volume import Volume


@pytest.fixture
def scan():
    """Voxels of 2 x 3 x 5 mm from (-20, 10, 100) mm on; liver in a box, and two tumours of 8 and 2 voxels."""
    labels = np.zeros((12, 10, 9), np.uint8)
    labels[2:10, 2:8, 2:7] = 1
    labels[3:5, 3:5, 3:5] = 2
    labels[7:9, 6, 5] = 2
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = -20, 10, 100
    voxels = np.random.default_rng(0).uniform(-1, 1, labels.shape).astype(np.float32)
    probabilities = np.stack([labels == k for k in range(3)], -1).astype(np.float32)
    return Seen(Volume(voxels, affine), voxels, labels, probabilities, Grid(labels.shape, affine), 8, 1.0)


def test_a_point_is_one_pixel_of_the_slice_through_it(scan):
    # (-14, 19, 115) is voxel (3, 3, 3), a tumour's.
    for view in ("axial", "coronal", "sagittal"):
        asked = insight.at(scan, (-14, 19, 115), view)
        volume = np.zeros(scan.voxels.shape)
        volume[3, 3, 3] = 1
        expected = to_stack(volume, view)[asked.index]
        rows, columns = expected.shape
        assert (
            asked.index == 3 and asked.label == 2 and np.array_equal(asked.pixels[:rows, :columns], expected)
        )
        assert asked.pixels.shape[0] % 8 == asked.pixels.shape[1] % 8 == 0 and asked.pixels.sum() == 1
    assert insight.at(scan, (-14, 19, 115), "axial", label=0).label == 0
    assert seen.place_of(scan, insight.at(scan, (-14, 19, 115), "axial")) == "axial slice 3, z 115 mm"
    assert insight.world_of_voxel(scan.scan, (3, 3, 3)) == (-14, 19, 115)


def test_a_point_outside_names_the_ranges_and_one_that_works(scan):
    with pytest.raises(InputError) as error:
        insight.at(scan, (0, 0, 115), "axial")
    assert "x from -20 to 2, y from 10 to 37, z from 100 to 140; its middle is -9,24,120" in str(error.value)
    middle = str(error.value).rpartition(" ")[2]
    assert insight.at(scan, tuple(map(float, middle.split(","))), "axial").label == 1
    with pytest.raises(
        InputError, match=r"has no voxel \(12, 0, 0\), expected indices from 0 to \(11, 9, 8\)"
    ):
        insight.world_of_voxel(scan.scan, (12, 0, 0))


def test_lesions_are_numbered_by_size(scan):
    first, second = (insight.lesion(scan, number, "axial") for number in (1, 2))
    assert (first.pixels.sum(), first.index, first.label) == (4, 3, 2)
    assert (second.pixels.sum(), second.index) == (2, 5)
    # 8 voxels of 30 mm3 are a sphere of 7.7 mm.
    assert first.about == "lesion 1 of 2, 8 mm"
    with pytest.raises(InputError, match="no lesion 3, expected one from 1 to 2"):
        insight.lesion(scan, 3, "axial")


def test_the_worst_region_is_the_largest_false_one(scan):
    reference = scan.labels.copy()
    reference[2:10, 2:8, 6] = 0  # 48 voxels of false liver, in one axial slice
    reference[0, 0, 0] = 1
    asked = insight.worst(scan, reference, "axial")
    assert (asked.index, asked.label, asked.pixels.sum()) == (6, 1, 48)
    assert asked.about == "largest false region, 1 ml, false liver"  # 48 * 30 mm3 = 1.44 ml
    reference[:, :, 0] = 1  # 120 voxels of missed liver
    assert insight.worst(scan, reference, "axial").label == 0
    with pytest.raises(InputError, match="agree on the liver.*leave --worst out"):
        insight.worst(scan, scan.labels, "axial")
    assert seen.question(scan, "axial").pixels.sum() == (scan.labels[:, :, 2] == 1).sum()


def test_the_networks_see_what_prediction_shows_them(tiny_run, phantom_scans):
    model = load_model(tiny_run)
    file = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    found = insight.look(model, file)
    alone, _ = model.view_probabilities(found.scan)
    for view in model.config.views:
        network, variables = model.trained(view)
        logits, _ = insight.apply_with_tap(network, variables, found.stack(view))
        own = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = to_stack(alone[view][0], view)
        rows, columns = expected.shape[1:3]
        np.testing.assert_allclose(own[:, :rows, :columns], expected, atol=2e-4)
