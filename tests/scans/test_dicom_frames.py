"""Enhanced files, of many slices each: the same volume as the series of single slices that they were made of."""

import subprocess

import numpy as np
import pydicom
import pytest

from liverjax import scans
from liverjax.errors import InputError
from liverjax.scans import dicom, nifti, write
from tests.scans.dicom_series import DIRECTIONS, edit, enhanced, files_by_position, image_of, write_series

ORDER = [3, 0, 5, 1, 4, 2]


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", image_of(DIRECTIONS["oblique"]))
    return tmp_path / "series"


@pytest.mark.parametrize("name", DIRECTIONS)
def test_an_enhanced_file_is_the_volume_of_its_slices(tmp_path, name):
    write_series(tmp_path / "series", image_of(DIRECTIONS[name]))
    for k, path in enumerate((tmp_path / "series").iterdir()):
        edit(path, RescaleSlope=1 + k, RescaleIntercept=-100 * k)  # Of each frame its own.
    enhanced(tmp_path / "series", tmp_path / "enhanced" / "file.dcm", ORDER)
    one, other = scans.read(tmp_path / "series"), scans.read(tmp_path / "enhanced")
    assert np.array_equal(one.voxels, other.voxels) and one.voxels.dtype == other.voxels.dtype
    assert np.array_equal(one.affine, other.affine)
    assert other.source.files == (tmp_path / "enhanced" / "file.dcm",) * 6


def test_what_highdicom_converts_is_the_same_volume(series, tmp_path):
    legacy = pytest.importorskip("highdicom", reason="liverjax[dicom] is not installed").legacy
    slices = [pydicom.dcmread(path) for path in series.iterdir()]
    for slice_ in slices:
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber",
                     "ReferringPhysicianName", "Manufacturer"):  # fmt: skip
            setattr(slice_, name, "")
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made = legacy.LegacyConvertedEnhancedCTImage(slices, "1.2.3.4", 1, "1.2.3.5", 1)
    (tmp_path / "enhanced").mkdir()
    made.save_as(tmp_path / "enhanced" / "file.dcm")
    one, other = scans.read(series), scans.read(tmp_path / "enhanced")
    assert np.array_equal(one.voxels, other.voxels) and np.allclose(one.affine, other.affine, atol=1e-6)


def test_dcm2niix_finds_the_same_voxels_at_the_same_places(series, tmp_path):
    dcm2niix = pytest.importorskip("dcm2niix")
    enhanced(series, tmp_path / "enhanced" / "file.dcm")
    words = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "twin", "-o", tmp_path, tmp_path / "enhanced"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    ours, twin = scans.read(tmp_path / "enhanced"), nifti.read(tmp_path / "twin.nii")
    # It turns the columns round; each voxel has to be in the same place all the same.
    index = np.argwhere(np.ones(ours.shape, bool))
    there = np.linalg.solve(twin.affine, ours.affine @ np.column_stack([index, np.ones(len(index))]).T)[:3]
    assert np.allclose(there, there.round(), atol=1e-3)
    assert np.array_equal(twin.voxels[tuple(there.round().astype(int))], ours.voxels[tuple(index.T)])


def test_phases_in_one_file_are_told_apart_by_its_frames(series, tmp_path):
    file = tmp_path / "enhanced" / "file.dcm"
    both = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    enhanced(series, file, both)
    with pytest.raises(InputError, match="frame 1 of file.dcm and frame 2 of file.dcm show the same place"):
        dicom.read_series(file.parent)
    data = pydicom.dcmread(file)
    for k, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].TemporalPositionIndex = 2 - k % 2
        frame.PixelValueTransformationSequence[0].RescaleIntercept = 1000 * (k % 2)
    data.save_as(file)
    with pytest.raises(InputError, match="phase"):
        dicom.read_series(file.parent)
    late, early = (dicom.read_series(file.parent, phase=phase) for phase in (1, 0))
    assert np.array_equal(early.voxels, late.voxels + 1000)


def test_a_missing_frame_a_stack_of_two_directions_and_a_cut_list_are_refused(series, tmp_path):
    file = tmp_path / "enhanced" / "file.dcm"
    enhanced(series, file, [0, 1, 3, 4, 5])
    with pytest.raises(InputError, match=r"frame 2 of file.dcm and frame 3 of file.dcm lie 5.00 mm apart"):
        dicom.read_series(file.parent)
    enhanced(series, file)
    data = pydicom.dcmread(file)
    turned = pydicom.Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.PerFrameFunctionalGroupsSequence[4].PlaneOrientationSequence = [turned]
    data.save_as(file)
    with pytest.raises(InputError, match="file.dcm: directions .*expected .* as in frame 1 of file.dcm"):
        dicom.read_series(file.parent)
    enhanced(series, file, PlanePositionSequence=None)
    with pytest.raises(InputError, match="ImagePositionPatient is None, expected 3 numbers"):
        dicom.read_series(file.parent)
    enhanced(series, file)
    data = pydicom.dcmread(file)
    del data.PerFrameFunctionalGroupsSequence[3]
    data.save_as(file)
    with pytest.raises(InputError, match="NumberOfFrames is 6, but 5 frames have functional groups"):
        dicom.read_series(file.parent)


def test_an_enhanced_file_of_one_frame_is_a_slice(series, tmp_path):
    enhanced(series, tmp_path / "enhanced" / "file.dcm", [2])
    one = scans.read(tmp_path / "enhanced")
    assert np.array_equal(one.voxels[:, :, 0], scans.read(series).voxels[:, :, 2])


def test_several_frames_without_places_are_exported_again(series, tmp_path):
    file = tmp_path / "enhanced" / "file.dcm"
    enhanced(series, file)
    data = pydicom.dcmread(file)
    del data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence
    data.save_as(file)
    with pytest.raises(InputError, match="states no place of each.*export the series again as one of these"):
        dicom.read_series(file.parent)
    enhanced(series, file)
    assert np.array_equal(dicom.read_series(file.parent).voxels, dicom.read_series(series).voxels)


def test_frames_are_decoded_one_by_one(series, tmp_path):
    """Compressed without loss, by an encoder of pydicom; each frame by itself."""
    file = tmp_path / "enhanced" / "file.dcm"
    enhanced(series, file, ORDER)
    expected = scans.read(file.parent).voxels
    data = pydicom.dcmread(file)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(file)
    assert np.array_equal(scans.read(file.parent).voxels, expected)


@pytest.mark.parametrize("format", ["dicom-seg", "rtstruct"])
def test_masks_of_enhanced_files_are_refused_before_and_after_and_written_as_nifti(series, tmp_path, format):
    pytest.importorskip("highdicom", reason="liverjax[dicom] is not installed")
    enhanced(series, tmp_path / "enhanced" / "file.dcm")
    with pytest.raises(InputError, match=rf"--format={format} does not refer yet; expected --format=nifti"):
        write.check_scans([tmp_path / "enhanced"], format)
    write.check_scans([series], format)
    scan = scans.read(tmp_path / "enhanced")
    mask = scan.with_voxels(np.ones(scan.shape, np.uint8))
    settings = {"classes": 3, "algorithm": "a"}
    with pytest.raises(InputError, match="does not refer yet; expected --format=nifti"):
        write.write_labels(tmp_path / "m.dcm", mask, format=format, **settings)
    write.write_labels(tmp_path / "m.nii.gz", mask, format="nifti", **settings)
    assert np.allclose(nifti.read(tmp_path / "m.nii.gz").affine, scan.affine, atol=1e-4)
    assert files_by_position(series)
