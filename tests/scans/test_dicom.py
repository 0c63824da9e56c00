"""DICOM series against SimpleITK and dcm2niix, and series that are no even stack."""

import subprocess
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from liverjax import scans
from liverjax.errors import InputError
from liverjax.scans import dicom, nifti
from liverjax.volume import DicomSource
from tests.scans.dicom_series import (
    DIRECTIONS,
    SHAPE,
    edit,
    edit_all,
    files_by_position,
    image_of,
    write_series,
)


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)))
    return tmp_path / "series"


# --- the same as other readers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_series_equals_its_nifti_twin(tmp_path, name):
    image = image_of(DIRECTIONS[name])
    write_series(tmp_path / "series", image)
    sitk.WriteImage(image, tmp_path / "twin.nii.gz")
    ours, twin = dicom.read_series(tmp_path / "series"), nifti.read(tmp_path / "twin.nii.gz")
    assert ours.voxels.dtype == np.int16
    assert np.array_equal(ours.voxels, twin.voxels)
    assert np.allclose(ours.affine, twin.affine, atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_what_we_write_of_a_series_is_where_dcm2niix_puts_it(tmp_path, name):
    dcm2niix = pytest.importorskip("dcm2niix")
    write_series(tmp_path / "series", image_of(DIRECTIONS[name]))
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "twin", "-o", tmp_path, tmp_path / "series"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    nifti.write(tmp_path / "ours.nii.gz", dicom.read_series(tmp_path / "series"))
    ours, twin = nifti.read(tmp_path / "ours.nii.gz"), nifti.read(tmp_path / "twin.nii")
    # dcm2niix turns the columns round; each voxel has to be in the same place all the same.
    for index in np.ndindex(SHAPE):
        place = ours.affine @ [*index, 1]
        there = np.linalg.solve(twin.affine, place)[:3]
        assert np.allclose(there, there.round(), atol=1e-3)
        assert twin.voxels[tuple(there.round().astype(int))] == ours.voxels[index]


def test_a_volume_knows_its_series_and_the_file_of_each_slice(series):
    volume = dicom.read_series(series)
    source = volume.source
    assert isinstance(source, DicomSource)
    assert source.study_uid == "1.2.826.0.1.3680043.2.1125.1"
    assert source.series_uid == "1.2.826.0.1.3680043.2.1125.1.1"
    assert list(source.files) == files_by_position(series)
    assert source.phase == 0
    assert volume.with_voxels(np.zeros(SHAPE, np.uint8)).source is source


def test_rescaling(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)), **{"0028|1052": "-1024", "0028|1053": "2"})
    stored = {path: pydicom.dcmread(path) for path in files_by_position(tmp_path / "series")}
    volume = dicom.read_series(tmp_path / "series")
    for k, data in enumerate(stored.values()):
        expected = data.pixel_array.T.astype(float) * float(data.RescaleSlope) + float(data.RescaleIntercept)
        assert np.array_equal(volume.voxels[:, :, k], expected)
    assert volume.voxels.dtype == np.int16
    for path in stored:  # each slice has its own slope, as in PET and in some MR scans
        edit(path, RescaleSlope=0.5 + float(pydicom.dcmread(path).InstanceNumber) / 4, RescaleIntercept=0.25)
    volume = dicom.read_series(tmp_path / "series")
    assert volume.voxels.dtype == np.float32
    for k, path in enumerate(stored):
        data = pydicom.dcmread(path)
        assert np.allclose(volume.voxels[:, :, k], data.pixel_array.T * float(data.RescaleSlope) + 0.25)


def test_a_single_slice(series, caplog):
    for path in files_by_position(series)[1:]:
        path.unlink()
    volume = dicom.read_series(series)
    assert volume.shape == (7, 5, 1)
    assert np.allclose(volume.spacing, [0.7, 0.8, 2.5])


def test_scans_of_either_kind_are_read_alike(series, tmp_path):
    nifti.write(tmp_path / "scan.nii.gz", dicom.read_series(series))
    from_folder, from_file = scans.read(series), scans.read(tmp_path / "scan.nii.gz")
    assert np.array_equal(from_folder.voxels, from_file.voxels)
    nifti.require_same_geometry(from_folder, from_file)


# --- no even stack ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_a_missing_slice(series, missing):
    files = files_by_position(series)
    files[missing].unlink()
    one, other = files[missing - 1].name, files[missing + 1].name
    with pytest.raises(InputError, match=f"{one} and {other} lie 5.00 mm apart, expected 2.50 mm"):
        dicom.read_series(series)


def test_uneven_gaps(series):
    files = files_by_position(series)
    x, y, z = pydicom.dcmread(files[2]).ImagePositionPatient
    edit(files[2], ImagePositionPatient=[x, y, float(z) + 0.1])
    assert dicom.read_series(series).shape == SHAPE  # 4 % of the gap: rounding in the header
    edit(files[2], ImagePositionPatient=[x, y, float(z) + 0.4])
    with pytest.raises(InputError, match=r"lie 2\.\d0 mm apart, expected 2\.50 mm"):
        dicom.read_series(series)


