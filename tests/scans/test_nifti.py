"""NIfTI files that others wrote: what we find in scans and masks."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.volume import Volume
from tests.scans.nifti_files import (
    AFFINE,
    INTER,
    OBLIQUE,
    PIXDIM,
    QFORM_CODE,
    QUATERN_B,
    SFORM_CODE,
    SLOPE,
    UNITS,
    patched,
    sitk_affine,
    voxels_of,
)

# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_reads_what_nibabel_wrote(tmp_path, suffix, image_class, order, dtype):
    path = tmp_path / f"scan{suffix}"
    image = image_class(voxels_of(dtype), AFFINE, image_class.header_class(endianness=order))
    image.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image.to_filename(path)

    volume = nifti.read(path)
    assert np.array_equal(volume.voxels, voxels_of(dtype))
    assert volume.voxels.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))  # native byte order
    assert np.array_equal(volume.affine, nib.load(path).affine)
    assert volume.affine.dtype == np.float64


def test_scales_to_float32(scan):
    patched(scan, (SLOPE, "f", 0.5), (INTER, "f", -1000.0))
    volume = nifti.read(scan)
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, voxels_of() * 0.5 - 1000)


def test_a_slope_of_zero_is_no_scaling(scan):
    patched(scan, (SLOPE, "f", 0.0), (INTER, "f", 7.0))
    volume = nifti.read(scan)
    assert np.array_equal(volume.voxels, voxels_of())
    assert volume.voxels.dtype == np.int16


@pytest.mark.parametrize("slope", [np.nan, np.inf, -np.inf])
def test_a_slope_that_is_not_finite_is_no_scaling_as_to_nibabel_and_itk(scan, slope):
    patched(scan, (SLOPE, "f", slope), (INTER, "f", np.nan))
    assert np.array_equal(nifti.read(scan).voxels, voxels_of())
    assert nifti.read(scan).voxels.dtype == np.int16
    assert np.array_equal(nib.load(scan).get_fdata(), voxels_of())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(scan)).T, voxels_of())


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_pieces_of_a_large_file_are_scaled_alike(tmp_path, dtype, order):
    # More voxels than are converted at once, and no whole number of pieces.
    voxels = (
        np.random.default_rng(0).integers(0, 200, (130, 100, 41)).astype(np.dtype(dtype).newbyteorder(order))
    )
    image = nib.Nifti1Image(voxels, AFFINE, nib.Nifti1Header(endianness=order))
    image.set_data_dtype(voxels.dtype)
    for slope, inter in ((1, 0), (0.1, -7)):
        image.header["vox_offset"] = 352
        with open(tmp_path / "scan.nii", "wb") as file:
            file.write(image.header.binaryblock[:SLOPE] + np.array([slope, inter], order + "f4").tobytes())
            file.write(image.header.binaryblock[INTER + 4 :] + bytes(4) + voxels.tobytes(order="F"))
        scaled = voxels.astype(np.float32) * np.float32(slope) + np.float32(inter)
        assert np.array_equal(nifti.read(tmp_path / "scan.nii").voxels, scaled)


def test_skips_extensions(tmp_path):
    image = nib.Nifti1Image(voxels_of(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark of forty bytes " * 4))
    nib.save(image, tmp_path / "scan.nii.gz")
    assert np.array_equal(nifti.read(tmp_path / "scan.nii.gz").voxels, voxels_of())


def test_reads_gzip_of_several_members(scan):
    data = scan.read_bytes()
    path = scan.with_name("scan.nii.gz")
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert np.array_equal(nifti.read(path).voxels, voxels_of())


def test_distances_in_metres_become_mm(scan):
    patched(scan, (UNITS, "B", 1))
    assert np.allclose(nifti.read(scan).affine[:3], AFFINE[:3] * 1000, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (1, 4, 3), (1, 1, 1), (5, 4, 3, 1)])
def test_flat_and_singleton_shapes(tmp_path, shape):
    nib.save(nib.Nifti1Image(voxels_of(shape=shape), AFFINE), tmp_path / "scan.nii")
    expected = voxels_of(shape=shape).reshape((*shape, 1)[:3])
    assert np.array_equal(nifti.read(tmp_path / "scan.nii").voxels, expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_phase_of_a_series(tmp_path, suffix):
    path = tmp_path / f"series{suffix}"
    nib.save(nib.Nifti1Image(voxels_of(shape=(5, 4, 3, 6)), AFFINE), path)
    for phase, index in ((0, 0), ("4", 4), ("last", 5)):
        volume = nifti.read(path, phase=phase)
        assert np.array_equal(volume.voxels, voxels_of(shape=(5, 4, 3, 6))[..., index])
    with pytest.raises(InputError, match=r"series.*holds 6 phases.*expected 0 to 5 or 'last'"):
        nifti.read(path)
    for wrong in (6, -1, "late", 1.5, "²", True):
        with pytest.raises(InputError, match=f"phase {wrong} is chosen, expected 0 to 5"):
            nifti.read(path, phase=wrong)
    with pytest.raises(InputError, match=r"phase 99999999999999999999 is chosen"):
        nifti.read(path, phase="9" * 5000)  # Python makes no integers of so many digits


def test_the_sform_comes_before_the_qform(tmp_path, caplog):
    image = nib.Nifti1Image(voxels_of(), AFFINE)
    other = AFFINE.copy()
    other[0, 3] += 0.09
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "close.nii")
    other[0, 3] += 0.02
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "apart.nii")

    with caplog.at_level(logging.WARNING, "liverjax"):
        nifti.read(tmp_path / "close.nii")
        assert not caplog.records
        volume = nifti.read(tmp_path / "apart.nii")
    assert "apart.nii: sform and qform lie up to 0.11 mm apart" in caplog.text
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)


def test_a_qform_alone(tmp_path):
    image = nib.Nifti1Image(voxels_of(), None)
    image.set_qform(AFFINE, code=1)
    nib.save(image, tmp_path / "scan.nii")
    assert np.allclose(nifti.read(tmp_path / "scan.nii").affine, AFFINE, atol=1e-5)


# Three readers; where nibabel refuses a qform, NIfTI's own library, which ITK reads with, is the oracle.
_HALF_TURN = (QUATERN_B, "3f", 0, 0.70710696, 0.70710696)  # 5e-7 longer than 1
_LONGER_HALF_TURN = (QUATERN_B, "3f", 0, 0.7074248, 0.7074248)  # 9e-4 longer
_NO_SFORM = (SFORM_CODE, "h", 0)


@pytest.fixture
def oblique(tmp_path):
    """A file with equal sform and qform, turned about all axes."""
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * (0.8, 0.9, 2.5)
    affine[:3, 3] = 90, -120, 30
    nifti.write(tmp_path / "scan.nii", Volume(voxels_of(), affine))
    return tmp_path / "scan.nii"


@pytest.mark.parametrize(
    "change",
    [
        _HALF_TURN,
        _LONGER_HALF_TURN,
        (PIXDIM, "f", 0),
        (PIXDIM, "f", np.nan),
        (PIXDIM, "f", 5),
        (PIXDIM, "f", -3),
    ],
)
def test_a_qform_as_nifti_reads_it_that_nibabel_refuses(oblique, change):
    patched(oblique, change, _NO_SFORM)
    expected = sitk_affine(sitk.ReadImage(oblique))
    assert np.allclose(nifti.read(oblique).affine, expected, atol=1e-4)
    # A mask has the same fields, and is read alike.
    nifti.write(oblique.with_name("mask.nii"), nifti.read(oblique))
    assert np.allclose(sitk_affine(sitk.ReadImage(oblique.with_name("mask.nii"))), expected, atol=1e-4)


def test_voxel_sizes_of_a_qform_count_without_their_sign_as_to_nibabel(oblique):
    patched(oblique, (PIXDIM + 4, "f", -0.8), _NO_SFORM)
    assert np.allclose(nifti.read(oblique).affine, nib.load(oblique).affine, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_HALF_TURN, "sform and qform lie up to"),
        ((PIXDIM, "f", 0), ""),
        ((PIXDIM + 4, "f", -0.8), ""),
        ((QUATERN_B, "3f", 1, 1, 1), "its qform cannot be read (w2 should be positive"),
        (
            (QUATERN_B, "3f", np.nan, 0, 0),
            "its qform cannot be read (its numbers are not finite); the sform is used",
        ),
        ((PIXDIM + 8, "f", np.inf), "its qform cannot be read"),
    ],
)
def test_a_sound_sform_is_read_whatever_the_qform(oblique, caplog, change, said):
    expected = nifti.read(oblique).affine
    patched(oblique, change)
    with caplog.at_level(logging.WARNING, "liverjax"):
        assert np.array_equal(nifti.read(oblique).affine, expected)
    assert [getattr(record, "kind", "") for record in caplog.records] == ["forms_disagree"] * bool(said)
    assert said in caplog.text
    assert np.array_equal(nib.load(oblique).affine, expected)


def test_a_qform_of_any_size_beside_a_sound_sform(tmp_path, caplog):
    image = nib.Nifti2Image(voxels_of(), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.header["pixdim"][1] = 1e300
    image.to_filename(tmp_path / "scan.nii")
    with caplog.at_level(logging.WARNING, "liverjax"):
        assert np.array_equal(nifti.read(tmp_path / "scan.nii").affine, AFFINE)
    assert "sform and qform lie up to inf mm apart; the sform is used" in caplog.text


def test_missing_geometry_is_warned_of_and_can_be_stated(tmp_path, caplog):
    image = nib.Nifti1Image(voxels_of(), None)
    image.header.set_zooms((0.8, 0.9, 3))
    nib.save(image, tmp_path / "codes_zero.nii")
    nib.save(nib.Nifti1Image(voxels_of(), np.eye(4)), tmp_path / "identity.nii")
    for name, bare in (("codes_zero", [0.8, 0.9, 3, 1]), ("identity", [1, 1, 1, 1])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "liverjax"):
            volume = nifti.read(tmp_path / f"{name}.nii")
        assert f"{name}.nii: holds no geometry, taken as RAS with voxels of" in caplog.text
        assert np.allclose(volume.affine, np.diag(bare))
        stated = nifti.read(tmp_path / f"{name}.nii", spacing=(0.7, 0.7, 5))
        assert np.allclose(stated.affine, np.diag([0.7, 0.7, 5, 1]), rtol=1e-7)


def test_missing_geometry_is_named_by_its_axes(scan, caplog):
    patched(scan, (QFORM_CODE, "h", 0), _NO_SFORM, (PIXDIM + 4, "f", -4))
    with caplog.at_level(logging.WARNING, "liverjax"):
        affine = nifti.read(scan).affine
    assert "taken as LAS with voxels of 4 x 0.8 x 2.5 mm" in caplog.text
    # NIfTI's "method 1": x is pixdim[1] times i.
    assert np.allclose(affine, np.diag([-4, 0.8, 2.5, 1]))
    assert np.allclose(nifti.read(scan, spacing=(3, 2, 1)).affine, np.diag([-3, 2, 1, 1]))


def test_a_stated_spacing_keeps_directions_and_origin(scan):
    volume = nifti.read(scan, spacing=(1, 2, 3))
    assert np.allclose(volume.affine, [[-1, 0, 0, 90], [0, 2, 0, -120], [0, 0, 3, 30], [0, 0, 0, 1]])
    for wrong in ((1, 2), (1, 2, 0), (1, np.nan, 1), "wide", (1, 2, "x")):
        with pytest.raises(InputError, match="expected three sizes in mm above 0"):
            nifti.read(scan, spacing=wrong)


# --- masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8", "f4", "f8"])
def test_masks_of_any_type_become_uint8(tmp_path, dtype):
    labels = (np.arange(60).reshape(5, 4, 3) % 3).astype(dtype)
    nib.save(nib.Nifti1Image(labels, AFFINE, dtype=dtype), tmp_path / "mask.nii.gz")
    mask = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert mask.voxels.dtype == np.uint8
    assert np.array_equal(mask.voxels, labels)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("f4", (0, 0.9999999, 1.9999998)),
        ("f8", (1e-7, 1.0000001, 2.0000001)),
        ("f4", (-0.0009, 1.0009, 1.9991)),
        ("f8", (-1e-300, 1 - 1e-16, 2 + 4e-16)),
    ],
)
def test_labels_that_arithmetic_has_rounded(tmp_path, dtype, values):
    stored = np.array(values, dtype)[np.arange(60).reshape(5, 4, 3) % 3]
    nib.save(nib.Nifti1Image(stored, AFFINE), tmp_path / "mask.nii.gz")
    assert np.array_equal(
        nifti.read_mask(tmp_path / "mask.nii.gz").voxels, np.arange(60).reshape(5, 4, 3) % 3
    )


@pytest.mark.parametrize("divisor", [3, 41, 255, 16383])
def test_labels_that_a_slope_has_rounded(tmp_path, divisor):
    # 41 * float32(1 / 41) is 0.99999994.
    labels = np.arange(60).reshape(5, 4, 3) % 3
    path = tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image((labels * divisor).astype(np.int16), AFFINE), path)
    patched(path, (SLOPE, "f", 1 / divisor))
    assert np.array_equal(nifti.read_mask(path).voxels, labels)


@pytest.mark.parametrize(
    ("dtype", "values", "shown"),
    [
        ("u1", [3], "label values 3 in 1 voxels, expected [0, 1, 2]"),
        ("i2", [-1, 256], "label values -1, 256 in 2 voxels"),  # 256 is 0 and -1 is 255 as uint8
        ("i4", [2**31 - 1], "label values 2147483647 in 1 voxels"),
        ("f4", [0.7], "label values 0.7 in 1 voxels"),
        ("f4", [1.0011, 1.0009], "label values 1.0011 in 1 voxels"),
        ("f4", [1.998, 2.0000002], "label values 1.998 in 1 voxels"),  # with two digits it would be 2
        ("f4", [-1, 257, 4e9], "label values -1, 257, 4000000000 in 3 voxels"),
        ("u1", [9, 8, 7, 6, 5, 4], "label values 4, 5, 6, 7, 8, ... in 6 voxels"),
    ],
)
def test_values_outside_the_set_are_named(tmp_path, dtype, values, shown):
    labels = np.ones((5, 4, 3), dtype)
    labels.ravel()[: len(values)] = values
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "mask.nii")
    with pytest.raises(InputError) as caught:
        nifti.read_mask(tmp_path / "mask.nii")
    assert f"{tmp_path / 'mask.nii'}: {shown}" in str(caught.value)


def test_the_set_of_labels_can_be_chosen(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 2, np.uint8), AFFINE), tmp_path / "mask.nii")
    with pytest.raises(InputError, match=r"label values 2 in 8 voxels, expected \[0, 1\]"):
        nifti.read_mask(tmp_path / "mask.nii", labels=(0, 1))


def test_real_scans_and_their_masks(real_data):
    places = [*real_data.glob("*/imagesTr"), *real_data.glob("lits")]
    pairs = []
    for place in places:
        for scan in sorted([*place.glob("*_0000.nii.gz"), *place.glob("volume-*.nii.gz")])[:1]:
            name = scan.name.replace("_0000", "").replace("volume", "segmentation")
            pairs.append((scan, (place.parent / "labelsTr" if place.name == "imagesTr" else place) / name))
    if not pairs:
        pytest.skip("no scans in imagesTr/ or lits/ among the real data")
    for scan, mask in pairs:
        volume, labels = nifti.read(scan), nifti.read_mask(mask)
        nifti.require_same_geometry(volume, labels)
        reference = nib.load(scan)
        assert np.array_equal(volume.voxels, np.asarray(reference.dataobj))
        assert np.array_equal(volume.affine, reference.affine)
