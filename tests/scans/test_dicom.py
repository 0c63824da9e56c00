"""DICOM series against SimpleITK and dcm2niix, and series that are no even stack."""

import logging
import subprocess
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from liverjax import scans
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import dicom, nifti
from liverjax.volume import DicomSource

SHAPE = (7, 5, 6)  # x, y, z


def rotation(*angles):
    return np.array(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix()).reshape(3, 3)


#: Directions (LPS) of rows, columns and slices, as SimpleITK takes them: right-handed, as series are.
DIRECTIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "prone": np.diag([-1.0, -1, 1]),
    "feet first": np.diag([-1.0, 1, -1]),
    "oblique": rotation(0.3, -0.2, 0.5),
    "oblique and prone": rotation(-0.15, 0.4, 2.9),
}


def image_of(directions, spacing=(0.7, 0.8, 2.5), origin=(-101.25, 33.5, -520.75), dtype=np.int16):
    values = (np.arange(np.prod(SHAPE)).reshape(SHAPE[::-1]) * 7 % 3000).astype(dtype)
    image = sitk.GetImageFromArray(values)
    image.SetDirection(np.ravel(directions).tolist())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def write_series(folder, image, **tags):
    """Writes a DICOM series with SimpleITK (GDCM), in shuffled order and with misleading names."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    directions = np.reshape(image.GetDirection(), (3, 3))
    common = {
        "0008|0060": "CT",
        "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
        "0020|000e": "1.2.826.0.1.3680043.2.1125.1.1",
        "0020|0052": "1.2.826.0.1.3680043.2.1125.1.2",
        "0020|0037": "\\".join(f"{v:.12g}" for v in directions[:, :2].T.ravel()),
        "0018|0050": f"{image.GetSpacing()[2]:g}",
        "0008|0020": "20200101",  # dates and times that would else differ between files
        "0008|0030": "120000",
        "0008|0021": "20200101",
        "0008|0031": "120000",
        **tags,
    }
    order = np.random.default_rng(0).permutation(image.GetDepth())
    for number, k in enumerate(order.tolist()):
        slice_ = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        for tag, value in {
            **common,
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.1.3.{k}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.12g}" for v in place),
        }.items():
            slice_.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"IM{number:03d}"))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(slice_)


def edit(path, **changes):
    data = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path)


def files_by_position(folder):
    return sorted(folder.iterdir(), key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))


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


# --- several series, several phases -------------------------------------------------------------------------


def test_several_series_in_a_folder(tmp_path):
    image = image_of(np.eye(3))
    write_series(tmp_path / "a", image, **{"0020|0011": "3", "0008|103e": "arterial"})
    write_series(
        tmp_path / "b", image + 1000, **{"0020|0011": "5", "0008|103e": "portal", "0020|000e": "1.2.3.4"}
    )
    for path in (tmp_path / "b").iterdir():
        path.rename(tmp_path / "a" / f"second{path.name}")
    with pytest.raises(InputError) as caught:
        dicom.read_series(tmp_path / "a")
    assert "holds 2 series and none is chosen" in str(caught.value)
    assert "number 3 'arterial', 6 slices" in str(caught.value)
    assert "number 5 'portal', 6 slices, UID 1.2.3.4" in str(caught.value)
    for chosen in (5, "5", "1.2.3.4"):
        voxels = dicom.read_series(tmp_path / "a", series=chosen).voxels
        assert np.array_equal(voxels, sitk.GetArrayFromImage(image).T + 1000)
    with pytest.raises(InputError, match="series 4 is chosen; expected one of: number"):
        dicom.read_series(tmp_path / "a", series=4)


def test_a_series_uid_in_every_file(series):
    expected = dicom.read_series(series).voxels
    for number, path in enumerate(sorted(series.iterdir())):
        edit(path, SeriesInstanceUID=f"1.2.3.{number}")
    assert np.array_equal(dicom.read_series(series).voxels, expected)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("0020|0100", ("1", "2", "3")),  # TemporalPositionIdentifier
        ("0020|0012", ("2", "9", "11")),  # AcquisitionNumber
        ("0008|0032", ("095959.5", "100000.25", "110000")),  # AcquisitionTime
        ("0018|0081", ("1.15", "2.3", "4.6")),  # EchoTime
    ],
)
def test_phases_of_a_dynamic_series(tmp_path, tag, values):
    images = [image_of(DIRECTIONS["oblique"]) + 500 * phase for phase in range(3)]
    for phase in (2, 0, 1):
        write_series(tmp_path / f"{phase}", images[phase], **{tag: values[phase]})
        for path in (tmp_path / f"{phase}").iterdir():
            (tmp_path / "series").mkdir(exist_ok=True)
            path.rename(tmp_path / "series" / f"{2 - phase}{path.name}")
    with pytest.raises(InputError, match="holds 3 phases and none is chosen, expected 0 to 2 or 'last'"):
        dicom.read_series(tmp_path / "series")
    for phase, index in ((0, 0), ("1", 1), ("last", 2)):
        volume = dicom.read_series(tmp_path / "series", phase=phase)
        assert np.array_equal(volume.voxels, sitk.GetArrayFromImage(images[index]).T)
        assert volume.source.phase == index
        assert {path.name[0] for path in volume.source.files} == {f"{2 - index}"}
        assert np.allclose(
            volume.affine[:3, 2], dicom.read_series(tmp_path / "series", phase=0).affine[:3, 2]
        )
    sorted((tmp_path / "series").iterdir())[0].unlink()
    with pytest.raises(
        InputError, match=r"2 slices at .* mm \(such as .*\), expected 3 as at most positions"
    ):
        dicom.read_series(tmp_path / "series", phase=0)


def test_slices_that_occur_twice(series):
    for path in sorted(series.iterdir()):
        (series / f"copy of {path.name}").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"IM\d+ and .*IM\d+ show the same place at the same time"):
        dicom.read_series(series)


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
        ({"NumberOfFrames": 5}, "holds several frames"),
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


# --- other files --------------------------------------------------------------------------------------------


def test_other_files_are_passed_over_with_a_notice(series, caplog):
    expected = dicom.read_series(series).voxels
    report = pydicom.dcmread(next(series.iterdir()))
    (series / "notes.txt").write_text("read me")
    (series / "picture.png").write_bytes(b"\x89PNG")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.save_as(series / "report.dcm")
    with caplog.at_level(logging.WARNING, "liverjax"):
        assert np.array_equal(dicom.read_series(series).voxels, expected)
    assert "3 files are no DICOM images, and not used (such as notes.txt)" in caplog.text


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


def test_without_pydicom_the_extra_is_named(series, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'liverjax\[dicom\]'"):
        dicom.read_series(series)


# --- as cases -----------------------------------------------------------------------------------------------


def test_folders_of_series_are_cases(tmp_path):
    for name in ("patient 10", "patient 9"):
        write_series(tmp_path / "data" / name, image_of(np.eye(3)))
    cases = find_cases(tmp_path / "data")
    assert [case.id for case in cases] == ["patient 9", "patient 10"]
    assert cases[0].read_image().shape == SHAPE
    assert [case.id for case in find_cases(tmp_path / "data" / "patient 9")] == ["patient 9"]
