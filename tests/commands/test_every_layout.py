"""Every command that takes a data set, on every layout: what is found, segmented, stored, scored."""

import csv
import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from liverjax.commands.dispatch import main
from liverjax.datasets.layouts import find_cases
from liverjax.scans import nifti
from liverjax.volume import Volume

CONFIG = ("--config=demo", "--config.preprocess.spacing=8,8,8")


@pytest.fixture(scope="module")
def pairs(phantom_scans):
    """Two scans in HU with their masks."""
    return [case.read_pair() for case in find_cases(phantom_scans, labelled=True)[:2]]


def _save(path: pathlib.Path, voxels, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


def _nifti(scan: str, mask: str | None):
    """Returns a writer of one pair as files of these names."""

    def write(root, number, image, labels):
        _save(root / scan.format(number), image.voxels, image.affine)
        if mask:
            _save(root / mask.format(number), labels.voxels, labels.affine)

    return write


def _msd(root, number, image, labels):
    _nifti("imagesTr/liver_{:04d}.nii.gz", "labelsTr/liver_{:04d}.nii.gz")(root, number, image, labels)
    names = [
        {"image": f"./imagesTr/liver_{k:04d}.nii.gz", "label": f"./labelsTr/liver_{k:04d}.nii.gz"}
        for k in range(number + 1)
    ]
    facts = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    (root / "dataset.json").write_text(json.dumps({**facts, "training": names}))


def _dynamic(root, number, image, labels):
    phases = np.stack([image.voxels, np.zeros_like(image.voxels) + np.arange(36, dtype=np.int16)], axis=-1)
    _save(root / f"images/p{number}.nii.gz", phases, image.affine)
    _save(root / f"labels/p{number}.nii.gz", labels.voxels, labels.affine)


def _series(folder: pathlib.Path, image: Volume, uid: str):
    """Writes a CT series, one file a slice."""
    folder.mkdir(parents=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
    rows, columns = image.spacing[1], image.spacing[0]
    for k in range(image.shape[2]):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = f"{uid}.{k + 1}"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.Modality = f"{uid}.8", f"{uid}.9", "CT"
        slice_.SeriesNumber, slice_.InstanceNumber = 3, k + 1
        slice_.Rows, slice_.Columns = image.shape[1], image.shape[0]
        slice_.PixelSpacing, slice_.SliceThickness = [rows, columns], image.spacing[2]
        slice_.ImageOrientationPatient = [*(lps[:3, 0] / columns), *(lps[:3, 1] / rows)]
        slice_.ImagePositionPatient = list((lps @ [0, 0, k, 1])[:3])
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation = 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelData = np.ascontiguousarray(image.voxels[:, :, k].T.astype("<i2")).tobytes()
        slice_.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


def _chaos(root, number, image, labels):
    folder = root / f"CT/{number + 1}"
    _series(folder / "DICOM_anon", image, f"1.2.{number + 1}")
    (folder / "Ground").mkdir()
    for k in range(image.shape[2]):
        # The masks of CHAOS run from head to feet.
        pixels = 255 * (labels.voxels[:, :, image.shape[2] - 1 - k].T > 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "Ground" / f"liver_GT_{k:03d}.png")


#: Layout -> how a pair is written, the ids, flags, and whether there are masks.
LAYOUTS = {
    "nnunet": (
        _nifti("imagesTr/liver_{:04d}_0000.nii.gz", "labelsTr/liver_{:04d}.nii.gz"),
        "liver_{:04d}",
        [],
        True,
    ),
    "msd": (_msd, "liver_{:04d}", [], True),
    "lits": (_nifti("volume-{}.nii", "segmentation-{}.nii"), "volume-{}", [], True),
    "chaos": (_chaos, "CT_{:.0f}", [], True),
    "plain": (_nifti("images/p{}.nii.gz", "labels/p{}.nii.gz"), "p{}", [], True),
    "4D": (_dynamic, "p{}", ["--phase=0"], True),
    "flat": (_nifti("p{}.nii.gz", None), "p{}", [], False),
    "dicom": (lambda root, n, image, _: _series(root / f"p{n}", image, f"1.3.{n + 1}"), "p{}", [], False),
    "nested dicom": (
        lambda root, n, image, _: _series(root / f"PAT{n}" / "ST0" / "SE3", image, f"1.4.{n + 1}"),
        "PAT{}_ST0_SE3",
        [],
        False,
    ),
}


@pytest.fixture(params=LAYOUTS)
def data_set(request, pairs, tmp_path):
    """Two cases in a layout: folder, ids, flags that reading takes, whether there are masks."""
    write, name, flags, labelled = LAYOUTS[request.param]
    root = tmp_path / "set"
    root.mkdir()
    for number, pair in enumerate(pairs):
        write(root, number, *pair)
    ids = [name.format(number + (request.param == "chaos")) for number in range(2)]
    return root, ids, flags, labelled


@pytest.fixture
def run(tiny_run, data_set, tmp_path):
    """A run whose validation and test cases are those of the data set."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    facts["data"] |= {"validation": data_set[1], "test": data_set[1]}
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_check(data_set, capsys):
    root, ids, flags, _ = data_set
    assert main(["check", "-i", str(root), "--modality=ct", "--quiet", *flags]) == 0
    out = capsys.readouterr().out
    assert f"{len(ids)} cases (ct), 0 errors" in out


def test_prepare(data_set, tmp_path, capsys):
    root, ids, flags, labelled = data_set
    status = main(["prepare", "-i", str(root), "-o", str(tmp_path / "store"), *CONFIG, *flags, "--quiet"])
    assert status == (0 if labelled else 1)
    if labelled:
        assert json.loads((tmp_path / "store" / "index.json").read_text())["cases"] == ids
    else:
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "no masks" in err
        assert not (tmp_path / "store" / "index.json").exists()


def test_predict_and_evaluate(run, data_set, pairs, tmp_path, capsys):
    root, ids, flags, labelled = data_set
    out = tmp_path / "masks"
    assert main(["predict", f"--model={run}", "-i", str(root), "-o", str(out), *flags, "--quiet"]) == 0
    assert sorted(path.name for path in out.glob("*.nii.gz")) == sorted(f"{id}.nii.gz" for id in ids)
    for id, (scan, _) in zip(ids, pairs, strict=True):
        # Whatever the layout, the mask lies on the scan: at the same places of the patient.
        mask = nifti.read(out / f"{id}.nii.gz")
        assert sorted(mask.shape) == sorted(scan.shape)
        corners = np.array([[0, 0, 0, 1], [*(np.array(mask.shape) - 1), 1]])
        there = np.array([[0, 0, 0, 1], [*(np.array(scan.shape) - 1), 1]])
        np.testing.assert_allclose(
            np.sort((corners @ mask.affine.T)[:, :3], axis=0),
            np.sort((there @ scan.affine.T)[:, :3], axis=0),
            atol=1e-3,
        )
    words = [f"--predictions={out}", f"--references={root}", "-o", str(tmp_path / "scores"), "--quiet"]
    assert main(["evaluate", *words]) == (0 if labelled else 1)
    if labelled:
        with open(tmp_path / "scores" / "cases.csv", encoding="utf-8") as file:
            assert {row["case"] for row in csv.DictReader(file)} == set(ids)


@pytest.mark.parametrize("command", ["calibrate", "quality"])
def test_calibrate_and_quality(run, data_set, capsys, command):
    root, ids, flags, labelled = data_set
    model = f"--workdir={run}" if command == "calibrate" else f"--models={run}"
    assert main([command, model, "-i", str(root), *flags, "--quiet"]) == (0 if labelled else 1)
    captured = capsys.readouterr()
    if not labelled:
        assert captured.err.count("\n") == 1 and "with a mask" in captured.err
    elif command == "calibrate":
        assert json.loads((run / "calibration.json").read_text())["cases"] == ids
