"""The check of a data set: it finds every planted fault, and nothing in sound data."""

import dataclasses
import json
import zlib

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.datasets.check import KINDS, check_data_set
from liverjax.scans import Reading

SHAPE = (40, 32, 24)
AFFINE = np.array([[-5.0, 0, 0, 100], [0, 5, 0, -80], [0, 0, 6, -70], [0, 0, 0, 1]])  # LAS, as most CTs


def make_case(seed, modality="ct"):
    """A body with a liver of some 700 ml on its right, that is at low x, as x runs to the left."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    body = ((x - 19.5) / 18) ** 2 + ((y - 15.5) / 14) ** 2 < 1
    liver = ((x - 12) / 8) ** 2 + ((y - 15) / 9) ** 2 + ((z - 12) / 8) ** 2 < 1
    tumor = ((x - 12) ** 2 + (y - 15) ** 2 + (z - 12) ** 2) < 9
    scan = np.where(body, 0, -1000) + 100 * liver - 50 * tumor + rng.normal(0, 15, SHAPE)
    if modality == "mr":  # brighter in front, as of a surface coil
        scan = np.maximum(body * (150 + 10 * y + 40 * liver - 20 * tumor) + rng.normal(0, 15, SHAPE), 0)
    return scan.astype(np.int16), liver.astype(np.uint8) + tumor


def save(path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def put(root, name, scan=None, mask=None, affine=AFFINE, mask_affine=None):
    """Writes a sound case, or one that is unsound in what is given."""
    sound_scan, sound_mask = make_case(zlib.crc32(name.encode()))
    save(root / f"images/{name}.nii.gz", sound_scan if scan is None else scan, affine)
    save(
        root / f"labels/{name}.nii.gz",
        sound_mask if mask is None else mask,
        affine if mask_affine is None else mask_affine,
    )


def found(report):
    return {(finding.kind, finding.cases) for finding in report.findings}


@pytest.fixture
def sound(tmp_path):
    for number in range(8):
        put(tmp_path, f"sound{number}")
    return tmp_path


def test_sound_data_has_no_findings(sound):
    report = check_data_set(sound)
    assert report.findings == ()
    assert (report.cases, report.modality, report.errors) == (8, "ct", 0)


def test_every_planted_fault_is_found_and_nothing_else(sound):
    scan, mask = make_case(1000)
    # Files.
    put(sound, "truncated")
    data = (sound / "images/truncated.nii.gz").read_bytes()
    (sound / "images/truncated.nii.gz").write_bytes(data[: len(data) // 2])
    put(sound, "flipped_mask")
    data = bytearray((sound / "labels/flipped_mask.nii.gz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (sound / "labels/flipped_mask.nii.gz").write_bytes(data)
    put(sound, "no_mask")
    (sound / "labels/no_mask.nii.gz").unlink()
    put(sound, "no_scan")
    (sound / "images/no_scan.nii.gz").unlink()
    put(sound, "twice")
    save(sound / "images/twice.nii", make_case(1001)[0])
    put(sound, "broken_link")
    (sound / "images/broken_link.nii.gz").unlink()
    (sound / "images/broken_link.nii.gz").symlink_to(sound / "images/broken_link.nii.gz")
    # Voxels.
    holes = scan.astype(np.float32)
    holes[3, 3, 3] = np.nan
    put(sound, "nan", scan=holes)
    put(sound, "constant", scan=np.full(SHAPE, -1000, np.int16))
    put(sound, "unit_scaled", scan=((scan + 1100) / 1500).astype(np.float32))
    put(sound, "eight_bits", scan=np.clip((scan + 160) * 255 / 400, 0, 255).astype(np.uint8))
    put(sound, "clipped", scan=np.clip(scan, -160, 240))
    put(sound, "copy", scan=make_case(1002)[0])
    put(sound, "original", scan=make_case(1002)[0].astype(np.float32))
    # Masks.
    put(sound, "fourth_label", mask=mask * 2)
    put(sound, "fractions", mask=mask * np.float32(0.7))
    put(sound, "other_shape", mask=mask[:-1])
    shifted = AFFINE.copy()
    shifted[2, 3] += 0.6
    put(sound, "other_affine", mask_affine=shifted)
    put(sound, "empty", mask=mask * np.uint8(0))
    put(sound, "tiny", mask=(mask == 2).astype(np.uint8))
    put(sound, "mirrored", scan=scan[::-1], mask=mask[::-1])
    # Geometry.
    put(sound, "thick", affine=AFFINE @ np.diag([1, 1, 7, 1.0]))
    put(sound, "identity", affine=np.eye(4))

    report = check_data_set(sound)
    assert found(report) == {
        ("scan", ("truncated",)),
        ("mask", ("flipped_mask",)),
        ("missing_mask", ("no_mask",)),
        ("missing_scan", ("no_scan",)),
        ("duplicate_id", ("twice",)),
        ("scan", ("broken_link",)),
        ("scan", ("nan",)),
        ("constant", ("constant",)),
        ("intensities", ("unit_scaled",)),
        ("intensities", ("eight_bits",)),
        ("hu_clipped", ("clipped",)),
        ("duplicate_scan", ("copy", "original")),
        ("label_values", ("fourth_label",)),
        ("label_values", ("fractions",)),
        ("shape", ("other_shape",)),
        ("affine", ("other_affine",)),
        ("empty_mask", ("empty",)),
        ("tiny_mask", ("tiny",)),
        ("mirrored", ("mirrored",)),
        ("spacing", ("thick",)),
        ("no_geometry", ("identity",)),
        ("spacing", ("identity",)),  # its 1 mm are a fifth and less of what is usual here
        ("tiny_mask", ("identity",)),
    }
    for finding in report.findings:
        assert (finding.severity, finding.remedy) == KINDS[finding.kind]
        assert any(name in finding.message for name in finding.files)
        assert "\n" not in finding.message
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities)  # errors first
    assert report.errors == severities.count("error") == 13
    assert json.loads(json.dumps(dataclasses.asdict(report)))["cases"] == report.cases

    values = {finding.cases[0]: finding.message for finding in report.findings}
    assert "shape (40, 32, 24)" in values["other_shape"]
    assert "(39, 32, 24)" in values["other_shape"]
    assert "0.6 mm apart" in values["other_affine"]
    assert "label values 4 in" in values["fourth_label"]
    assert "label values 0.7, 1.4 in" in values["fractions"]
    assert "voxels of 5 x 5 x 42 mm, the data set's median is 5 x 5 x 6 mm" in values["thick"]
    assert "38 mm to the patient's left" in values["mirrored"]


def test_mr_scans_are_not_measured_in_hounsfield_units(tmp_path):
    for number in range(3):
        put(tmp_path, f"mr{number}", scan=make_case(number, "mr")[0])
    report = check_data_set(tmp_path)
    assert report.modality == "mr"
    assert report.findings == ()
    assert {kind for kind, _ in found(check_data_set(tmp_path, modality="ct"))} == {"intensities"}


def test_orientation_does_not_matter(tmp_path):
    for number, axes in enumerate([("R", "A", "S"), ("L", "P", "S"), ("S", "A", "L"), ("P", "R", "I")]):
        scan, mask = (nib.Nifti1Image(voxels, AFFINE) for voxels in make_case(number))
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes)
        )
        for folder, image in (("images", scan), ("labels", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(image.as_reoriented(turn), tmp_path / folder / f"case{number}.nii.gz")
    assert check_data_set(tmp_path).findings == ()


def test_scans_without_masks_are_for_prediction(tmp_path):
    save(tmp_path / "a.nii.gz", make_case(0)[0])
    save(tmp_path / "b.nii.gz", make_case(1)[0])
    assert check_data_set(tmp_path).findings == ()


def test_series_of_phases(tmp_path):
    save(tmp_path / "a.nii.gz", np.stack([make_case(0)[0]] * 3, -1))
    assert found(check_data_set(tmp_path)) == {("scan", ("a",))}
    assert check_data_set(tmp_path, reading=Reading(phase="last")).findings == ()


def test_the_known_overlap_of_lits_and_3d_ircadb(tmp_path):
    for number in (27, 28, 47, 48):
        scan, mask = make_case(number)
        save(tmp_path / f"volume-{number}.nii", scan)
        save(tmp_path / f"segmentation-{number}.nii", mask)
    assert found(check_data_set(tmp_path)) == {("ircadb", ("volume-28", "volume-47"))}


def test_a_mask_with_a_wrong_affine_can_be_said_to_fit(tmp_path):
    put(tmp_path, "a")
    label = nib.load(tmp_path / "labels/a.nii.gz")
    nib.save(
        nib.Nifti1Image(np.asarray(label.dataobj), np.diag([-1, -1, 1, 1]) @ AFFINE), label.get_filename()
    )
    report = check_data_set(tmp_path)
    assert found(report) == {("affine", ("a",))}
    assert "voxel_on_voxel in cases.json" in report.findings[0].remedy
    (tmp_path / "cases.json").write_text('{"voxel_on_voxel": ["b"]}')
    assert found(check_data_set(tmp_path)) == {("affine", ("a",)), ("cases_json", ())}
    (tmp_path / "cases.json").write_text('{"voxel_on_voxel": ["a"]}')
    assert check_data_set(tmp_path).findings == ()


def test_a_folder_that_is_no_data_set(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        report = check_data_set(path)
        assert found(report) == {("layout", ())}
        assert report.errors == 1


def test_the_command(sound, capsys):
    assert main(["check", "-i", str(sound), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    save(sound / "labels/sound3.nii.gz", np.full(SHAPE, 7, np.uint8))
    assert main(["check", "-i", str(sound), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "error (label_values): " in printed.out
    assert "sound3.nii.gz: label values 7 in 30720 voxels, expected [0, 1, 2]" in printed.out
    assert printed.out.endswith("8 cases (ct), 1 errors and 0 warnings\n")
    assert printed.err == ""


def test_real_data(real_data):
    if not (real_data / "chaos_mr").is_dir():
        pytest.skip("chaos_mr is not among the real scans")
    report = check_data_set(real_data / "chaos_mr")
    assert report.modality == "mr"
    assert report.findings == ()
