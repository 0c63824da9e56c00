"""Images of NumPy, nibabel and SimpleITK as volumes, and back; what SimpleITK writes is what it gives in memory."""

import itertools
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from liverjax.errors import InputError
from liverjax.prediction import Prediction
from liverjax.scans import Reading, as_volume, nifti, read, to_nibabel, to_simpleitk
from liverjax.scans.grid import Grid
from liverjax.volume import Volume

SHAPE = (5, 4, 3)
VOXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE, np.int16)
OBLIQUE = np.array(sitk.Euler3DTransform((0, 0, 0), 0.25, -0.15, 0.3).GetMatrix()).reshape(3, 3)
DIRECTIONS = [
    rotation @ np.eye(3)[:, order] * signs
    for rotation in (np.eye(3), OBLIQUE)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def _simpleitk(direction, dtype=np.int16):
    image = sitk.GetImageFromArray(VOXELS.astype(dtype).transpose())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-120.5, 33.25, 710.0))
    image.SetDirection(np.ravel(direction).tolist())
    return image


def test_simpleitk_by_hand():
    # x to the right, which is against ITK's left; z to the head. Voxel (1, 0, 0) lies 0.7 mm further right.
    volume = as_volume(_simpleitk(np.diag([-1.0, 1.0, 1.0])))
    expected = [[0.7, 0, 0, 120.5], [0, -0.8, 0, -33.25], [0, 0, 2.5, 710], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, rtol=0, atol=1e-12)
    assert volume.voxels.dtype == np.int16 and np.array_equal(volume.voxels, VOXELS)


@pytest.mark.parametrize("number", range(len(DIRECTIONS)))
def test_simpleitk_in_memory_is_what_it_writes_and_we_read(number, tmp_path):
    image = _simpleitk(DIRECTIONS[number])
    sitk.WriteImage(image, tmp_path / "scan.nii.gz")
    given, stored = as_volume(image), read(tmp_path / "scan.nii.gz")
    assert np.array_equal(given.voxels, stored.voxels)
    nifti.require_same_geometry(given, stored, tolerance_mm=1e-3)
    # Each voxel lies where SimpleITK itself places it, LPS.
    for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (1, 2, 2)):
        place = image.TransformIndexToPhysicalPoint(index) * np.array([-1, -1, 1])
        np.testing.assert_allclose(given.affine[:3] @ [*index, 1], place, atol=1e-9)
    back = to_simpleitk(given)
    for getter in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(back, getter)(), getattr(image, getter)(), rtol=0, atol=1e-12)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("number", range(0, len(DIRECTIONS), 7))
def test_nibabel_in_memory_is_what_its_file_is_read_as(number, tmp_path):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = DIRECTIONS[number] * (0.7, 0.8, 2.5), (-120.5, 33.25, 710)
    image = nib.Nifti1Image(VOXELS, affine)
    assert np.array_equal(as_volume(image).affine, affine)
    image.to_filename(tmp_path / "scan.nii.gz")
    given, stored = as_volume(nib.load(tmp_path / "scan.nii.gz")), read(tmp_path / "scan.nii.gz")
    assert np.array_equal(given.affine, stored.affine) and np.array_equal(given.voxels, stored.voxels)
    assert given.name == str(tmp_path / "scan.nii.gz")
    back = to_nibabel(given)
    assert np.array_equal(back.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    nifti.write(tmp_path / "mask.nii", given)
    back.to_filename(tmp_path / "nibabel.nii")
    one, other = (nib.load(tmp_path / name) for name in ("mask.nii", "nibabel.nii"))
    for field in ("srow_x", "srow_z", "qform_code", "sform_code", "quatern_b", "qoffset_x", "xyzt_units"):
        assert np.array_equal(one.header[field], other.header[field])


@pytest.mark.parametrize("unit", ["meter", "micron", "mm", "unknown"])
def test_the_unit_of_a_nibabel_header_counts_as_in_its_file(unit, tmp_path):
    affine = np.diag([0.5, 0.5, 0.25, 1.0])
    affine = affine * np.array([{"meter": 1e-3, "micron": 1e3}.get(unit, 1)] * 3 + [1])
    image = nib.Nifti1Image(VOXELS, affine)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "scan.nii")
    for given in (image, nib.load(tmp_path / "scan.nii")):
        np.testing.assert_allclose(as_volume(given).spacing, (0.5, 0.5, 0.25), rtol=1e-6)
        np.testing.assert_allclose(to_nibabel(as_volume(given)).affine, as_volume(given).affine)
    np.testing.assert_allclose(read(tmp_path / "scan.nii").affine, as_volume(given).affine)


def test_nibabel_without_geometry_scaled_and_of_two_dimensions_as_their_files(tmp_path):
    bare = nib.Nifti1Image(VOXELS, None)
    bare.header.set_zooms((2, 3, 4))
    bare.header.set_qform(None, 0)
    bare.header.set_sform(None, 0)
    scaled = nib.Nifti1Image(VOXELS, np.eye(4) * [2, 2, 2, 1])
    scaled.header.set_slope_inter(0.1, -7)
    flat = nib.Nifti1Image(VOXELS[..., 0], np.eye(4) * [2, 2, 2, 1])
    for name, image in (("bare", bare), ("scaled", scaled), ("flat", flat)):
        path = tmp_path / f"{name}.nii"
        image.to_filename(path)
        given, stored = as_volume(nib.load(path)), read(path)
        np.testing.assert_array_equal(given.affine, stored.affine)
        np.testing.assert_allclose(given.voxels, stored.voxels, rtol=1e-6, atol=1e-6)
        assert given.voxels.dtype == stored.voxels.dtype and given.shape == stored.shape


