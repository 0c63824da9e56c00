"""Files beside the slices, damaged slices, and what headers state of spacing, rescaling and padding."""

import numpy as np
import pydicom
import pytest

from liverjax.errors import InputError
from liverjax.scans import dicom
from tests.scans.dicom_series import (
    document,
    edit,
    edit_all,
    files_by_position,
    image_of,
    without_preamble,
    write_series,
)  # fmt: skip

STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_POSITION = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
NO_IMAGE = {"Rows": None, "Columns": None, "PixelData": None}


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)))
    return tmp_path / "series"


# --- other files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sop_class", "changes", "kind"),
    [
        ("88.67", NO_IMAGE, "X-Ray Radiation Dose SR Storage"),
        ("104.1", NO_IMAGE, "Encapsulated PDF Storage"),
        ("11.1", NO_IMAGE, "Grayscale Softcopy Presentation State Storage"),
        ("66.4", {"NumberOfFrames": 4}, "Segmentation Storage"),
        ("481.2", {"NumberOfFrames": 4}, "RT Dose Storage"),
        ("481.3", NO_IMAGE, "RT Structure Set Storage"),
        ("7", {"PhotometricInterpretation": "RGB"}, "Secondary Capture Image Storage not of grey values"),
        ("7", NO_POSITION, "Secondary Capture Image Storage without position"),
        ("7", NO_IMAGE, "Secondary Capture Image Storage without Rows and Columns"),
        (
            "7.2",
            {"NumberOfFrames": 4, **NO_POSITION},
            "Multi-frame Grayscale Byte Secondary Capture Image Storage",
        ),
        ("2", {"PhotometricInterpretation": "RGB"}, "CT Image Storage not of grey values"),
    ],
)
def test_what_is_no_slice_is_left_out_with_a_notice(series, caplog, sop_class, changes, kind):
    expected = dicom.read_series(series).voxels
    (series / "notes.txt").write_text("read me")
    (series / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    document(series / "zz", STORAGE + sop_class, next(series.glob("IM*")), **changes)
    assert np.array_equal(dicom.read_series(series).voxels, expected)
    assert np.array_equal(dicom.read_series(series, series="1.2.826.0.1.3680043.2.1125.1.1").voxels, expected)
    assert "2 files are not used: " in caplog.text
    assert f"1 {kind}" in caplog.text
    assert "(such as zz)" in caplog.text
    assert "1 no DICOM (such as notes.txt)" in caplog.text


def test_a_stack_of_secondary_captures_with_positions_is_a_series(series):
    """Converters write volumes so."""
    expected = dicom.read_series(series).voxels
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STORAGE + "7"
        data.save_as(path)
    assert np.array_equal(dicom.read_series(series).voxels, expected)


def test_a_folder_of_folders_names_them(series, tmp_path):
    with pytest.raises(
        InputError, match="holds no DICOM images.* name one of the folders .*: series"
    ) as caught:
        dicom.read_series(tmp_path)
    assert dicom.read_series(tmp_path / str(caught.value).split(": ")[-1]).shape == (7, 5, 6)


# --- damaged slices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_a_slice_that_is_cut_anywhere_is_not_passed_over(series, suffix):
    """The stack would look whole without its last slice."""
    last = files_by_position(series)[-1]
    data = last.read_bytes()
    last = last.rename(last.with_suffix(suffix))
    first = 0 if suffix else 132  # without a mark and a name that says so, a file is no DICOM
    for length in (*range(first, len(data), 13), len(data) - 1):
        last.write_bytes(data[:length])
        with pytest.raises(InputError, match=last.name) as caught:
            dicom.read_series(series)
        assert "\n" not in str(caught.value)
    for mark in (b"DICN", bytes(4)):
        last.write_bytes(data[:128] + mark + data[132:])
        with pytest.raises(InputError, match=last.name):
            dicom.read_series(series)
    last.write_bytes(data[: data.index(b"\x28\0\x10\0\x02\0")])  # before Rows
    with pytest.raises(InputError, match="remove it if the series is whole without it"):
        dicom.read_series(series)
    last.unlink()
    assert dicom.read_series(series).shape == (7, 5, 5)


def test_an_unknown_representation_of_any_element_is_an_error_of_the_file(series):
    """Of each element of one slice, the two letters that say how its value is stored."""
    last = files_by_position(series)[-1]
    data = pydicom.dcmread(last)
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(last, implicit_vr=False)
    sound, expected = last.read_bytes(), dicom.read_series(series)
    for element in pydicom.dcmread(last):
        tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
        at = sound.rindex(tag + element.VR.encode()) + 4
        for letters in (b"I\0", b"DD"):
            last.write_bytes(sound[:at] + letters + sound[at + 2 :])
            try:
                volume = dicom.read_series(series)
            except InputError as error:
                assert str(series) in str(error)
                assert "\n" not in str(error)
            else:  # of an element that is not needed
                assert np.array_equal(volume.voxels, expected.voxels)
                assert np.array_equal(volume.affine, expected.affine)


def test_random_damage_to_a_header_is_refused_named_or_harmless(series, caplog):
    expected, last = dicom.read_series(series), files_by_position(series)[-1]
    sound, random = last.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        data = bytearray(sound)
        for at in random.integers(128, len(data) - 80, size=random.integers(1, 4)):
            data[at] = random.integers(256)
        last.write_bytes(data)
        caplog.clear()
        try:
            volume = dicom.read_series(series)
        except InputError as error:
            assert str(series) in str(error)
            assert str(error).isprintable()
        else:
            assert volume.shape == expected.shape or last.name in caplog.text


def test_a_slice_without_a_series_is_refused(series):
    path = files_by_position(series)[-1]
    edit(path, SeriesInstanceUID="")
    for chosen in (None, "largest"):
        with pytest.raises(InputError, match=f"{path.name}: states no SeriesInstanceUID.* or remove it"):
            dicom.read_series(series, series=chosen)
    path.unlink()
    assert dicom.read_series(series).shape == (7, 5, 5)


def test_numbers_that_begin_late_are_a_hint_at_lost_slices(series, caplog):
    dicom.read_series(series)
    assert "InstanceNumber" not in caplog.text
    for path in files_by_position(series)[:2]:  # numbered from 1 at the lowest position
        path.unlink()
    assert dicom.read_series(series).shape == (7, 5, 4)
    assert "the first InstanceNumber is 3, expected 1; slices may be missing at an end" in caplog.text


def test_every_second_number_is_one_of_two_series_that_are_counted_together(series, caplog):
    for k, path in enumerate(files_by_position(series)):  # as the out-phase series of CHAOS
        edit(path, InstanceNumber=2 * k + 2)
    dicom.read_series(series)
    assert caplog.text == ""


# --- files without preamble ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "ExplicitVRBigEndian"]
)
def test_slices_without_preamble(series, syntax, tmp_path):
    expected = dicom.read_series(series).voxels
    little = syntax != "ExplicitVRBigEndian"
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = data.pixel_array.astype("<i2" if little else ">i2").tobytes()
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        data["PixelData"].VR = "OW"
        implicit = syntax.startswith("Implicit")
        pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=little, force_encoding=True)
        without_preamble(path)
        assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(dicom.read_series(series).voxels, expected)
    assert dicom.find_folders(tmp_path) == [series]


