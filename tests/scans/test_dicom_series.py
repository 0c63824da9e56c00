"""Folders with several series or phases: which slices belong together."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from liverjax.errors import InputError
from liverjax.scans import dicom
from tests.scans.dicom_series import (
    DIRECTIONS,
    SHAPE,
    add,
    document,
    edit,
    files_by_position,
    image_of,
    write_series,
)  # fmt: skip


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)))
    return tmp_path / "series"


def test_several_series_in_a_folder(tmp_path):
    image = image_of(np.eye(3))
    write_series(tmp_path / "a", image, **{"0020|0011": "3", "0008|103e": "arterial"})
    add(tmp_path / "a", image + 1000, **{"0020|0011": "5", "0008|103e": "portal", "0020|000e": "1.2.3.4"})
    with pytest.raises(InputError) as caught:
        dicom.read_series(tmp_path / "a")
    assert "holds 2 series and none is chosen; expected --series=NUMBER|UID|largest" in str(caught.value)
    assert "number 3 'arterial', 6 slices of 7 x 5" in str(caught.value)
    assert "number 5 'portal', 6 slices of 7 x 5, UID 1.2.3.4" in str(caught.value)
    for chosen in (5, "5", "1.2.3.4"):
        voxels = dicom.read_series(tmp_path / "a", series=chosen).voxels
        assert np.array_equal(voxels, sitk.GetArrayFromImage(image).T + 1000)
    with pytest.raises(InputError, match="series 4 is chosen; expected --series"):
        dicom.read_series(tmp_path / "a", series=4)
    with pytest.raises(InputError, match="series largest is chosen"):  # of two that are equally large
        dicom.read_series(tmp_path / "a", series="largest")
    files_by_position(tmp_path / "a")[0].unlink()  # the first series' or the second's
    assert dicom.read_series(tmp_path / "a", series="largest").shape == SHAPE


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


def passes(tmp_path, change):
    """Writes two passes of one series, the second 40 higher; `change(pass, k)` gives the attributes of slice k."""
    folder, image = tmp_path / "series", image_of(np.eye(3))
    write_series(folder, image)
    add(folder, image + 40)
    for path in files_by_position(folder):
        later, k = int(path.name.startswith("second")), int(pydicom.dcmread(path).InstanceNumber) - 1
        edit(path, **{"AcquisitionNumber": 1, **change(later, k)})
    return folder, sitk.GetArrayFromImage(image).T


@pytest.mark.parametrize(
    "change",
    [
        # across midnight: with dates, and without them
        lambda p, k: {"ContentDate": f"2025010{p + 1}", "ContentTime": ("235950", "000020")[p]},
        lambda p, k: {"ContentDate": "", "ContentTime": ("235950", "000020")[p]},
        lambda p, k: {"AcquisitionDateTime": ("20250131235959.5+0100", "20250201000000.2+0100")[p]},
        lambda p, k: {"AcquisitionDate": f"2025010{p + 1}", "AcquisitionTime": ("235950", "000020")[p]},
        # up and down again
        lambda p, k: {"AcquisitionTime": (f"10101{k}", f"10111{5 - k}")[p]},
        # place by place, and numbered so
        lambda p, k: {"AcquisitionTime": f"10{k}{p}10.000"},
        lambda p, k: {"ContentTime": "101010", "InstanceNumber": 2 * k + p},
        # a number that counts the slices and not the passes
        lambda p, k: {"AcquisitionNumber": k, "InstanceNumber": k + 100 * p},
        # passes in other order at some places, told by the time
        lambda p, k: {"AcquisitionNumber": int((p == 1) != (k < 3)), "AcquisitionTime": f"1{p}1010"},
    ],
)
def test_passes_of_one_series_are_kept_apart(tmp_path, change):
    folder, values = passes(tmp_path, change)
    for phase in (0, 1):
        assert np.array_equal(dicom.read_series(folder, phase=phase).voxels, values + 40 * phase)


def test_attributes_that_disagree_about_the_phases_are_named(tmp_path, caplog):
    folder, _ = passes(
        tmp_path, lambda p, k: {"AcquisitionNumber": int((p == 1) != (k < 3)), "AcquisitionTime": f"1{p}1010"}
    )
    dicom.read_series(folder, phase=0)
    assert (
        "AcquisitionNumber assigns the slices to other phases than AcquisitionTime, which is used"
        in caplog.text
    )


def test_passes_that_nothing_tells_apart(tmp_path):
    numbers = np.random.default_rng(1).permutation(12).tolist()
    folder, values = passes(tmp_path, lambda p, k: {"InstanceNumber": numbers[2 * k + p]})
    with pytest.raises(InputError, match="show the same place .* or give each phase a folder"):
        dicom.read_series(folder, phase=0)
    (tmp_path / "later").mkdir()
    for path in folder.glob("second*"):
        path.rename(tmp_path / "later" / path.name)
    assert np.array_equal(dicom.read_series(folder).voxels, values)
    assert np.array_equal(dicom.read_series(tmp_path / "later").voxels, values + 40)


def test_slices_that_occur_twice(series):
    expected = dicom.read_series(series).voxels
    for path in sorted(series.iterdir()):
        (series / f"copy of {path.name}").write_bytes(path.read_bytes())
    with pytest.raises(
        InputError, match=r"IM\d+ and .*IM\d+ show the same place at the same time.*remove the copies"
    ):
        dicom.read_series(series)
    for path in series.glob("copy*"):
        path.unlink()
    assert np.array_equal(dicom.read_series(series).voxels, expected)


def test_a_localizer_is_a_series_of_its_own_and_is_listed_as_such(series):
    expected = dicom.read_series(series).voxels
    scout = image_of(DIRECTIONS["coronal"])[:, :, :1]
    add(
        series,
        scout,
        **{"0020|000e": "1.2.3.4", "0020|0011": "1", "0008|0008": "ORIGINAL\\PRIMARY\\LOCALIZER"},
    )
    with pytest.raises(InputError, match=r"1 slice of 7 x 5 \(localizer\), UID 1\.2\.3\.4"):
        dicom.read_series(series)
    assert np.array_equal(dicom.read_series(series, series="largest").voxels, expected)
    assert dicom.read_series(series, series=1).shape == (7, 5, 1)


def test_a_localizer_within_the_series_is_left_out(series, caplog):
    expected = dicom.read_series(series).voxels
    add(series, image_of(DIRECTIONS["coronal"])[:, :, :1], **{"0008|0008": "ORIGINAL\\PRIMARY\\LOCALIZER"})
    assert np.array_equal(dicom.read_series(series).voxels, expected)
    assert "1 files are not used: 1 localizer (such as secondIM000)" in caplog.text


def test_faults_of_another_series_do_not_matter(series):
    expected = dicom.read_series(series).voxels
    add(series, image_of(np.eye(3)), **{"0020|000e": "1.2.3.4", "0020|0011": "7"})
    other = sorted(series.glob("second*"))
    edit(other[0], ImagePositionPatient=None)
    edit(other[1], PixelSpacing=[-1, -1])
    edit(other[2], PhotometricInterpretation="RGB")
    edit(other[3], NumberOfFrames=5)
    del other[4:]
    uid = "1.2.826.0.1.3680043.2.1125.1.1"
    assert np.array_equal(dicom.read_series(series, series=uid).voxels, expected)
    with pytest.raises(InputError, match="ImagePositionPatient is None"):
        dicom.read_series(series, series=7)


def test_slices_that_went_astray_are_named(series, caplog):
    """A slice whose UID is damaged is a series of its own; the number and description are still the series'."""
    edit_number = {"SeriesNumber": 3, "SeriesDescription": "portal"}
    for path in series.iterdir():
        edit(path, **edit_number)
    path = files_by_position(series)[-1]
    edit(path, SeriesInstanceUID="1.2.3.4")
    assert dicom.read_series(series, series="largest").shape[2] == 5
    assert f"1 other files, such as {path.name}, have the same number and description" in caplog.text


def test_an_enhanced_file_counts_by_its_frames(series):
    """Else the largest series would be the localizer beside it."""
    add(series, image_of(np.eye(3))[:, :, :1], **{"0020|000e": "1.2.3.4"})
    (path,) = series.glob("second*")
    document(path, "1.2.840.10008.5.1.4.1.1.2.1", path, NumberOfFrames=7)
    with pytest.raises(InputError, match="1 slice of 7 x 5 and 7 frames"):
        dicom.read_series(series)
    with pytest.raises(InputError, match="holds several frames"):
        dicom.read_series(series, series="largest")
