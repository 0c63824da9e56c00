"""What correcting takes: boxes whose edits are known, times, slice quality, and bad input."""

import csv
import math

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.studies import study_corrections
from liverjax.studies.correction_order import Slices, curves, looked_at
from liverjax.studies.corrections import added_path
from liverjax.volume import Volume

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def write(path, *boxes, affine=AFFINE):
    voxels = np.zeros((20, 18, 10), np.uint8)
    for box in boxes:
        voxels[tuple(slice(*side) for side in box)] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume(voxels, affine))


@pytest.fixture
def folders(tmp_path):
    """A box of 10 x 8 x 6 voxels, of which slice 3 gains a 2 x 8 slab and slice 5 loses two columns of 8."""
    whole = (3, 13), (4, 12), (2, 8)
    for case in "ab":
        write(tmp_path / "auto" / f"{case}.nii.gz", whole)
    write(
        tmp_path / "after" / "a.nii.gz",
        ((3, 13), (4, 12), (2, 5)),
        ((13, 15), (4, 12), (3, 4)),
        ((5, 13), (4, 12), (5, 6)),
        ((3, 13), (4, 12), (6, 8)),
    )
    write(tmp_path / "after" / "b.nii.gz", whole)
    return tmp_path / "auto", tmp_path / "after"


def test_figures_by_hand(folders):
    found = study_corrections(folders[0], [folders[1]], quiet=True)
    a, b = found.cases
    # Voxels of 0.02 ml: 16 added, 16 removed, 480 before and after.
    assert (a["added_ml"], a["removed_ml"]) == pytest.approx((0.32, 0.32))
    assert a["edited_percent"] == pytest.approx(100 * 32 / 480) and a["dice"] == pytest.approx(464 / 480)
    # Two of six axial slices; 8 of 8 coronal ones; of 12 sagittal ones 3, 4 (removed), 13, 14 (added).
    assert a["changed_axial_percent"] == pytest.approx(100 * 2 / 6)
    assert a["changed_coronal_percent"] == 100
    assert a["changed_sagittal_percent"] == pytest.approx(100 * 4 / 12)
    changed = {row["slice"]: (row["changed"], row["edited"]) for row in found.slices if row["case"] == "a"}
    assert changed == {z: (z in (3, 5), 16 * (z in (3, 5))) for z in range(2, 8)}
    assert b["edited_percent"] == 0 and b["changed_axial_percent"] == 0 and b["dice"] == 1
    assert any("1 of 2 masks were not changed" in note for note in found.notes)
    # In slice 3 the new contour is the far side (8) and one pixel of each other side: 10; in slice 5 the new near side
    # (8), of which 2 are on the old contour: 6. Pixels of 2 mm.
    assert a["added_path_mm"] == pytest.approx(2 * (10 + 6)) and b["added_path_mm"] == 0


def test_edits_within_the_tolerance_change_no_slice(folders):
    # The nearest edited voxels lie 2 mm from the box, the farthest 4 mm; both pairs of columns do.
    for tolerance, changed in ((0, 2), (2, 2), (4, 0)):
        found = study_corrections(folders[0], [folders[1]], tolerance_mm=tolerance, quiet=True)
        assert sum(row["changed"] for row in found.slices) == changed
    assert added_path(np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool), (1, 1, 1), 2) == 3 * 8


def test_views_follow_the_patient_not_the_array(folders, tmp_path):
    """The same voxels, of which the first axis now is superior: what was sagittal is axial."""
    for folder, name in zip(folders, ("auto2", "after2"), strict=True):
        mask = nifti.read_mask(folder / "a.nii.gz")
        affine = np.array([[0, 0, 5, 0], [0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]])
        (tmp_path / name).mkdir()
        nifti.write(tmp_path / name / "a.nii.gz", Volume(mask.voxels, affine))
    found = study_corrections(tmp_path / "auto2", [tmp_path / "after2"], quiet=True)
    assert found.cases[0]["changed_axial_percent"] == pytest.approx(100 * 4 / 12)
    assert found.cases[0]["changed_sagittal_percent"] == pytest.approx(100 * 2 / 6)


def _slices(expected):
    """Slices of one mask: 100 voxels each before and after, with 0, 50, 0 and 100 of them edited."""
    both = np.array([100, 75, 100, 50])
    size = np.full(4, 100)
    return Slices(np.zeros(4, int), np.full(4, "p", object), size, size, both, both < 100, np.array(expected))


def test_the_simulated_corrector_by_hand():
    drawn = curves(_slices([0.9, 0.8, 0.7, 0.2]))
    # Before: 325 of 400 voxels are shared. The worst slice gives 50 more, then the other 25.
    dice = {name: [row["dice"] for row in rows][::5] for name, rows in drawn.items()}
    assert dice["most edited first"] == pytest.approx([0.8125, 0.9375, 1, 1, 1])
    assert dice["from one end"] == pytest.approx([0.8125, 0.8125, 0.875, 0.875, 1])
    assert dice["lowest quality first"] == pytest.approx([0.8125, 0.9375, 0.9375, 1, 1])