def test_deflated_slices(series, monkeypatch):
    expected = dicom.read_series(series).voxels
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        data.save_as(path)
    assert np.array_equal(dicom.read_series(series).voxels, expected)
    monkeypatch.setattr("liverjax.scans.dicom_files.MAX_INFLATED", 400)
    with pytest.raises(InputError, match="inflates to more than 400 bytes"):
        dicom.read_series(series)


# --- spacing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [[-2, -1.5], [0, 0], [0.7, -0.7], [4000, 4000], [0.001, 0.001], [51, 1]])
def test_spacings_that_no_scanner_has(series, spacing):
    edit_all(series, PixelSpacing=spacing)
    with pytest.raises(InputError, match=r"PixelSpacing is \[.*\], expected 0\.05 to 50 mm"):
        dicom.read_series(series)


# --- rescaling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("absent", [None, "empty"])
def test_rescaling_in_a_part_of_the_slices_is_refused(series, name, absent):
    edit_all(series, RescaleSlope=1, RescaleIntercept=-1024)
    path = files_by_position(series)[4]
    data = pydicom.dcmread(path)
    if absent:
        data[name].value = None
    else:
        del data[name]
    data.save_as(path)
    message = rf"{path.name} \(1 of 6 slices\) states no {name}, but IM\d+ does"
    with pytest.raises(InputError, match=message):
        dicom.read_series(series)
    edit(path, **{name: pydicom.dcmread(files_by_position(series)[0])[name].value})
    assert dicom.read_series(series).voxels.min() == -1024


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_rescaling_in_no_slice_is_none(series, caplog, modality):
    edit_all(series, RescaleSlope=None, RescaleIntercept=None, Modality=modality)
    expected = [pydicom.dcmread(path).pixel_array.T for path in files_by_position(series)]
    assert np.array_equal(dicom.read_series(series).voxels, np.stack(expected, -1))
    assert ("its values are taken as HU" in caplog.text) == (modality == "CT")


