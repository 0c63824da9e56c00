"""What the page shows of a case: by hand, and from the folders that predict writes."""

import json

import nibabel as nib
import numpy as np
import pytest

from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.viewer import study
from liverjax.viewer.study import Study
from liverjax.volume import Volume
from tests.scans.geometry import make_affine, orientations


def ball(shape=(16, 14, 12), centre=(8, 7, 6), radius=4):
    index = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return (index**2).sum(0) <= radius**2


@pytest.fixture
def case():
    mask = ball().astype(np.uint8)
    mask[7:9, 6:8, 6] = 2
    affine = make_affine(np.eye(3), (10, 10, 10))
    scan = Volume(np.where(mask, 100, -900).astype(np.int16), affine)
    return Study("case", scan, {"mine": scan.with_voxels(mask)}), mask


def test_the_outline_is_what_touches_the_outside():
    mask = np.zeros((7, 7, 7), np.uint8)
    mask[1:6, 1:6, 1:6] = 1
    mask[3, 3, 3] = 2
    shown = study.outlined(mask)
    # A cube of 5: a shell of 125 - 27 voxels; the tumour of one voxel is all outline; the rest of the 27 is inside.
    assert [int((shown == value).sum()) for value in range(5)] == [7**3 - 125, 26, 0, 98, 1]
    whole = study.outlined(np.ones((3, 3, 3), np.uint8))
    assert (whole == 3).sum() == 26 and whole[1, 1, 1] == 1  # The scan's edge is an edge.
    assert not study.outlined(np.zeros((2, 3, 4), np.uint8)).any()


def test_all_is_shown_in_canonical_axes_and_lands_where_it_was(case):
    _, mask = case
    for turn in orientations():
        scan = Volume(mask, make_affine(turn, (1, 2, 3)))
        shown = study.shown_volume(scan, "scan")
        assert nib.aff2axcodes(shown.affine) == ("R", "A", "S")
        here = nib.affines.apply_affine(scan.affine, np.argwhere(mask == 2))
        there = nib.affines.apply_affine(shown.affine, np.argwhere(shown.voxels == 2))
        assert np.allclose(np.sort(here, axis=0), np.sort(there, axis=0))
        header, voxels = study.file_bytes(shown)
        read = nib.Nifti1Image.from_bytes(header + voxels.tobytes())
        assert np.array_equal(np.asarray(read.dataobj), shown.voxels) and np.allclose(
            read.affine, shown.affine
        )


@pytest.mark.parametrize(
    ("dtype", "kind", "expected"),
    [(np.int16, "scan", np.int16), (np.uint8, "scan", np.int16), (np.float32, "scan", np.float32),
     (np.int32, "scan", np.int16), (np.uint8, "mask", np.uint8), (np.float32, "doubt", np.uint8)],
)  # fmt: skip
def test_volumes_are_sent_small(dtype, kind, expected):
    volume = Volume(np.ones((2, 3, 4), dtype), np.eye(4))
    shown = study.shown_volume(volume, kind)
    assert shown.voxels.dtype == expected
    assert shown.voxels[1, 1, 1] == (255 if kind == "doubt" else 3 if kind == "mask" else 1)
    large = Volume(np.full((2, 3, 4), 2**20, np.int32), np.eye(4))
    assert study.shown_volume(large, "scan").voxels.dtype == np.float32


def test_a_case_is_described(case):
    shown, mask = case
    facts = json.loads(json.dumps(shown.describe(shown.read_scan()), allow_nan=False))
    assert facts["shape"] == [16, 14, 12] and facts["layers"] == [{"name": "mine", "kind": "mask"}]
    # A voxel of 10 mm is 1 ml; the tumour has four.
    assert facts["volumes"]["mine"] == pytest.approx({"liver": float(ball().sum()), "tumor": 4})
    (lesion,) = facts["lesions"]
    assert lesion["ml"] == pytest.approx(4) and mask[tuple(lesion["voxel"])] == 2
    assert facts["window"] == [-110, 190]  # It has air.
    # A slice with one pixel, 1 cm2, is none to look at.
    assert [row["voxel"][2] for row in facts["slices"]] == list(range(3, 10))
    assert facts["measure"] == "area of the mask"
    assert all(mask[tuple(row["voxel"])] for row in facts["slices"])


def test_slices_are_ranked_by_the_dice_with_the_reference(case):
    shown, mask = case
    reference = mask.copy()
    reference[:8, :, 5] = 0  # Half of slice 5 is missing.
    other = Study("case", shown.scan, shown.masks, lambda: shown.scan.with_voxels(reference))
    facts = other.describe(shown.scan)
    first, second, *_ = facts["slices"]
    a, b = (mask[:, :, 5] > 0).sum(), (reference[:, :, 5] > 0).sum()
    assert first["voxel"][2] == 5 and first["quality"] == pytest.approx(2 * b / (a + b))
    assert second["quality"] == 1 and facts["measure"] == "Dice with reference"
    assert other.layers() == ["mine", "reference"]


