"""Masks as NIfTI with the names of their labels, and the formats that a file's name and its scan allow."""

import sys
import xml.etree.ElementTree as ET

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from liverjax import scans
from liverjax.errors import InputError
from liverjax.scans import write
from liverjax.volume import Volume


@pytest.fixture
def mask(scan):
    read = scans.read(scan)
    return read.with_voxels(np.random.default_rng(0).integers(0, 3, read.shape).astype(np.uint8))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_names_are_in_the_header_and_other_readers_find_the_voxels(tmp_path, scan, mask, kind):
    image = nib.load(scan)
    nib.save(kind(np.asarray(image.dataobj), image.affine), tmp_path / "other.nii")
    mask = scans.read(tmp_path / "other.nii").with_voxels(mask.voxels)
    for name in ("mask.nii", "mask.nii.gz"):
        write.write_labels(tmp_path / name, mask)
        read = nib.load(tmp_path / name)
        assert type(read) is kind and np.array_equal(np.asarray(read.dataobj), mask.voxels)
        (extension,) = read.header.extensions
        text = extension.get_content()
        labels = ET.fromstring(text if isinstance(text, str) else text.decode()).iter("Label")
        assert {int(label.get("Key")): label.text for label in labels} == {
            0: "background",
            1: "liver",
            2: "tumor",
        }
        ours = scans.read_mask(tmp_path / name)
        assert np.array_equal(ours.voxels, mask.voxels) and np.array_equal(ours.affine, mask.affine)
        if kind is nib.Nifti1Image:
            assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / name)).T, mask.voxels)
    first = (tmp_path / "mask.nii").read_bytes()
    write.write_labels(tmp_path / "mask.nii", mask)
    assert (tmp_path / "mask.nii").read_bytes() == first


def test_a_network_of_the_liver_alone_names_no_tumour(tmp_path, mask):
    liver = mask.with_voxels((mask.voxels > 0).astype(np.uint8))
    write.write_labels(tmp_path / "mask.nii", liver, classes=2)
    assert b"tumor" not in (tmp_path / "mask.nii").read_bytes()
    assert write.label_names(2) == {"background": 0, "liver": 1}
    with pytest.raises(InputError, match=r"label values 2 in .* expected \[0, 1\]"):
        write.write_labels(tmp_path / "other.nii", mask, classes=2)


@pytest.mark.parametrize(
    ("name", "format", "message", "right"),
    [
        ("m.dcm", "nifti", "expected a name that ends in .nii or .nii.gz", "m.nii.gz"),
        ("m.nii.gz", "dicom-seg", "expected a name that ends in .dcm", "m.seg.dcm"),
        ("m.nii.gz", "rtstruct", "expected a name that ends in .dcm", "m.rtstruct.dcm"),
    ],
)
def test_a_file_is_named_by_its_format(tmp_path, name, format, message, right):
    with pytest.raises(InputError, match=message):
        write.check_format(tmp_path / name, format)
    write.check_format(tmp_path / right, format)


def test_formats_are_those_that_are_known(tmp_path, mask):
    with pytest.raises(InputError, match="format is 'dicom_seg'; did you mean 'dicom-seg'?"):
        write.write_labels(tmp_path / "m.dcm", mask, format="dicom_seg")


@pytest.mark.parametrize("format", ["dicom-seg", "rtstruct"])
def test_a_scan_that_is_no_series_is_refused_and_goes_as_nifti(tmp_path, scan, mask, format):
    pytest.importorskip("highdicom", reason="liverjax[dicom] is not installed")
    with pytest.raises(
        InputError, match=f"is no DICOM series, to which --format={format} refers.*or --format=nifti"
    ):
        write.check_scans([scan], format)
    write.check_scans([scan], "nifti")
    with pytest.raises(InputError, match="was not read from a DICOM series"):
        write.write_labels(tmp_path / "m.dcm", mask, format=format)
    assert not (tmp_path / "m.dcm").exists()


@pytest.mark.parametrize(("format", "package"), [("dicom-seg", "highdicom"), ("rtstruct", "pydicom")])
def test_a_missing_package_is_named_before_anything_is_computed(tmp_path, monkeypatch, format, package):
    pytest.importorskip(package, reason="liverjax[dicom] is not installed")
    with monkeypatch.context() as without:
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            without.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"not installed: pip install {package}$"):
            write.check_scans([tmp_path], format)
    write.check_scans([tmp_path], format)


def test_a_mask_of_another_place_is_not_turned_to_a_scan(mask):
    moved = mask.affine + np.array([[0, 0, 0, 5], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(InputError, match="lie up to 5 mm apart"):
        write.placed_on(Volume(mask.voxels, moved), mask)