def test_gantry_tilt(series):
    for k, path in enumerate(files_by_position(series)):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        edit(path, ImagePositionPatient=[x, float(y) + k * 2.5 * np.tan(np.radians(12)), z])
    with pytest.raises(
        InputError, match=r"tilted by 12\.00 degrees .* \(gantry tilt\), expected at most 0\.5"
    ):
        dicom.read_series(series)


def test_a_slice_that_is_out_of_line(series):
    path = files_by_position(series)[2]
    x, y, z = pydicom.dcmread(path).ImagePositionPatient
    edit(path, ImagePositionPatient=[float(x) + 3, y, z])
    with pytest.raises(InputError, match="expected"):
        dicom.read_series(series)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PixelSpacing": [0.8, 0.9]}, "spacing [0.8, 0.9], expected [0.8, 0.7]"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "directions [[0.0, 1.0, 0.0]"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, "expected two unit vectors"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is None, expected 3 numbers"),
        ({"PixelSpacing": None}, "PixelSpacing is None, expected 2 numbers"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation is RGB"),
        (
            {"NumberOfFrames": 5},
            "holds several frames and states no place of each, expected one slice a file, or an enhanced file",
        ),
        ({"RescaleSlope": 0}, "slope 0.0"),
        ({"PixelData": b"\0\0"}, "its voxels cannot be read"),
    ],
)
def test_slices_that_are_refused(series, changes, message):
    path = sorted(series.iterdir())[3]
    edit(path, **changes)
    with pytest.raises(InputError) as caught:
        dicom.read_series(series)
    assert message in str(caught.value)
    assert str(series) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- files, folders and codecs -----------------------------------------------------------------------------


def test_folders_without_a_series(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        dicom.read_series(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("read me")
    with pytest.raises(InputError, match="holds no DICOM images"):
        dicom.read_series(tmp_path)


def test_truncated_files(series):
    path = files_by_position(series)[3]
    data = path.read_bytes()
    for length in (140, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=str(series)):
            dicom.read_series(series)


def test_compression_without_a_decoder(series):
    path = files_by_position(series)[3]
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f" + bytes(20)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    # Whether a decoder happens to be installed or not, these are no voxels.
    with pytest.raises(InputError, match=r"compressed as JPEG 2000.*pylibjpeg|voxels cannot be read"):
        dicom.read_series(series)


def test_slices_of_an_unknown_compression_are_made_plain(series):
    expected, path = dicom.read_series(series).voxels, files_by_position(series)[3]
    plain, data = path.read_bytes(), pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(20)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    if not pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).is_available:
        with pytest.raises(
            InputError, match=r"no decoder is installed, expected plain voxels; pip install 'pylibjpeg"
        ):
            dicom.read_series(series)
    path.write_bytes(plain)
    assert np.array_equal(dicom.read_series(series).voxels, expected)


def test_compression_with_a_decoder(series):
    expected = dicom.read_series(series).voxels
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.compress(pydicom.uid.RLELossless)
        data.save_as(path)
    assert np.array_equal(dicom.read_series(series).voxels, expected)


def test_a_size_above_the_limit(series):
    with pytest.raises(InputError, match="its voxels take 840 bytes, expected at most 800"):
        dicom.read_series(series, max_bytes=800)


def test_without_pydicom_the_package_is_named(series, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match="pip install pydicom"):
        dicom.read_series(series)


def test_sizes_that_the_files_cannot_hold(series):
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.compress(pydicom.uid.RLELossless)
        data.Rows = data.Columns = 9000
        data.save_as(path)
    with pytest.raises(InputError, match="declares 162000000 bytes of voxels, more than the file can hold"):
        dicom.read_series(series)


def test_want_of_memory_is_an_error_of_the_folder(series):
    """2.4e9 bytes where 2e9 are left to the process."""
    edit_all(series, Rows=10000, Columns=10000)
    code = (
        "import resource, sys\n"
        "from liverjax.scans import dicom\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2)\n"
        "try:\n"
        "    dicom.read_series(sys.argv[1])\n"
        "except dicom.InputError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(series)], capture_output=True, text=True)
    assert run.stdout.startswith(f"{series}: its voxels take 2.4e+09 bytes"), run.stderr


# --- what dcm2niix is said to convert -----------------------------------------------------------------------


def convert(folder, name):
    dcm2niix = pytest.importorskip("dcm2niix")
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%p_%s", "-o", folder.parent, folder],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return nifti.read(next(folder.parent.glob(name)))


def test_a_tilted_series_once_converted(series):
    for k, path in enumerate(files_by_position(series)):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        place = [x, float(y) + k * 2.5 * np.tan(np.radians(12)), z]
        edit(path, ImagePositionPatient=place, GantryDetectorTilt=12, Manufacturer="GE MEDICAL SYSTEMS")
    with pytest.raises(InputError, match="correct the tilt first, for instance with dcm2niix"):
        dicom.read_series(series)
    assert convert(series, "*Tilt*.nii").shape[0] == 7
