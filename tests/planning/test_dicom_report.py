"""DICOM structured reports of response: written by `recist`, read back by highdicom, validated by dciodvfy."""

import json
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes

from liverjax.commands.dispatch import main
from liverjax.scans import nifti, read
from tests.scans.dicom_series import DIRECTIONS, edit, write_series

hd = pytest.importorskip("highdicom", reason="highdicom is not installed (extra 'dicom')")

SHAPE = (36, 30, 16)  # x, y, z of the series


def _series(folder, orientation, date, patient="P1"):
    """A CT series of soft tissue; returns it as liverjax reads it."""
    voxels = np.random.default_rng(0).integers(0, 100, SHAPE[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection(np.ravel(DIRECTIONS[orientation]).tolist())
    image.SetSpacing((1.5, 1.25, 3.0))
    image.SetOrigin((-20.5, 11.25, -300.0))
    tags = {
        "0008|0020": date,
        "0008|0021": date,
        "0010|0020": patient,
        "0020|000e": f"1.2.826.0.1.3680043.2.1125.{date}",
    }
    write_series(folder, image, **tags)
    return read(folder)


def _mask(path, scan, *boxes):
    """A liver with lesions, boxes of voxels (first, size) of the scan."""
    voxels = np.ones(scan.shape, np.uint8)
    for first, size in boxes:
        voxels[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = 2
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, scan.with_voxels(voxels))
    return path


LARGE, SMALL = ((6, 8, 4), (14, 9, 7)), ((25, 20, 9), (6, 6, 4))
LESS, NEW = ((8, 10, 5), (7, 5, 5)), ((3, 24, 11), (6, 4, 4))


@pytest.fixture
def reported(tmp_path):
    """Function from the orientation of the series to the two reports, and what recist.json holds of them."""

    def call(orientation):
        points, folders = [], []
        boxes = ([LARGE, SMALL], [LESS, SMALL, NEW])
        for index, (date, there) in enumerate(zip(("20240110", "20240410"), boxes, strict=True)):
            folders.append(tmp_path / f"ct{index}")
            scan = _series(folders[-1], orientation, date)
            points.append(_mask(tmp_path / "masks" / f"t{index}.nii.gz", scan, *there))
        words = [f"--time_points={points[0]},{points[1]}", f"--scans={folders[0]},{folders[1]}"]
        assert main(["recist", *words, f"-o={tmp_path / 'out'}"]) == 0
        files = sorted((tmp_path / "out").glob("*.dcm"))
        assert [file.name for file in files] == ["masks_0.dcm", "masks_1.dcm"]
        (patient,) = json.loads((tmp_path / "out" / "recist.json").read_text())["patients"]
        return files, patient, folders

    return call


def _measured(group):
    """Name -> value, unit and coordinates of the measurements of a group."""
    return {m.name.value: (m.value, m.unit.value, m.referenced_coordinates) for m in group.get_measurements()}


@pytest.mark.parametrize(
    ("orientation", "in_space"), [("axial", False), ("prone", False), ("oblique", False), ("coronal", True)]
)
def test_highdicom_reads_what_the_report_says(reported, orientation, in_space):
    files, patient, folders = reported(orientation)
    for index, file in enumerate(files):
        document = hd.sr.srread(file)
        kind = hd.sr.Comprehensive3DSR if in_space else hd.sr.ComprehensiveSR
        assert isinstance(document, kind) and document.PatientID == "P1"
        assert "not for treatment" in document.SeriesDescription
        *lesions, response = document.content.get_image_measurement_groups()
        own = [row for row in patient["lesions"] if row["time_point"] == f"t{index}" and row["parts"]]
        assert len(lesions) == len(own) == 2 + index
        for group, row in zip(lesions, own, strict=True):
            (part,) = row["parts"]
            assert group.tracking_identifier == f"lesion {row['lesion']}"
            found = _measured(group)
            assert found[codes.SCT.Volume.value][:2] == (
                pytest.approx(1000 * part["volume_ml"], abs=1e-3),
                "mm3",
            )
            for name, key in (("LongAxis", "longest"), ("PerpendicularAxis", "perpendicular")):
                value, unit, (place,) = found[getattr(codes.SCT, name).value]
                assert unit == "mm" and value == pytest.approx(part[f"{key}_mm"], abs=1e-3)
                ends = _in_space(place, folders[index])
                np.testing.assert_allclose(ends, np.array(part[f"{key}_ras_mm"]) * (-1, -1, 1), atol=1e-3)
                assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(value, abs=2e-3)
        total = _measured(response)[codes.DCM.MeasurementOfResponse.value][:2]
        assert total == (pytest.approx(patient["responses"][index]["sum_mm"], abs=1e-3), "mm")
        said = [item.value.value for item in response.get_qualitative_evaluations()]
        # Axial: 34.2 to 22.6 mm is -34 %, a partial response of the targets; across coronal slices it is less. But a
        # new lesion makes it progression.
        responses = {"axial": "PartialResponse", "coronal": "StableDisease"}
        target = getattr(codes.DCM, f"TargetLesion{responses.get(orientation, 'PartialResponse')}")
        assert said == ([target.value, "PD"] if index else [])
        category = [group.finding_category.value for group in lesions]
        target = codes.DCM.TargetLesionAtBaseline.value
        assert category == [target, target, "NEW"][: len(lesions)]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed (Debian: dicom3tools)")
@pytest.mark.parametrize("orientation", ["axial", "coronal"])
def test_dciodvfy_finds_no_error(reported, orientation):
    for file in reported(orientation)[0]:
        said = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        assert not errors


def test_what_an_anonymiser_removed_is_empty_in_the_report(tmp_path):
    scan = _series(tmp_path / "ct", "axial", "20240110")
    for path in (tmp_path / "ct").iterdir():
        data = pydicom.dcmread(path)
        for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyID", "AccessionNumber"):
            if name in data:
                delattr(data, name)
        data.save_as(path)
    points = _mask(tmp_path / "case.nii.gz", scan, LARGE)
    assert (
        main(["recist", f"--time_points={points}", f"--scans={tmp_path / 'ct'}", f"-o={tmp_path / 'out'}"])
        == 0
    )
    (file,) = (tmp_path / "out").glob("*.dcm")
    assert hd.sr.srread(file).PatientID in ("", None)


def test_series_of_different_patients_or_out_of_order_are_refused(tmp_path, capsys):
    points = []
    for index, date in enumerate(("20240410", "20240110")):
        scan = _series(tmp_path / f"ct{index}", "axial", date)
        points.append(str(_mask(tmp_path / "masks" / f"t{index}.nii.gz", scan, LARGE)))
    scans = [str(tmp_path / "ct0"), str(tmp_path / "ct1")]

    def call(points, scans):
        status = main(
            [
                "recist",
                f"--time_points={','.join(points)}",
                f"--scans={','.join(scans)}",
                f"-o={tmp_path / 'out'}",
            ]
        )
        return status, capsys.readouterr().err

    status, error = call(points, scans)
    assert status == 1 and "out of order: t1 (2024-01-10) comes after t0 (2024-04-10)" in error
    assert not (tmp_path / "out").exists()
    assert call(points[::-1], scans[::-1]) == (0, "")  # "expected the order of time, the baseline first"
    for path in (tmp_path / "ct0").iterdir():
        edit(path, PatientID="P2")
    status, error = call(points[::-1], scans[::-1])
    assert status == 1 and "are of different patients" in error and "of P2" in error
    for path in (tmp_path / "ct0").iterdir():
        edit(path, PatientID="P1")
    assert call(points[::-1], scans[::-1]) == (0, "")  # "expected those of one"


def _in_space(place, folder):
    """(2, 3) LPS in mm of the ends, by the headers of the slice that an SCOORD refers to."""
    if isinstance(place, hd.sr.CoordinatesForMeasurement3D):
        return np.asarray(place.value)
    item = place.ContentSequence[0].ReferencedSOPSequence[0]
    for path in folder.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.SOPInstanceUID == item.ReferencedSOPInstanceUID:
            transform = hd.spatial.ImageToReferenceTransformer.for_image(header)
            return transform(np.asarray(place.value, float))
    raise AssertionError("the report refers to a slice that is not in the series")
