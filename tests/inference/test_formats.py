"""`predict --format`: from an export of a PACS to DICOM objects, in one command."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import liverjax
from liverjax import scans
from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from tests.scans.dicom_series import document, write_series

pydicom = pytest.importorskip("pydicom", reason="liverjax[dicom] is not installed")
highdicom = pytest.importorskip("highdicom", reason="liverjax[dicom] is not installed")

_SERIES = "1.2.826.0.1.3680043.2.1125.1"


@pytest.fixture(scope="module")
def export(phantom_scans, tmp_path_factory):
    """Patient / study / series, as a PACS exports: a scout, two reconstructions, a dose report."""
    study = tmp_path_factory.mktemp("export") / "PAT1" / "STUDY1"
    image = sitk.Cast(sitk.ReadImage(find_cases(phantom_scans)[0].image), sitk.sitkInt16)
    image = sitk.DICOMOrient(image, "LPS")
    write_series(study / "SER2", image, **{"0020|0011": "2", "0008|103e": "VENOUS 5.0"})
    thin = {"0020|0011": "3", "0008|103e": "VENOUS 3.0", "0020|000e": f"{_SERIES}.9"}
    write_series(study / "SER3", image, **thin)
    scout = {"0020|0011": "1", "0008|0008": r"ORIGINAL\PRIMARY\LOCALIZER", "0020|000e": f"{_SERIES}.8"}
    write_series(study / "SER1", image[:, :, :1], **scout)
    (study / "SER99").mkdir()
    gone = dict.fromkeys(("Rows", "Columns", "PixelData", "ImagePositionPatient"))
    document(
        study / "SER99" / "DOSE", "1.2.840.10008.5.1.4.1.1.88.67", next((study / "SER2").iterdir()), **gone
    )
    return study.parent.parent


def test_an_export_becomes_segmentations_that_hold_the_masks(tiny_run, export, tmp_path, capsys, caplog):
    words = ["predict", f"--model={tiny_run}", "-i", str(export), "--quiet"]
    assert main([*words, "-o", str(tmp_path / "nifti")]) == 0
    assert "scouts are not used: PAT1/STUDY1/SER1" in caplog.text
    for format, ending in (("dicom-seg", ".seg.dcm"), ("rtstruct", ".rtstruct.dcm")):
        assert main([*words, "-o", str(tmp_path / format), f"--format={format}"]) == 0
        names = {path.name for path in (tmp_path / format).iterdir()}
        assert names == {
            *(f"PAT1_STUDY1_SER{n}{ending}" for n in (2, 3)), "labels.json", "manifest.json", "volumes.csv",
        }  # fmt: skip
    names = json.loads((tmp_path / "nifti" / "labels.json").read_text(encoding="utf-8"))
    assert names == {"background": 0, "liver": 1, "tumor": 2}
    for n in (2, 3):
        mask = np.asarray(nib.load(tmp_path / "nifti" / f"PAT1_STUDY1_SER{n}.nii.gz").dataobj)
        series = scans.read(export / "PAT1" / "STUDY1" / f"SER{n}")
        read = highdicom.seg.segread(tmp_path / "dicom-seg" / f"PAT1_STUDY1_SER{n}.seg.dcm")
        uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series.source.files]
        found = read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        assert np.array_equal(found[..., 0].transpose(2, 1, 0) > 0, mask > 0) and (mask > 0).any()
        assert read.SegmentSequence[0].SegmentAlgorithmName == "liverjax tiny"
    facts = json.loads((tmp_path / "rtstruct" / "manifest.json").read_text(encoding="utf-8"))
    assert [case["status"] for case in facts["cases"]] == ["done", "done"]
    capsys.readouterr()
    assert main([*words, "-o", str(tmp_path / "rtstruct"), "--format=rtstruct", "--skip_existing"]) == 0
    facts = json.loads((tmp_path / "rtstruct" / "manifest.json").read_text(encoding="utf-8"))
    assert [case["status"] for case in facts["cases"]] == ["skipped", "skipped"]


def test_a_scan_that_is_no_series_is_refused_before_the_model_is_loaded(
    tiny_run, phantom_scans, tmp_path, capsys
):
    scan = find_cases(phantom_scans)[0].image
    words = ["-i", str(scan), "-o", str(tmp_path / "m"), "--quiet"]
    assert main(["predict", "--model=none", *words, "--format=dicom-seg"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "is no DICOM series, to which --format=dicom-seg refers" in text
    assert text.endswith("or --format=nifti\n")
    assert main(["predict", f"--model={tiny_run}", *words, "--format=nifti"]) == 0
    one = ["predict", f"--model={tiny_run}", "-i", str(scan), "--quiet", "-o"]
    assert main([*one, str(tmp_path / "m.dcm")]) == 1
    assert "expected a name that ends in .nii or .nii.gz" in capsys.readouterr().err
    assert main([*one, str(tmp_path / "m.nii.gz")]) == 0


def test_a_prediction_saves_itself(tiny_run, export, tmp_path):
    prediction = liverjax.load_model(tiny_run).predict(export / "PAT1" / "STUDY1" / "SER2")
    prediction.save(tmp_path / "m.nii.gz")
    prediction.save(tmp_path / "m.dcm", format="dicom-seg", algorithm="my network")
    assert np.array_equal(scans.read_mask(tmp_path / "m.nii.gz").voxels, prediction.labels.voxels)
    assert highdicom.seg.segread(tmp_path / "m.dcm").SegmentSequence[0].SegmentAlgorithmName == "my network"