@pytest.mark.parametrize("down", [False, True])
def test_a_table_of_quality_counts_the_scans_own_slices(case, tmp_path, down):
    shown, mask = case
    directions = np.diag([1.0, 1, -1 if down else 1])
    scan = Volume(shown.scan.voxels, make_affine(directions, (10, 10, 10)))
    quality = np.linspace(0.5, 0.9, 12)
    rows = [f"{index},{quality[index]:.4f}" for index in np.argsort(quality)]
    (tmp_path / "q.csv").write_text("\n".join(["slice,expected_dice", *rows]))
    for stated in (tmp_path / "q.csv", quality):
        facts = Study("c", scan, {"m": scan.with_voxels(mask)}, quality=stated).describe(scan)
        worst = facts["slices"][0]["voxel"][2]
        assert worst == (11 - 3 if down else 3)  # The first slice of more than a pixel, counted from below.
    (tmp_path / "q.csv").write_text("slice,expected_dice\n0,0.5\n")
    with pytest.raises(InputError, match="expected the quality of 12 slices"):
        Study("c", scan, {"m": scan.with_voxels(mask)}, quality=tmp_path / "q.csv").describe(scan)


@pytest.fixture
def folder(tmp_path, case):
    shown, mask = case
    made = tmp_path / "predictions"
    (made / "uncertainty").mkdir(parents=True)
    nifti.write(tmp_path / "scan.nii", shown.scan)
    records = []
    for name, dice in (("good", 0.95), ("poor", 0.7), ("gone", 0.8)):
        nifti.write(made / f"{name}.nii.gz", shown.scan.with_voxels(mask))
        path, scan = str(made / f"{name}.nii.gz"), str(tmp_path / "scan.nii")
        records.append({"id": name, "scan": scan, "mask": path, "expected_dice": dice})
    nifti.write(made / "uncertainty" / "good_entropy.nii.gz", shown.scan.with_voxels(mask.astype(np.float32)))
    (made / "manifest.json").write_text(json.dumps({"cases": records, "earlier": []}))
    (made / "gone.nii.gz").unlink()
    return made


def test_a_folder_of_predictions_has_its_worst_case_first(folder):
    found = study.read_folder(folder, {"poor": lambda: None})
    assert [one.name for one in found] == ["poor", "good"]
    assert found[0].layers() == ["prediction", "reference"] and found[1].layers() == ["prediction", "doubt"]


def test_what_leads_out_of_a_folder_is_not_shown(folder, tmp_path, case):
    shown, mask = case
    nifti.write(tmp_path / "secret.nii.gz", shown.scan.with_voxels(mask))
    (folder / "gone.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    (folder / "uncertainty" / "poor_entropy.nii.gz").symlink_to(tmp_path / "scan.nii")
    found = {one.name: one for one in study.read_folder(folder)}
    assert set(found) == {"good", "poor"} and found["poor"].doubt is None
    facts = json.loads((folder / "manifest.json").read_text())
    facts["cases"] = [facts["cases"][0] | {"id": "up", "mask": "../../secret.nii.gz"}]
    (folder / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"holds no NIfTI mask of its manifest.*run `liverjax predict`"):
        study.read_folder(folder)


def test_a_folder_without_a_manifest_is_named_with_the_way_round_it(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="name the files instead: liverjax view SCAN MASK"):
        study.read_folder(folder)
    scan = folder.parent / "scan.nii"
    named = study.named_files(scan, [folder / "good.nii.gz", folder / "poor.nii.gz"])
    assert named.layers() == ["good.nii.gz", "poor.nii.gz"]
    assert named.describe(named.read_scan())["lesions"]
    (folder / "manifest.json").write_text('{"cases": [{"id": 3}]}')
    with pytest.raises(InputError, match="no manifest of predictions"):
        study.read_folder(folder)


def test_a_mask_of_another_scan_is_refused(case):
    shown, mask = case
    moved = Volume(mask, shown.scan.affine + np.array([[0, 0, 0, 9], [0] * 4, [0] * 4, [0] * 4]))
    with pytest.raises(InputError, match="lie up to 9 mm apart"):
        Study("c", shown.scan, {"m": moved}).describe(shown.scan)


def test_a_widget_of_a_notebook_holds_the_same_volumes(case):
    pytest.importorskip("ipyniivue", reason="liverjax[viewer] is not installed")
    from liverjax.viewer.notebook import widget

    shown, mask = case
    made = widget(shown)
    scan, layer = made.volumes
    assert np.array_equal(np.asarray(nib.Nifti1Image.from_bytes(scan.data).dataobj), shown.scan.voxels)
    assert np.array_equal(np.asarray(nib.Nifti1Image.from_bytes(layer.data).dataobj), study.outlined(mask))
    assert len(layer.colormap_label.lut) == 4 * 5