def test_slices_to_look_at():
    # By quality the edits come as 100, 0, 50, 0: 95 % of 150 are held by three of four; two thirds by one.
    slices = _slices([0.9, 0.8, 0.7, 0.2])
    assert looked_at(slices, 0.95) == [0.75] and looked_at(slices, 2 / 3) == [0.25]
    assert math.isnan(looked_at(_slices([math.nan] * 4), 0.95)[0])


def test_the_command_with_times_and_quality(folders, tmp_path, capsys):
    auto, after = folders
    quality = tmp_path / "uncertainty"
    quality.mkdir()
    for case in "ab":
        lines = [f"{z},{0.5 if z in (3, 5) else 0.9}" for z in range(10)]
        (quality / f"{case}_quality.csv").write_text(
            "slice,expected_dice\n" + "\n".join(lines), encoding="utf-8"
        )
    times = tmp_path / "times.csv"
    times.write_text("case,minutes_manual,minutes_corrected\na,10,6\nb,,3\n", encoding="utf-8")
    out = tmp_path / "out"
    words = [
        f"--automatic={auto}",
        f"--corrected={after}",
        f"--times={times}",
        f"--quality={quality}",
        f"-o={out}",
    ]
    assert main(["study", "corrections", *words]) == 0
    assert "minutes saved" in capsys.readouterr().out
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        summary = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(summary["minutes saved"]["value"]) == 4 and summary["minutes saved"]["patients"] == "1"
    # Slices 3 and 5 come first in both cases; in b they were not changed: 2 changed against 10 that were not, of which
    # 2 tie with them.
    auroc = summary["slice quality: AUROC of changed slices"]
    assert float(auroc["value"]) == pytest.approx((8 + 0.5 * 2) / 10)
    share = summary["slices to look at for 95 % of the edits, lowest quality first [%]"]
    assert float(share["value"]) == pytest.approx(100 * 2 / 6)
    assert float(summary["minutes for those, if each slice took the same"]["value"]) == pytest.approx(2)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image") == 9 and "no saved time of b" in text


def test_bad_input_is_one_line_with_a_remedy(folders, tmp_path, capsys):
    auto, after = folders
    times = tmp_path / "times.csv"

    def status(*words, kind="corrections"):
        code = main(["study", kind, *words, f"-o={tmp_path / 'out'}", "--quiet"])
        return code, capsys.readouterr().err.strip()

    both = (f"--automatic={auto}", f"--corrected={after}")
    for text, expected in (
        ("case,minutes_manual\na,3\n", "has no column minutes_corrected, expected case, minutes_manual"),
        ("case,minutes_manual,minutes_corrected\na,3,\n", "no case that is compared (a, b) has both times"),
        (
            "case,minutes_manual,minutes_corrected\na,3,soon\n",
            "line 2: minutes_corrected is 'soon', expected minutes",
        ),
        ("case,minutes_manual,minutes_corrected\na,3,1\na,3,1\n", "line 3: case 'a' by after a second time"),
        ("case,minutes_manual,minutes_corrected,reader\na,3,1,who\n", "reader 'who', expected one of after"),
    ):
        times.write_text(text, encoding="utf-8")
        code, line = status(*both, f"--times={times}")
        assert code == 1 and expected in line and "\n" not in line
    times.write_text("case,minutes_manual,minutes_corrected\na,3,1\n", encoding="utf-8")
    assert status(*both, f"--times={times}") == (0, "")
    code, line = status(*both, f"--quality={tmp_path}")
    assert code == 1 and "no such file, expected the folder uncertainty/" in line
    code, line = status(f"--automatic={auto}")
    assert code == 1 and "--corrected is missing, expected masks, as --corrected=FOLDER" in line
    code, line = status(*both, f"--readers={auto}")
    assert (
        code == 1
        and "--readers has no effect on corrections, expected it with `liverjax study observers`" in line
    )
    assert (
        status(f"--readers={auto},{after}", kind="observers")[0] == 1
    )  # The folder holds the study of corrections.
    (auto / "b.nii.gz").unlink()
    code, line = status(*both)
    assert code == 1 and "no mask of b of automatic" in line and line.endswith("or --cases=a")
    out = f"-o={tmp_path / 'one'}"
    assert main(["study", "corrections", *both, "--cases=a", out, "--quiet"]) == 0
    write(after / "a.nii.gz", ((3, 13), (4, 12), (2, 8)), affine=np.diag([2.0, 2.0, 4.0, 1.0]))
    with pytest.raises(InputError, match="mm apart"):
        study_corrections(auto, [after], cases=["a"], quiet=True)


def test_empty_masks_are_stated_values(tmp_path):
    for folder in ("auto", "after"):
        write(tmp_path / folder / "a.nii.gz")
    write(tmp_path / "auto" / "b.nii.gz")
    write(tmp_path / "after" / "b.nii.gz", ((3, 13), (4, 12), (2, 8)))
    found = study_corrections(tmp_path / "auto", [tmp_path / "after"], quiet=True)
    a, b = found.cases
    assert math.isnan(a["dice"]) and math.isnan(a["changed_axial_percent"]) and a["added_path_mm"] == 0
    assert b["dice"] == 0 and b["changed_axial_percent"] == 100 and b["edited_percent"] == 100
