"""Masks as DICOM segmentations and structure sets: every voxel is where it was, by readers that are not ours."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Outline

import liverjax
from liverjax import scans
from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import dicom_source, nifti, rtstruct, write
from liverjax.volume import Volume
from tests.scans.dicom_series import DIRECTIONS, edit, edit_all, files_by_position, image_of, write_series
from tests.scans.geometry import orientations

pydicom = pytest.importorskip("pydicom", reason="liverjax[dicom] is not installed")
highdicom = pytest.importorskip("highdicom", reason="liverjax[dicom] is not installed")


def some_mask(scan, seed=0):
    """Random labels: most have holes, and pixels that meet at corners."""
    return scan.with_voxels(np.random.default_rng(seed).integers(0, 3, scan.shape).astype(np.uint8))


@pytest.fixture
def scan(tmp_path):
    write_series(tmp_path / "series", image_of(DIRECTIONS["oblique"]))
    return scans.read(tmp_path / "series")


def segments_of(path, scan):
    """(x, y, z, segments) bool, by highdicom, frame by frame as each refers to its slice."""
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in scan.source.files]
    read = highdicom.seg.segread(path)
    return read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True).transpose(
        2, 1, 0, 3
    )


def structures_of(path, scan):
    """(x, y, z, structures) bool: centres in the outlines, several combined by exclusive or, by matplotlib."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.source.files]
    found = []
    for structure in pydicom.dcmread(path).ROIContourSequence:
        mask = np.zeros(scan.shape, bool)
        for contour in structure.get("ContourSequence", []):
            (image,) = contour.ContourImageSequence
            (k,) = (k for k, h in enumerate(headers) if h.SOPInstanceUID == image.ReferencedSOPInstanceUID)
            corner = np.array(headers[k].ImagePositionPatient, float)
            row, column = np.array(headers[k].ImageOrientationPatient, float).reshape(2, 3)
            points = np.array(contour.ContourData, float).reshape(-1, 3) - corner
            assert np.abs(points @ np.cross(row, column)).max() < 1e-3
            flat = np.column_stack([points @ row, points @ column]) / np.array(headers[k].PixelSpacing)[::-1]
            centres = np.indices(scan.shape[:2]).reshape(2, -1).T
            mask[:, :, k] ^= Outline(flat).contains_points(centres).reshape(scan.shape[:2])
        found.append(mask)
    return np.stack(found, axis=-1)


