"""The table of volumes beside predicted masks: what it holds after one run, after further ones, and after kills."""

import csv
import logging
import os

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.inference.volumes import COLUMNS, USE, write_volumes
from liverjax.scans import nifti
from liverjax.volume import Volume


def _rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def _write_mask(path, liver, tumor, mtime=None):
    """Writes a mask of ``liver`` + ``tumor`` voxels of 0.5 ml (10 x 10 x 5 mm)."""
    voxels = np.zeros(1000, np.uint8)
    voxels[: liver + tumor], voxels[:tumor] = 1, 2
    nifti.write(path, Volume(voxels.reshape(10, 10, 10), np.diag([10.0, 10, 5, 1])))
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime))


def _done(folder, id, liver, tumor):
    """Writes a mask, and returns the record of the prediction that did."""
    _write_mask(folder / f"{id}.nii.gz", liver, tumor)
    ml = {"liver": (liver + tumor) / 2, "tumor": tumor / 2}
    return {"id": id, "status": "done", "mask": str(folder / f"{id}.nii.gz"), "millilitres": ml}


def _skipped(folder, id, status="skipped"):
    return {"id": id, "status": status, "mask": str(folder / f"{id}.nii.gz"), "millilitres": {}}


def test_a_row_for_each_mask_in_natural_order(tmp_path):
    records = [
        _done(tmp_path, "case10", 90, 10),
        _done(tmp_path, "case9", 40, 0),
        _done(tmp_path, "=1", 7, 2),
    ]
    write_volumes(tmp_path / "volumes.csv", records, tumors=True)
    rows = _rows(tmp_path / "volumes.csv")
    assert list(rows) == ["'=1", "case9", "case10"] and rows["'=1"]["mask"] == "'=1.nii.gz"
    write_volumes(tmp_path / "volumes.csv", [_skipped(tmp_path, "=1")], tumors=True)
    assert _rows(tmp_path / "volumes.csv") == rows
    assert rows["case10"] == {
        "case": "case10",
        "mask": "case10.nii.gz",
        "liver_ml": "50.000",
        "tumor_ml": "5.000",
        "liver_without_tumor_ml": "45.000",
        "tumor_load_percent": "10.000",
        "use": USE,
    }
    assert rows["case9"]["tumor_load_percent"] == "0.000"


def test_networks_without_tumours_leave_their_columns_empty(tmp_path):
    record = _done(tmp_path, "a", 90, 0) | {"millilitres": {"liver": 45.0}}
    write_volumes(tmp_path / "volumes.csv", [record], tumors=False)
    row = _rows(tmp_path / "volumes.csv")["a"]
    assert row["liver_ml"] == "45.000" and row["tumor_ml"] == row["tumor_load_percent"] == ""
    # Without a liver there is no share of it.
    write_volumes(tmp_path / "volumes.csv", [_done(tmp_path, "b", 0, 0)], tumors=True)
    assert _rows(tmp_path / "volumes.csv")["b"]["tumor_load_percent"] == ""


def test_later_runs_add_and_replace_rows(tmp_path):
    path = tmp_path / "volumes.csv"
    write_volumes(path, [_done(tmp_path, "a", 90, 10), _done(tmp_path, "b", 20, 0)], tumors=True)
    # Another shard; a case that fails while its mask of before is there; one that is skipped.
    write_volumes(path, [_done(tmp_path, "c", 60, 0), _skipped(tmp_path, "b", "failed")], tumors=True)
    write_volumes(path, [_done(tmp_path, "a", 30, 10), _skipped(tmp_path, "c")], tumors=True)
    assert {id: row["liver_ml"] for id, row in _rows(path).items()} == {
        "a": "20.000",
        "b": "10.000",
        "c": "30.000",
    }
    (tmp_path / "b.nii.gz").unlink()
    write_volumes(path, [_skipped(tmp_path, "a")], tumors=True)
    assert list(_rows(path)) == ["a", "c"]


def test_masks_that_changed_since_are_measured(tmp_path, caplog):
    path = tmp_path / "volumes.csv"
    write_volumes(path, [_done(tmp_path, "a", 90, 10), _done(tmp_path, "b", 20, 0)], tumors=True)
    # A killed run wrote a anew, and d for the first time; both are skipped by the next run. b was replaced by hand.
    later = path.stat().st_mtime_ns + 10**9
    _write_mask(tmp_path / "a.nii.gz", 60, 40, later)
    _write_mask(tmp_path / "b.nii.gz", 4, 0, later)
    _write_mask(tmp_path / "d.nii.gz", 10, 0)
    write_volumes(path, [_skipped(tmp_path, "a"), _skipped(tmp_path, "d")], tumors=True)
    rows = _rows(path)
    assert [rows[id]["liver_ml"] for id in "abd"] == ["50.000", "2.000", "5.000"]
    assert rows["a"]["tumor_ml"] == "20.000"
    # One that cannot be read any more loses its row.
    (tmp_path / "b.nii.gz").write_bytes(b"")
    os.utime(tmp_path / "b.nii.gz", ns=(later + 10**10,) * 2)
    write_volumes(path, [_skipped(tmp_path, "a")], tumors=True)
    assert list(_rows(path)) == ["a", "d"] and "b.nii.gz: the file is empty" in caplog.text


@pytest.mark.parametrize(
    "content", ["my,own,table\n1,2,3\n", ",".join(COLUMNS) + "\na,a.nii.gz,1,2,3,4,5,6\n", "\xff"]
)
def test_a_table_of_somebody_else_is_left_alone(content, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "volumes.csv"
    path.write_text(content, encoding="latin-1")
    record = _done(tmp_path, "a", 90, 10)
    write_volumes(path, [record], tumors=True)
    assert path.read_text(encoding="latin-1") == content and "move it away" in caplog.text
    path.rename(tmp_path / "mine.csv")  # As the message says.
    write_volumes(path, [record], tumors=True)
    assert _rows(path)["a"]["liver_ml"] == "50.000"


def test_predict_writes_the_volumes_of_its_masks(tiny_run, phantom_scans, tmp_path):
    scan = phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"
    words = ["predict", f"--model={tiny_run}", "--quiet", "-i"]
    assert main([*words, str(scan), "-o", str(tmp_path / "one.nii.gz")]) == 0
    (row,) = _rows(tmp_path / "one_volumes.csv").values()
    assert main([*words, str(scan), "-o", str(tmp_path / "masks")]) == 0
    assert main([*words, str(scan), "-o", str(tmp_path / "masks"), "--skip_existing"]) == 0
    (same,) = _rows(tmp_path / "masks" / "volumes.csv").values()
    assert row["mask"] == "one.nii.gz" and same["mask"] == f"{same['case']}.nii.gz"
    ids = np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj)
    for values in (row, same):  # Voxels of 8 mm.
        assert float(values["liver_ml"]) == pytest.approx(np.count_nonzero(ids) * 0.512, abs=1e-3)
        assert float(values["tumor_ml"]) == pytest.approx(np.count_nonzero(ids == 2) * 0.512, abs=1e-3)
