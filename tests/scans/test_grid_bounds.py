"""Scans whose working grid would take any amount of memory are refused before any is taken."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.scans.grid import (
    LONGEST,
    MOST_VOXELS,
    VOXEL_SIZES,
    check_voxel_sizes,
    labels_on_scan,
    to_grid,
    working_grid,
)
from liverjax.volume import Volume
from tests.scans.geometry import OBLIQUE, make_affine
from tests.scans.nifti_files import UNITS, patched, voxels_of


def volume_of(shape, sizes, voxels=0):
    return Volume(
        np.broadcast_to(np.int16(voxels), shape), make_affine(OBLIQUE, sizes, (0, 0, 0)), name="scan"
    )


def refused(message, call, *arguments):
    """Takes next to no memory, however much it would be."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as caught:
            call(*arguments)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [(800, 800, 2500), (0.04, 1, 1), (1, 1, 51), (9e5, 9e5, 9e5), (2e-6, 1, 1)])
def test_voxels_that_no_scan_of_a_patient_has(sizes):
    scan = volume_of((4, 4, 4), sizes)
    shown = " x ".join(f"{size:.6g}" for size in sizes)
    for call in (check_voxel_sizes, lambda v: working_grid(v, (2, 2, 2)), lambda v: to_grid(v, (2, 2, 2))):
        refused(f"scan: voxels of {shown} mm, expected 0.05 to 50 mm; correct", call, scan)


@pytest.mark.parametrize("sizes", [(0.075, 0.075, 0.075), (10, 10, 10), (0.05, 50, 1), (0.3, 0.3, 5)])
def test_voxels_of_the_finest_and_the_coarsest_scanners(sizes):
    scan = volume_of((4, 5, 6), np.float32(sizes), 7)
    assert VOXEL_SIZES == (0.05, 50)
    assert np.allclose(to_grid(scan, (2, 2, 2)).voxels, 7)


def test_metres_for_millimetres_can_be_corrected_as_the_message_says(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of(), np.diag([4.0, 4, 4, 1])), path)
    patched(path, (UNITS, "B", 1))
    message = r"scan\.nii: voxels of 4000 x 4000 x 4000 mm.*the unit in its header, or read it with the right"
    refused(message, to_grid, nifti.read(path), (1, 1, 1))
    assert to_grid(nifti.read(path, spacing=(4, 4, 4)), (4, 4, 4)).shape == (5, 4, 3)
    patched(path, (UNITS, "B", 2))
    assert to_grid(nifti.read(path), (4, 4, 4)).shape == (5, 4, 3)


def test_a_field_of_view_longer_than_any_patient():
    refused(
        r"scan: a field of view of 5040 x 40 x 40 mm, expected at most 5000 mm",
        lambda scan: working_grid(scan, (2, 2, 2)),
        volume_of((126, 1, 1), (40, 40, 40)),
    )
    working_grid(volume_of((125, 1, 1), (40, 40, 40)), (2, 2, 2))
    assert LONGEST == 5000


def test_the_largest_patient_at_a_millimetre_and_no_more():
    # The widest bore, 0.85 m, and 2 m of patient; 1.445e9 voxels of 1 mm.
    patient = volume_of((512, 512, 2000), (850 / 512, 850 / 512, 1))
    assert np.prod(working_grid(patient, (1, 1, 1)).shape) == 850 * 850 * 2000 < MOST_VOXELS
    refused(
        r"scan: its working grid of 0\.5 x 0\.5 x 0\.5 mm would have 11560000000 voxels, expected at most 2147483648",
        lambda scan: working_grid(scan, (0.5, 0.5, 0.5)),
        patient,
    )
    working_grid(patient, (1, 1, 1))  # a larger spacing, as the message says


@pytest.mark.parametrize("spacing", [(1e-6, 1e-6, 1e-6), (5e-324, 1, 1)])
def test_a_spacing_that_asks_for_more_than_there_is(spacing):
    refused("would have .* voxels", lambda scan: working_grid(scan, spacing), volume_of((4, 4, 4), (1, 1, 1)))


@pytest.mark.parametrize("spacing", [(4, np.nan, 4), (np.inf, 1, 1), (0, 1, 1), (-1, 1, 1), (1, 1), 2.0])
def test_a_spacing_that_is_none(spacing):
    refused(
        "expected three sizes in mm above 0",
        lambda scan: working_grid(scan, spacing),
        volume_of((4, 4, 4), (1, 1, 1)),
    )


def test_slices_that_become_large_before_they_are_merged():
    # 60000 slices of 0.05 mm: 3 m, 1500 slices of 2 mm; but each of them is 1000 x 1000 voxels of 2 mm before that.
    scan = volume_of((60000, 40, 40), (0.05, 50, 50))
    in_slices = Volume(np.asfortranarray(np.zeros((40, 40, 2), np.int16)).transpose(2, 0, 1), np.eye(4))
    assert np.argmax(in_slices.voxels.strides) == 0
    voxels = np.lib.stride_tricks.as_strided(in_slices.voxels, scan.shape, (4, 2, 2))
    scan = Volume(voxels, scan.affine, name="scan")
    with pytest.raises(
        InputError, match="scan: 60000000000 voxels of 60000 resampled slices, expected at most"
    ):
        to_grid(scan, (2, 2, 2))


def test_a_long_axis_takes_no_square_of_its_length():
    scan = Volume(np.arange(20000, dtype=np.float32)[:, None, None], np.diag([0.2, 1, 1, 1.0]))
    tracemalloc.start()
    on_grid = to_grid(scan, (0.25, 1, 1))
    shares = np.stack([np.zeros_like(on_grid.voxels), np.ones_like(on_grid.voxels)], -1)
    back = labels_on_scan(shares, working_grid(scan, (0.25, 1, 1)), scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The ramp of 5 per mm, sampled every 0.25 mm, has steps of 1.25.
    assert np.allclose(np.diff(on_grid.voxels[2:-2, 0, 0]), 1.25, atol=0.01)
    assert (back.voxels == 1).all()
    assert peak < 50 * 20000 * 8  # 20000 x 16000 weights are 2.5 GB