def test_another_intercept_in_one_slice_of_a_ct_is_named(series, caplog):
    edit_all(series, RescaleSlope=1, RescaleIntercept=-1024)
    path = files_by_position(series)[2]
    edit(path, RescaleIntercept=0)
    dicom.read_series(series)
    assert (
        f"{path.name} states slope and intercept (1.0, 0.0), but 5 of 6 slices (1.0, -1024.0)" in caplog.text
    )


def test_a_rescaling_that_is_no_number(series):
    edit(files_by_position(series)[2], RescaleSlope="nan")
    with pytest.raises(InputError, match="slope nan"):
        dicom.read_series(series)


def test_a_table_in_place_of_rescaling(series):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3000, 0, 16], "HU"
    table.LUTData = [value // 2 + 5 for value in range(3000)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    stored = dicom.read_series(series).voxels
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        del data.RescaleSlope, data.RescaleIntercept
        data.ModalityLUTSequence = [table]
        data.save_as(path)
    assert np.array_equal(dicom.read_series(series).voxels, stored // 2 + 5)


# --- padding ------------------------------------------------------------------------------------------------


def padded(series, value, stored, **changes):
    """Writes `stored` into a corner of each slice, states `value`, and returns the expected voxels without padding."""
    for path in files_by_position(series):
        data = pydicom.dcmread(path)
        pixels = data.pixel_array.copy()
        pixels[:2, :3] = np.array(stored).astype(pixels.dtype)
        data.PixelData = pixels.tobytes()
        data.add_new("PixelPaddingValue", "US" if value >= 0 else "SS", value)
        data.update(changes)
        data.save_as(path)


@pytest.mark.parametrize(
    ("modality", "dtype", "value", "stored", "air"),
    [
        ("CT", np.uint16, 63536, 63536, -1024),
        ("CT", np.int16, -2000, -2000, -1024),
        ("CT", np.int16, 63536, -2000, -1024),  # signed pixels, whose padding is stated as unsigned
        ("MR", np.int16, -32768, -32768, 2),  # the lowest of the others
        ("MR", np.uint16, 65535, 65535, 2),
    ],
)
def test_padding_is_air(tmp_path, modality, dtype, value, stored, air):
    image = image_of(np.eye(3), dtype=dtype)
    tags = {"0028|1052": "-1024", "0028|1053": "1"} if modality == "CT" else {}
    write_series(tmp_path / "series", image + 2, **tags)
    expected = dicom.read_series(tmp_path / "series").voxels.copy()
    edit_all(tmp_path / "series", Modality=modality)
    padded(tmp_path / "series", value, stored)
    volume = dicom.read_series(tmp_path / "series")
    low = expected[3:].min() if modality == "MR" else air
    expected[:3, :2] = min(low, expected[:, 2:].min()) if modality == "MR" else air
    assert np.array_equal(volume.voxels, expected)
    assert volume.voxels.dtype == np.int16


def test_a_range_of_padding(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)))
    padded(tmp_path / "series", -2000, [-1500, -1700, -2000])
    for path in files_by_position(tmp_path / "series"):
        data = pydicom.dcmread(path)
        data.add_new("PixelPaddingRangeLimit", "SS", -1500)
        data.save_as(path)
    volume = dicom.read_series(tmp_path / "series")
    assert (volume.voxels[:3, :2] == -1024).all()
    assert volume.voxels[3:].min() >= 0


def test_padding_in_bits_that_pixels_do_not_use(tmp_path):
    """63536 in 12 of 16 bits would be 2096, a value of bone."""
    write_series(tmp_path / "series", image_of(np.eye(3), dtype=np.uint16))
    expected = dicom.read_series(tmp_path / "series").voxels.copy()
    padded(tmp_path / "series", 63536, 63536)
    edit_all(tmp_path / "series", BitsStored=12, HighBit=11)
    expected[:3, :2] = -1024
    assert np.array_equal(dicom.read_series(tmp_path / "series").voxels, expected)


def test_a_padding_value_that_tissue_has_is_kept(tmp_path, caplog):
    """Files state 0 where 0 is water."""
    write_series(tmp_path / "series", image_of(np.eye(3)) - 1000)
    expected = dicom.read_series(tmp_path / "series").voxels.copy()
    padded(tmp_path / "series", 0, 0)
    expected[:3, :2] = 0
    assert np.array_equal(dicom.read_series(tmp_path / "series").voxels, expected)
    assert "36 pixels of the PixelPaddingValue lie within the range of the others" in caplog.text


def test_nothing_but_padding(tmp_path):
    write_series(tmp_path / "series", image_of(np.eye(3)) * 0 - 2000)
    padded(tmp_path / "series", -2000, -2000)
    assert (dicom.read_series(tmp_path / "series").voxels == -2000).all()