def cielab(rgb):
    """sRGB (IEC 61966-2-1, D65) as CIE 1976 L*a*b*, by the formulas of the standards."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089])
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


READERS = {"dicom-seg": segments_of, "rtstruct": structures_of}


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_each_voxel_is_where_it_was(tmp_path, name, format):
    write_series(tmp_path / "series", image_of(DIRECTIONS[name]))
    scan = scans.read(tmp_path / "series")
    mask = some_mask(scan)
    write.write_labels(tmp_path / "m.dcm", mask, format=format)
    found = READERS[format](tmp_path / "m.dcm", scan)
    assert np.array_equal(found[..., 0], mask.voxels > 0)  # The liver has its tumours in it.
    assert np.array_equal(found[..., 1], mask.voxels == 2)


@pytest.mark.parametrize("format", READERS)
def test_a_mask_with_its_axes_in_any_order_and_direction_is_turned_to_its_series(tmp_path, scan, format):
    mask = some_mask(scan)
    for turn in orientations():  # 48 of them, half of which no series can have
        step = np.eye(4)
        step[:3, :3] = turn
        step[:3, 3] = [(n - 1) if (row < 0).any() else 0 for row, n in zip(turn, scan.shape, strict=True)]
        axes = np.abs(turn).argmax(axis=0)
        voxels = mask.voxels.transpose(axes)
        voxels = voxels[tuple(slice(None, None, int(turn[:, k].sum())) for k in range(3))]
        turned = Volume(voxels, scan.affine @ step)
        placed = write.placed_on(turned, scan)
        assert np.array_equal(placed.voxels, mask.voxels) and placed.source == scan.source
    write.write_labels(tmp_path / "m.dcm", placed, format=format)
    assert np.array_equal(READERS[format](tmp_path / "m.dcm", scan)[..., 0], mask.voxels > 0)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_of_any_mask_fill_it_as_one_shape_or_by_exclusive_or(inside):
    centres = np.indices(inside.shape).reshape(2, -1).T
    union, odd = np.zeros(inside.shape, bool), np.zeros(inside.shape, bool)
    for outline in rtstruct.polygons(inside):
        filled = Outline(outline).contains_points(centres).reshape(inside.shape)
        union |= filled
        odd ^= filled
    assert np.array_equal(union, inside) and np.array_equal(odd, inside)


def test_an_outline_of_a_ring_by_hand():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    (outline,) = rtstruct.polygons(ring)
    # The outer octagon has 8 corners, the diamond of the hole 4 and its first once more; and the cut ends on a straight
    # side of the octagon, there and back.
    assert len(outline) == 8 + 5 + 2
    x, y = outline.T
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    # 9 pixels less an eighth of a pixel at each of four corners, less the diamond of half a pixel.
    assert area == pytest.approx(9 - 4 / 8 - 1 / 2)
    assert sorted(np.unique(outline)) == [-0.5, 0, 0.5, 1, 1.5, 2, 2.5]


def test_what_a_segmentation_says(tmp_path, scan):
    write.write_labels(tmp_path / "m.dcm", some_mask(scan), format="dicom-seg", algorithm="liverjax ct_liver")
    data = highdicom.seg.segread(tmp_path / "m.dcm")
    liver, tumor = (data.get_segment_description(number) for number in (1, 2))
    assert (liver.SegmentLabel, tumor.SegmentLabel) == ("Liver", "Liver tumor")
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"  # SNOMED CT: liver structure
    assert tumor.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"  # SNOMED CT: neoplasm
    assert {s.SegmentAlgorithmType for s in data.SegmentSequence} == {"AUTOMATIC"}
    made_by = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (made_by.AlgorithmName, made_by.AlgorithmVersion) == ("liverjax ct_liver", liverjax.__version__)
    # L* 0 to 100 and a*, b* -128 to 127 in 16 bits.
    lab = np.array(liver.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
    assert lab == pytest.approx(cielab(np.array([221, 130, 101])), abs=0.5)
    assert data.SegmentsOverlap == "YES" and data.SegmentationType == "BINARY"
    assert not data.file_meta.TransferSyntaxUID.is_compressed
    first = pydicom.dcmread(scan.source.files[0])
    assert (
        data.StudyInstanceUID == first.StudyInstanceUID and data.SeriesInstanceUID != first.SeriesInstanceUID
    )
    assert data.FrameOfReferenceUID == first.FrameOfReferenceUID
    (series,) = data.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == {
        pydicom.dcmread(file).SOPInstanceUID for file in scan.source.files
    }


@pytest.mark.parametrize("format", READERS)
def test_masks_without_a_tumour_or_without_anything(tmp_path, scan, format):
    liver = scan.with_voxels((some_mask(scan).voxels > 1).astype(np.uint8))
    nothing = scan.with_voxels(np.zeros(scan.shape, np.uint8))
    for mask, classes in ((liver, 3), (liver, 2), (nothing, 3), (nothing, 2)):
        write.write_labels(tmp_path / "m.dcm", mask, format=format, classes=classes)
        found = READERS[format](tmp_path / "m.dcm", scan)
        assert np.array_equal(found[..., 0], mask.voxels > 0)
        assert found.shape[3] == classes - 1 and not found[..., 1:].any()


@pytest.mark.parametrize("format", READERS)
def test_dciodvfy_finds_no_error(tmp_path, scan, format):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy of dicom3tools is not on this machine")
    for name, mask in {
        "full": some_mask(scan),
        "empty": scan.with_voxels(np.zeros(scan.shape, np.uint8)),
    }.items():
        write.write_labels(tmp_path / f"{name}.dcm", mask, format=format)
        done = subprocess.run(["dciodvfy", "-new", tmp_path / f"{name}.dcm"], capture_output=True, text=True)
        assert not [line for line in done.stderr.splitlines() if line.startswith("Error")], done.stderr


def test_dcmqi_reads_the_same_voxels(tmp_path, scan):
    # Beside this Python, whether its environment is on the PATH or not.
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    dcmqi = shutil.which("segimage2itkimage", path=places)
    if not dcmqi:
        pytest.skip("segimage2itkimage of dcmqi is not on this machine")
    mask = some_mask(scan)
    write.write_labels(tmp_path / "m.dcm", mask, format="dicom-seg")
    words = [dcmqi, "--inputDICOM", tmp_path / "m.dcm", "--outputDirectory", tmp_path, "-t", "nii"]
    subprocess.run(words, check=True, capture_output=True)
    for number, expected in ((1, mask.voxels > 0), (2, mask.voxels == 2)):
        read = nifti.read(tmp_path / f"{number}.nii.gz")
        assert np.array_equal(write.placed_on(read, scan).voxels > 0, expected)


@pytest.mark.skipif(not shutil.which("plastimatch"), reason="plastimatch is not installed")
@pytest.mark.parametrize("name", DIRECTIONS)
def test_plastimatch_fills_the_contours_to_the_same_voxels(tmp_path, name):
    write_series(tmp_path / "series", image_of(DIRECTIONS[name]))
    scan = scans.read(tmp_path / "series")
    mask = some_mask(scan)
    write.write_labels(tmp_path / "m.dcm", mask, format="rtstruct", classes=3, algorithm="a")
    words = ["--input", tmp_path / "m.dcm", "--referenced-ct", tmp_path / "series"]
    words += ["--output-prefix", tmp_path / "out", "--prefix-format", "nii"]
    subprocess.run(["plastimatch", "convert", *words], check=True, capture_output=True)
    for structure, truth in (("Liver", mask.voxels > 0), ("Liver tumor", mask.voxels == 2)):
        read = nifti.read(tmp_path / "out" / f"{structure}.nii")
        index = np.argwhere(np.ones(read.shape, bool))
        places = read.affine @ np.column_stack([index, np.ones(len(index))]).T
        there = np.linalg.solve(scan.affine, places)[:3]
        assert np.allclose(there, there.round(), atol=0.01) and read.shape == scan.shape
        found = np.zeros(scan.shape, bool)
        found[tuple(there.round().astype(int))] = read.voxels[tuple(index.T)] != 0
        # In coronal and sagittal planes it misses one pixel of 210 (1.9.4).
        assert np.count_nonzero(found != truth) <= (name in ("coronal", "sagittal"))


@pytest.mark.parametrize("format", READERS)
def test_what_cannot_be_referred_to_is_refused_and_written_as_nifti(tmp_path, scan, format):
    mask, files = some_mask(scan), files_by_position(tmp_path / "series")
    before = [file.read_bytes() for file in files]

    def restore():
        for file, data in zip(files, before, strict=True):
            file.write_bytes(data)

    def refused(mask, message):
        with pytest.raises(InputError, match=message):
            write.write_labels(tmp_path / "m.dcm", mask, format=format)
        assert not list(tmp_path.glob("*.dcm")) and not list(tmp_path.glob(".partial*"))
        write.write_labels(tmp_path / "m.nii.gz", mask)
        assert np.array_equal(scans.read_mask(tmp_path / "m.nii.gz").voxels, mask.voxels)

    for file in files:
        data = pydicom.dcmread(file)
        del data.FrameOfReferenceUID
        data.save_as(file)
    refused(mask, "states no FrameOfReferenceUID, .*; expected --format=nifti")
    restore()
    for k, file in enumerate(files):
        edit(file, SeriesInstanceUID=f"1.2.3.{k}")
    refused(mask, "several SeriesInstanceUIDs, .*; expected --format=nifti")
    restore()
    refused(Volume(mask.voxels, mask.affine), "was not read from a DICOM series.*or --format=nifti")
    moved = mask.affine + np.array([[0, 0, 0, 2], [0] * 4, [0] * 4, [0] * 4])
    refused(
        Volume(mask.voxels, moved, mask.source),
        r"slice 0 of the mask lies 2 mm from .*, expected a mask in the",
    )
    refused(
        Volume(mask.voxels[1:], mask.affine, mask.source), r"6 x 5 x 6 voxels, expected 6 slices of 7 x 5"
    )
    with pytest.raises(InputError, match="label values 2 in"):
        write.write_labels(tmp_path / "n.dcm", mask, format=format, classes=2)


def test_what_an_anonymiser_removed_is_empty_and_other_values_that_are_wrong_are_named(tmp_path, scan):
    for file in files_by_position(tmp_path / "series"):
        data = pydicom.dcmread(file)
        for name in (*dicom_source.COPIED, "SpecificCharacterSet"):
            if name in data:
                del data[name]
        data.save_as(file)
    for format, reader in READERS.items():
        write.write_labels(tmp_path / "m.dcm", some_mask(scan), format=format)
        assert reader(tmp_path / "m.dcm", scan).any()
        assert pydicom.dcmread(tmp_path / "m.dcm").PatientID == ""


def test_convert_writes_a_finished_mask(tmp_path, scan, capsys):
    mask, series = some_mask(scan), str(tmp_path / "series")
    write.write_labels(tmp_path / "m.nii.gz", Volume(mask.voxels[::-1], _flipped(scan)))
    for format, reader in READERS.items():
        words = ["convert", str(tmp_path / "m.nii.gz"), f"--scan={series}", f"--format={format}"]
        assert main([*words, "-o", str(tmp_path / "m.dcm")]) == 0
        assert f"m.dcm: {format} of liver, tumor, 6 slices" in capsys.readouterr().out
        assert np.array_equal(reader(tmp_path / "m.dcm", scan)[..., 0], mask.voxels[::-1][::-1] > 0)
        assert main([*words, "-o", str(tmp_path / "m.nii")]) == 1
        assert "expected a name that ends in .dcm" in capsys.readouterr().err
    write_series(tmp_path / "other", image_of(DIRECTIONS["axial"]))
    assert main([*words[:2], f"--scan={tmp_path / 'other'}", "-o", str(tmp_path / "x.dcm")]) == 1
    assert "expected at most 0.02 mm" in capsys.readouterr().err and not (tmp_path / "x.dcm").exists()
    edit_all(tmp_path / "other", ImagePositionPatient=[0, 0, 0])
    assert main([*words[:2], f"--scan={tmp_path / 'm.nii.gz'}", "-o", str(tmp_path / "x.dcm")]) == 1
    assert "expected one with the slices of a DICOM series" in capsys.readouterr().err


def _flipped(scan):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = scan.shape[0] - 1
    return scan.affine @ flip
