"""What a user may do wrong, command by command: one clear line, exit status 1, nothing half-written."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main

CASE = "phantom_002"


@pytest.fixture
def scans(phantom_scans, tmp_path):
    """A copy of the phantoms, to be damaged."""
    return shutil.copytree(phantom_scans, tmp_path / "scans")


def _missing(scan, mask):
    scan.unlink()


def _truncated(scan, mask):
    scan.write_bytes(scan.read_bytes()[: scan.stat().st_size // 2])


def _flipped(scan, mask):
    content = bytearray(scan.read_bytes())
    content[len(content) // 2] ^= 0x10
    scan.write_bytes(content)


def _empty(scan, mask):
    scan.write_bytes(b"")


def _not_finite(scan, mask):
    image = nib.load(scan)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), scan)


def _four_dimensional(scan, mask):
    image = nib.load(scan)
    voxels = np.stack([np.asarray(image.dataobj)] * 3, axis=-1)
    nib.save(nib.Nifti1Image(voxels, image.affine), scan)


def _other_shape(scan, mask):
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, 1:].astype(np.uint8), image.affine), mask)


def _other_affine(scan, mask):
    image = nib.load(mask)
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.uint8), affine), mask)


def _unknown_value(scan, mask):
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj).astype(np.uint8)
    voxels[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(voxels, image.affine), mask)


def _fraction(scan, mask):
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[0, 0, 0] = 0.7
    nib.save(nib.Nifti1Image(voxels, image.affine), mask)


def _one_line(capsys, *parts):
    printed = capsys.readouterr().err
    assert printed.startswith("liverjax: error: ") and printed.count("\n") == 1, printed
    for part in parts:
        assert part in printed


SCAN_FAULTS = [
    (_truncated, "imagesTr"),
    (_flipped, "imagesTr"),
    (_empty, "imagesTr"),
    (_not_finite, "imagesTr"),
    (_four_dimensional, "3 phases"),
]
MASK_FAULTS = [
    (_missing, CASE),
    (_other_shape, "shape"),
    (_other_affine, "mm"),
    (_unknown_value, "7"),
    (_fraction, "0.7"),
]


@pytest.mark.parametrize(
    ("fault", "named"), SCAN_FAULTS + MASK_FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_prepare(scans, tmp_path, capsys, fault, named):
    fault(scans / "imagesTr" / f"{CASE}_0000.nii.gz", scans / "labelsTr" / f"{CASE}.nii.gz")
    store = tmp_path / "store"
    assert main(["prepare", "-i", str(scans), "-o", str(store), "--config=demo", "--quiet"]) == 1
    _one_line(capsys, CASE, named)
    assert not (store / "index.json").exists() and not list(store.glob("**/.partial*"))


@pytest.mark.parametrize(("fault", "named"), SCAN_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_predict_one_scan(scans, tiny_run, tmp_path, capsys, fault, named):
    scan = scans / "imagesTr" / f"{CASE}_0000.nii.gz"
    fault(scan, None)
    output = tmp_path / "masks" / "mask.nii.gz"
    assert main(["predict", f"--model={tiny_run}", "-i", str(scan), "-o", str(output), "--quiet"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("liverjax: error: ") and CASE in errors and named in errors
    assert not list(tmp_path.glob("masks/*.nii*"))


def test_predict_goes_on_after_a_bad_scan(scans, tiny_run, tmp_path, capsys):
    _flipped(scans / "imagesTr" / f"{CASE}_0000.nii.gz", None)
    command = ["predict", f"--model={tiny_run}", "-i", str(scans), "-o", str(tmp_path / "masks"), "--quiet"]
    assert main(command) == 1
    assert "1 of 8 cases failed" in capsys.readouterr().err
    written = sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz"))
    assert written == [f"phantom_00{n}.nii.gz" for n in range(8) if n != 2]


@pytest.mark.parametrize(
    ("fault", "named"), MASK_FAULTS[1:], ids=lambda value: getattr(value, "__name__", "")
)
def test_evaluate(scans, tmp_path, capsys, fault, named):
    predictions = shutil.copytree(scans / "labelsTr", tmp_path / "predictions")
    fault(None, predictions / f"{CASE}.nii.gz")
    output = tmp_path / "scores"
    command = [
        "evaluate",
        f"--predictions={predictions}",
        f"--references={scans / 'labelsTr'}",
        "-o",
        str(output),
    ]
    assert main([*command, "--quiet"]) == 1
    _one_line(capsys, CASE, named)
    assert not (output / "summary.json").exists()


def test_missing_and_empty_folders(tiny_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    nowhere, empty = str(tmp_path / "nowhere"), str(tmp_path / "empty")
    for folder in (nowhere, empty):
        assert main(["prepare", "-i", folder, "-o", str(tmp_path / "store"), "--config=demo"]) == 1
        _one_line(capsys, folder)
        assert main(["predict", f"--model={tiny_run}", "-i", folder, "-o", str(tmp_path / "masks")]) == 1
        _one_line(capsys, folder)
        assert main(["predict", f"--model={folder}", "-i", folder, "-o", str(tmp_path / "masks")]) == 1
        _one_line(capsys, folder)
        assert main(["train", "--config=demo", f"--store={folder}", f"--workdir={tmp_path / 'run'}"]) == 1
        _one_line(capsys, folder, "liverjax prepare")
        command = [
            "evaluate",
            f"--predictions={folder}",
            f"--references={folder}",
            "-o",
            str(tmp_path / "scores"),
        ]
        assert main(command) == 1
        _one_line(capsys, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_scan_smaller_than_a_patch_works(tiny_run, tmp_path, capsys):
    voxels = np.random.default_rng(0).integers(-100, 200, (9, 7, 1)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([8.0, 8.0, 8.0, 1.0])), tmp_path / "small.nii.gz")
    output = tmp_path / "mask.nii.gz"
    command = [
        "predict",
        f"--model={tiny_run}",
        "-i",
        str(tmp_path / "small.nii.gz"),
        "-o",
        str(output),
        "--quiet",
    ]
    assert main(command) == 0, capsys.readouterr().err
    assert nib.load(output).shape == (9, 7, 1)
