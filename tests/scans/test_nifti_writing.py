"""NIfTI files that we write: what any reader finds in them; and when two files have one geometry."""

import dataclasses
import itertools
import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.volume import Volume
from tests.scans.nifti_files import AFFINE, OBLIQUE, sitk_affine, voxels_of


def orientations():
    """The 48 ways in which the axes of an image can run along those of the patient."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, order] * signs


@pytest.mark.parametrize("source_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_both_readers_find_the_geometry_of_the_scan_in_its_mask(tmp_path, source_class, turn):
    for directions in orientations():
        affine = np.eye(4)
        affine[:3, :3] = turn @ directions * (0.7, 1.3, 4.1)
        affine[:3, 3] = 12.3, -45.6, 78.9
        nib.save(source_class(voxels_of(), affine), tmp_path / "scan.nii.gz")
        scan = nifti.read(tmp_path / "scan.nii.gz")
        labels = (voxels_of() % 3).astype(np.uint8)
        nifti.write(tmp_path / "mask.nii.gz", scan.with_voxels(labels))

        first, second = (nib.load(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert type(second) is source_class
        assert np.array_equal(first.affine, second.affine)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert first.header[field] == second.header[field]
        assert np.array_equal(first.get_qform(), second.get_qform())
        assert second.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(second.dataobj), labels)

        if source_class is nib.Nifti2Image:  # which SimpleITK does not read
            continue
        first, second = (sitk.ReadImage(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert first.GetDirection() == second.GetDirection()
        assert first.GetSpacing() == second.GetSpacing()
        assert first.GetOrigin() == second.GetOrigin()
        assert np.allclose(sitk_affine(second), scan.affine, atol=1e-3)
        assert np.array_equal(sitk.GetArrayFromImage(second), labels.T)


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (2, 0), (1, 4)])
def test_codes_units_and_byte_order_of_the_scan(tmp_path, codes):
    image = nib.Nifti1Image(voxels_of(), AFFINE, nib.Nifti1Header(endianness=">"))
    image.set_qform(AFFINE, code=codes[0])
    image.set_sform(AFFINE, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii")
    nifti.write(tmp_path / "again.nii", nifti.read(tmp_path / "scan.nii"))
    first, second = nib.load(tmp_path / "scan.nii"), nib.load(tmp_path / "again.nii")
    assert np.array_equal(first.affine, second.affine)
    assert (second.header["qform_code"], second.header["sform_code"]) == codes
    assert second.header.get_xyzt_units() == ("mm", "sec")
    assert np.array_equal(np.asarray(second.dataobj), voxels_of())


def test_a_mask_of_a_phase_and_of_an_image_of_two_dimensions(tmp_path):
    for shape, expected in (((5, 4, 3, 6), (5, 4, 3)), ((5, 4, 3, 1), (5, 4, 3)), ((5, 4), (5, 4))):
        nib.save(nib.Nifti1Image(voxels_of(shape=shape), AFFINE), tmp_path / "scan.nii")
        scan = nifti.read(tmp_path / "scan.nii", phase="last")
        nifti.write(tmp_path / "mask.nii", scan.with_voxels(np.ones(scan.shape, np.uint8)))
        written = nib.load(tmp_path / "mask.nii")
        assert written.shape == expected
        assert np.array_equal(written.affine, nib.load(tmp_path / "scan.nii").affine)


@pytest.mark.parametrize("source_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_affine_counts_and_not_the_header_of_another_grid(tmp_path, source_class):
    nib.save(source_class(voxels_of(), AFFINE), tmp_path / "scan.nii")
    scan = nifti.read(tmp_path / "scan.nii")
    resampled = AFFINE @ np.diag([2.0, 2.0, 2.0, 1.0])
    moved = AFFINE.copy()
    moved[:3, 3] += 0.125
    turned = np.eye(4)
    turned[:3, :3] = OBLIQUE @ AFFINE[:3, :3]
    for affine in (resampled, moved, turned):
        nifti.write(tmp_path / "out.nii", dataclasses.replace(scan, affine=affine))
        written = nib.load(tmp_path / "out.nii")
        assert type(written) is source_class
        assert np.array_equal(written.affine.astype(np.float32), affine.astype(np.float32))
        assert np.allclose(written.get_qform(), affine, atol=1e-4)
        assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
        assert np.allclose(written.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
        assert np.array_equal(
            nifti.read(tmp_path / "out.nii").affine.astype(np.float32), affine.astype(np.float32)
        )


def test_a_stated_spacing_goes_into_the_mask(tmp_path):
    bare = nib.Nifti1Image(voxels_of(), None)
    bare.header.set_sform(None, 0)
    bare.header.set_qform(None, 0)
    nib.save(bare, tmp_path / "scan.nii")
    scan = nifti.read(tmp_path / "scan.nii", spacing=(4, 4, 5))
    nifti.write(tmp_path / "mask.nii", scan.with_voxels(voxels_of() % 2))
    mask = nifti.read(tmp_path / "mask.nii")
    assert mask.spacing.tolist() == [4, 4, 5]
    nifti.require_same_geometry(mask, scan)


def test_a_volume_cut_from_an_image_of_two_dimensions(tmp_path):
    nib.save(nib.Nifti1Image(voxels_of(shape=(5, 4)), AFFINE), tmp_path / "scan.nii")
    scan = nifti.read(tmp_path / "scan.nii")
    cut = dataclasses.replace(scan, voxels=scan.voxels[:3, :2])
    nifti.write(tmp_path / "out.nii", cut)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj), cut.voxels)


def test_without_a_header_the_affine_goes_into_both_forms(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (1, 2, 3)
    nifti.write(tmp_path / "made.nii.gz", Volume(voxels_of(np.float32), affine))
    written = nib.load(tmp_path / "made.nii.gz")
    assert np.allclose(written.get_sform(), affine, atol=1e-6)
    assert np.allclose(written.get_qform(), affine, atol=1e-5)
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
    assert np.allclose(sitk_affine(sitk.ReadImage(tmp_path / "made.nii.gz")), affine, atol=1e-5)
    assert np.array_equal(nifti.read(tmp_path / "made.nii.gz").voxels, voxels_of(np.float32))


def test_long_axes_are_written_as_nifti_2(tmp_path):
    nifti.write(tmp_path / "long.nii", Volume(np.ones((40000, 1, 1), np.uint8), np.diag([2.0, 1, 1, 1])))
    assert nifti.read(tmp_path / "long.nii").shape == (40000, 1, 1)
    # Also with the source of a shorter one.
    nib.save(nib.Nifti1Image(voxels_of(shape=(1, 1, 1)), AFFINE), tmp_path / "short.nii")
    short = nifti.read(tmp_path / "short.nii")
    nifti.write(tmp_path / "long.nii", dataclasses.replace(short, voxels=np.ones((40000, 1, 1), np.uint8)))
    assert np.array_equal(nifti.read(tmp_path / "long.nii").affine, short.affine)


def test_types_on_disk(tmp_path):
    path = tmp_path / "x.nii"
    for voxels, dtype, stored in (
        (np.ones((2, 2, 2), bool), None, "u1"),
        (np.ones((2, 2, 2), np.float16), None, "f4"),
        (np.ones((2, 2, 2), np.int64), np.uint8, "u1"),
        (np.full((2, 2, 2), 0.25), np.float32, "f4"),
    ):
        nifti.write(path, Volume(voxels, np.eye(4)), dtype=dtype)
        assert nib.load(path).get_data_dtype() == stored
        assert np.array_equal(nib.load(path).get_fdata(), voxels)
    for voxels in (np.full((2, 2, 2), 256), np.full((2, 2, 2), 0.5), np.full((2, 2, 2), -1)):
        with pytest.raises(InputError, match="volume: its values do not fit into uint8"):
            nifti.write(path, Volume(voxels, np.eye(4)), dtype=np.uint8)
    with pytest.raises(InputError, match="not written with voxels of type complex128"):
        nifti.write(path, Volume(np.ones((2, 2, 2)), np.eye(4)), dtype=complex)


def test_equal_volumes_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write(tmp_path / name, Volume(voxels_of(), AFFINE))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_names_that_are_hard(tmp_path):
    folder = tmp_path / "Größe & Ort" / "肝臓 ü"
    folder.mkdir(parents=True)
    for name in (f"{'n' * 247}.nii.gz", "Fall 1 (spät).nii.gz", "a.b.c.nii"):
        nifti.write(folder / name, Volume(voxels_of(), AFFINE))
        assert np.array_equal(nifti.read(folder / name).voxels, voxels_of())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "mask.nii.gz"
    nifti.write(path, Volume(voxels_of(), AFFINE))
    before = path.read_bytes()

    class Breaking(np.ndarray):
        def tobytes(self, order=None):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"mask\.nii\.gz: cannot be written \(No space left on device\)"):
        nifti.write(path, Volume(voxels_of().view(Breaking), AFFINE))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mask.nii.gz"]
    with pytest.raises(InputError, match=r"expected a name that ends in \.nii or \.nii\.gz"):
        nifti.write(tmp_path / "mask.png", Volume(voxels_of(), AFFINE))


def test_float32_rounding_is_one_geometry_and_a_tenth_of_a_voxel_is_not():
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (0.5, 0.5, 0.8)
    affine[:3, 3] = -301.234567, 512.345678, -1033.456789
    scan = Volume(np.zeros((512, 512, 400), np.uint8), affine, name="scan.nii")
    nifti.require_same_geometry(scan, Volume(scan.voxels, affine.astype(np.float32).astype(float)))

    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, 0] * 0.1
    with pytest.raises(InputError, match=r"scan\.nii and mask\.nii lie up to 0\.05 mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, shifted, name="mask.nii"))
    spread = affine.copy()
    spread[:3, 0] *= 1.0005  # same first corner: 511 * 0.5 mm * 0.0005
    with pytest.raises(InputError, match=r"lie up to 0\.128 mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, spread))
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    with pytest.raises(InputError, match="mm apart"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, flipped))
    with pytest.raises(
        InputError, match=r"scan\.nii has shape \(512, 512, 400\) but other has \(512, 512, 399\)"
    ):
        nifti.require_same_geometry(scan, Volume(scan.voxels[..., 1:], affine, name="other"))
    apart = affine.copy()
    apart[0, 3] += 0.02 + 1e-9  # with three digits it would be what is allowed
    with pytest.raises(InputError, match=r"lie up to 0\.0200000\d+ mm apart .* expected at most 0\.02 mm"):
        nifti.require_same_geometry(scan, Volume(scan.voxels, apart))