def test_a_phase_of_a_nibabel_image_is_chosen_as_of_its_file():
    image = nib.Nifti1Image(np.stack([VOXELS, VOXELS + 1], -1), np.eye(4) * [2, 2, 2, 1])
    with pytest.raises(
        InputError, match=r"nibabel image: holds 2 phases and none is chosen, expected 0 to 1"
    ):
        as_volume(image)
    assert np.array_equal(as_volume(image, reading=Reading(phase=1)).voxels, VOXELS + 1)


def test_an_array_is_taken_with_its_affine_and_what_has_one_is_taken_without():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    assert np.array_equal(as_volume(VOXELS, affine).voxels, VOXELS)
    volume = Volume(VOXELS, affine)
    assert as_volume(volume) is volume
    image, itk = nib.Nifti1Image(VOXELS, affine), _simpleitk(np.eye(3))
    for given, what in (
        ("scan.nii", "the path scan.nii"),
        (volume, "a liverjax.Volume"),
        (image, "a nibabel image"),
        (itk, "a SimpleITK image"),
    ):
        with pytest.raises(
            InputError, match=f"an affine was given beside {what}, .*expected one .*leave it out"
        ):
            as_volume(given, affine)
    for given in (volume, itk, image):
        with pytest.raises(InputError, match="reading states the series 3 of a scan that is in memory"):
            as_volume(given, reading=Reading(series=3))


@pytest.mark.parametrize("kind", ["4D", "2D", "colours", "complex", "NaN"])
def test_what_simpleitk_holds_beside_scans_is_refused_and_the_remedy_works(kind):
    image = _simpleitk(np.eye(3), np.float32)
    itk = {
        "4D": lambda: sitk.JoinSeries([image, image]),
        "2D": lambda: image[:, :, 1],
        "colours": lambda: sitk.Compose(image, image, image),
        "complex": lambda: sitk.Cast(image, sitk.sitkComplexFloat32),
        "NaN": lambda: image / 0.0,
    }[kind]()
    expected = {
        "4D": (r"4 dimensions, expected three .*image\[:, :, :, 0\]", lambda: itk[:, :, :, 0]),
        "2D": (r"2 dimensions, expected three .*SimpleITK.JoinSeries\(image\)", lambda: sitk.JoinSeries(itk)),
        "colours": (
            r"3 values in each voxel, .*SimpleITK.VectorIndexSelectionCast\(image, 0\)",
            lambda: sitk.VectorIndexSelectionCast(itk, 0),
        ),
        "complex": ("type complex64, expected integers or floats", None),
        "NaN": ("hold no intensity", None),
    }[kind]
    with pytest.raises(InputError, match=expected[0]):
        as_volume(itk)
    if expected[1]:
        assert as_volume(expected[1]()).shape[:2] == SHAPE[:2]


def test_a_damaged_file_behind_a_nibabel_image_is_named(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(VOXELS, np.eye(4)).to_filename(path)
    image = nib.load(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"scan\.nii\.gz: its voxels cannot be read"):
        as_volume(image)


def test_a_mask_as_an_image_and_what_is_printed_of_it(monkeypatch):
    scan = as_volume(_simpleitk(OBLIQUE))
    labels = scan.with_voxels((VOXELS > 0).astype(np.uint8))
    liver = labels.voxels[..., None].astype(np.float32)
    prediction = Prediction(labels, scan, np.concatenate([1 - liver, liver], -1), Grid(SHAPE, scan.affine))
    itk = prediction.to_simpleitk()
    assert itk.GetPixelID() == sitk.sitkUInt8 and sitk.GetArrayFromImage(itk).sum() == labels.voxels.sum()
    sitk.LabelOverlay(sitk.Cast(_simpleitk(OBLIQUE), sitk.sitkUInt8), itk)  # refuses what lies elsewhere
    assert np.array_equal(np.asarray(prediction.to_nibabel().dataobj), labels.voxels)
    ml = labels.voxels.sum() * 0.7 * 0.8 * 2.5 / 1000
    volume = "Volume(5 x 4 x 3 voxels of 0.7 x 0.8 x 2.5 mm, LPS, int16, 'SimpleITK image')"
    assert repr(prediction) == f"Prediction(liver {ml:.4g} ml; expected Dice 1.00)\n  of {volume}"
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match="the package SimpleITK is missing, .*pip install SimpleITK"):
        prediction.to_simpleitk()


def test_no_library_is_imported_to_recognise_an_image():
    code = "import sys, numpy, liverjax; from liverjax.scans import as_volume;"
    code += "as_volume(numpy.zeros((2, 2, 2)), numpy.eye(4)); print(*{'SimpleITK', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "", done.stdout + done.stderr
