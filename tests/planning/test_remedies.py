"""Remedies of recist and of the files that users state: each message's remedy is followed, and works."""

import re

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.scans import nifti
from liverjax.volume import Volume
from tests.planning.test_command import AFFINE, mask, rows


@pytest.fixture
def recist(tmp_path, capsys):
    """Function from flags to the status and the errors; nothing may be written where it fails."""

    def call(*flags):
        out = tmp_path / "results"
        existed = out.exists()
        status = main(["recist", *map(str, flags), f"-o={out}"])
        errors = capsys.readouterr().err
        assert status == 0 or (errors.count("\n") == 1 and out.exists() == existed)
        return status, errors

    return call


@pytest.fixture
def points(tmp_path):
    """Masks of a patient at two time points."""
    first = mask(tmp_path / "p" / "a.nii.gz", (5, 40), (15, 20))
    return [first, mask(tmp_path / "p" / "b.nii.gz", (5, 30), (15, 20))]


def _flag(paths):
    return f"--time_points={','.join(map(str, paths))}"


# --- which files --------------------------------------------------------------------------------------------


def test_time_points_are_files_or_folders(recist, points):
    status, error = recist(_flag([points[0], points[1].parent]))
    assert status == 1 and error.endswith("expected either files or folders\n")
    assert recist(_flag(points))[0] == 0
    assert recist(_flag([points[0].parent]))[0] == 0


def test_every_patient_has_a_mask_at_each_time_point(recist, tmp_path):
    folders = [tmp_path / "t0", tmp_path / "t1"]
    for folder, cases in zip(folders, ("xy", "x"), strict=True):
        for case in cases:
            mask(folder / f"{case}.nii.gz", (5, 40))
    status, error = recist(_flag(folders))
    assert (
        status == 1
        and f"no mask of y in {folders[1]}; expected one of each patient at each time point" in error
    )
    mask(folders[1] / "y.nii.gz", (5, 20))
    assert recist(_flag(folders))[0] == 0


def test_time_points_of_other_patients_are_left_out(recist, points):
    file = points[0].parent / "cases.json"
    file.write_text('{"patients": {"a": "p1", "b": "p2"}}')
    status, error = recist(_flag(points))
    assert (
        status == 1
        and "are of different patients: a.nii.gz of p1, b.nii.gz of p2; expected those of one" in error
    )
    assert recist(_flag(points[:1]))[0] == 0


@pytest.mark.parametrize("name", ["scans", "viable", "transforms", "dates"])
def test_as_many_files_as_time_points(recist, points, tmp_path, name):
    np.savetxt(tmp_path / "same.txt", np.eye(4))
    one = {"dates": "2024-01-01", "transforms": tmp_path / "same.txt"}.get(name, points[0])
    right = 1 if name == "transforms" else 2
    status, error = recist(_flag(points), f"--{name}={','.join([str(one)] * 3)}")
    found = re.search(r"expected (\d)\n", error)
    assert status == 1 and error.startswith(
        f"liverjax: error: 3 {name if name != 'viable' else 'viable masks'}"
    )
    assert found and int(found[1]) == right
    assert recist(_flag(points), f"--{name}={','.join([str(one)] * right)}")[0] == 0


@pytest.mark.parametrize(("name", "what"), [("scans", "scan"), ("viable", "viable mask")])
def test_folders_of_scans_have_the_names_of_the_masks(recist, points, tmp_path, name, what):
    mask(tmp_path / "beside" / "a.nii.gz", (5, 40))
    wrong = mask(tmp_path / "beside" / "other.nii.gz", (5, 20))
    words = (_flag([points[0].parent]), f"--{name}={tmp_path / 'beside'}")
    status, error = recist(*words)
    assert status == 1 and f"no {what} of b, expected files named as the masks" in error
    wrong.rename(wrong.with_name("b.nii.gz"))
    assert recist(*words)[0] == 0


def test_dates_are_written_as_the_message_says(recist, points):
    status, error = recist(_flag(points), "--dates=1/2/2024,1/3/2024")
    found = re.search(r"expected dates as (\S+)\n", error)
    assert status == 1 and found
    assert recist(_flag(points), f"--dates={found[1]},{found[1]}")[0] == 0


def test_dates_in_the_names_go_on(recist, tmp_path):
    late, early = (mask(tmp_path / f"ct_{day}.nii.gz", (5, 40)) for day in ("20240301", "2024-01-31"))
    status, error = recist(_flag([late, early]))
    assert status == 1 and "ct_2024-01-31 (2024-01-31) comes after ct_20240301 (2024-03-01)" in error
    assert recist(_flag([early, late]))[0] == 0  # "expected the order of time, the baseline first"


def test_both_or_neither_of_time_points_and_raters(points, tmp_path, capsys):
    words = [_flag(points), f"--raters={points[0].parent},{points[0].parent}", f"-o={tmp_path / 'out'}"]
    assert main(["recist", *words]) == 2
    assert "expected either --time_points or --raters" in capsys.readouterr().err
    assert main(["recist", words[0], words[2]]) == 0
    capsys.readouterr()


# --- what masks hold ----------------------------------------------------------------------------------------


def test_an_empty_later_mask_needs_the_liver(recist, points):
    empty = points[1].with_name("c.nii.gz")
    nifti.write(empty, Volume(np.zeros((60, 40, 12), np.uint8), AFFINE))
    status, error = recist(_flag([points[0], empty]))
    assert status == 1 and f"{empty}: is empty, expected the liver as in {points[0]}" in error
    mask(empty)
    assert recist(_flag([points[0], empty]))[0] == 0


def test_scans_of_another_frame_come_by_transforms(recist, points, tmp_path):
    moved = AFFINE.copy()
    moved[2, 3] = 5000
    far = mask(tmp_path / "far.nii.gz", (5, 30), affine=moved)
    status, error = recist(_flag([points[0], far]))
    assert status == 1 and "expected scans of one frame, or --transforms into that of the baseline" in error
    back = np.eye(4)
    back[2, 3] = -5000
    np.savetxt(tmp_path / "back.txt", back)
    assert recist(_flag([points[0], far]), f"--transforms={tmp_path / 'back.txt'}")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0\n0 1 0\n0 0 1\n", "holds 3 x 3 numbers, expected four lines of four finite numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 nan\n", "expected four lines of four finite numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n1 0 0 1\n", "its last line is .*, expected 0 0 0 1"),
        ("-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "neither singular nor mirrored"),
        ("0 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "neither singular nor mirrored"),
        ("a transform\n", "is no table of numbers, expected four lines of four numbers"),
        ("1 0 0 0\n0 1\n", "is no table of numbers, expected four lines of four numbers"),
    ],
)
def test_transforms_are_four_lines_of_four_numbers(recist, points, tmp_path, text, message):
    file = tmp_path / "moved.txt"
    file.write_text(text)
    status, error = recist(_flag(points), f"--transforms={file}")
    assert status == 1 and str(file) in error and re.search(message, error)
    file.write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    assert recist(_flag(points), f"--transforms={file}")[0] == 0


def test_viable_masks_lie_on_the_voxels_of_the_masks(recist, points, tmp_path):
    wrong = mask(tmp_path / "v" / "wrong.nii.gz", (5, 20), shape=(50, 40, 12))
    alive = [mask(tmp_path / "v" / f"{i}.nii.gz", (5, mm)) for i, mm in enumerate((20, 10))]
    # The liver of these masks is not viable tumour.
    for path in alive:
        volume = nifti.read_mask(path, labels=range(3))
        nifti.write(path, volume.with_voxels((volume.voxels == 2).astype(np.uint8)))
    status, error = recist(_flag(points), f"--viable={alive[0]},{wrong}")
    assert status == 1 and "expected the same shape" in error
    assert recist(_flag(points), f"--viable={alive[0]},{alive[1]}")[0] == 0
    _, row = rows(tmp_path / "results" / "responses.csv")
    # Viable: 20 -> 10 mm, half; all of the lesions: 60 -> 50 mm.
    assert (row["mrecist"], float(row["viable_sum_mm"]), row["overall"]) == ("PR", pytest.approx(10), "SD")


# --- files that users state ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "right"),
    [
        (
            "timepoint,new_lesion\nb,yes\n",
            "column 'timepoint' is unknown; did you mean 'time_point'",
            "time_point,new_lesion\nb,yes\n",
        ),
        ("new_lesion\nyes\n", "expected the column time_point", "time_point,new_lesion\nb,yes\n"),
        (
            "time_point,new_lesion\n",
            "expected at least one line below the columns",
            "time_point,new_lesion\nb,no\n",
        ),
        (
            "time_point,new_lesion\nc,yes\n",
            "no time point 'c' of p; expected one of a, b",
            "time_point,new_lesion\nb,yes\n",
        ),
        (
            "time_point,new_lesion\nb,maybe\n",
            "new_lesion is 'maybe', expected yes or no",
            "time_point,new_lesion\nb,no\n",
        ),
        (
            "time_point,new_lesion\nb,yes\nb,no\n",
            "b of p a second time, expected one line",
            "time_point,new_lesion\nb,yes\n",
        ),
        (
            "time_point,new_lesion\nb\n",
            "another number of values than columns",
            "time_point,new_lesion\nb,yes\n",
        ),
        (
            "time_point,non_target\nb,worse\n",
            "non_target is 'worse', expected one of CR,",
            "time_point,non_target\nb,CR\n",
        ),
        (
            "time_point,elsewhere_mm\nb,10\n",
            "no elsewhere_mm of p at a, expected one at every",
            "time_point,elsewhere_mm\na,9\nb,10\n",
        ),
        (
            "time_point,elsewhere_mm\na,-1\nb,1\n",
            "is '-1', expected a number of mm, 0 or more",
            "time_point,elsewhere_mm\na,1\nb,1\n",
        ),
        (
            "time_point,evaluable\na,no\n",
            "the baseline is not evaluable",
            "time_point,evaluable\na,yes\nb,no\n",
        ),
        ("case,time_point\nq,b\n", "no case 'q'; expected one of p", "case,time_point\np,b\n"),
    ],
)  # fmt: skip
def test_findings_elsewhere_are_corrected_as_the_message_says(recist, points, tmp_path, text, message, right):
    file = tmp_path / "elsewhere.csv"
    file.write_text(text)
    status, error = recist(_flag(points), f"--elsewhere={file}")
    assert status == 1 and error.startswith(f"liverjax: error: {file}") and message in error
    file.write_text(right)
    assert recist(_flag(points), f"--elsewhere={file}")[0] == 0


def test_targets_of_several_patients_are_a_table(recist, tmp_path):
    folders = [tmp_path / "t0", tmp_path / "t1"]
    for folder in folders:
        for case in "xy":
            mask(folder / f"{case}.nii.gz", (5, 40), (15, 20))
    status, error = recist(_flag(folders), "--targets=1")
    assert status == 1 and "expected a CSV file with the columns case and lesion" in error
    file = tmp_path / "targets.csv"
    for text, message in (
        ("case,lesion\nz,1\n", "no case 'z'; expected one of x, y"),
        ("case,lesion\nx,first\n", "lesion is 'first', expected its number"),
        ("case\nx\n", "expected the column lesion"),
    ):
        file.write_text(text)
        status, error = recist(_flag(folders), f"--targets={file}")
        assert status == 1 and message in error
    file.write_text("case,lesion\nx,1\ny,2\n")
    status, error = recist(_flag(folders), f"--targets={file},2")
    assert status == 1 and "expected their numbers, or one CSV file" in error
    assert recist(_flag(folders), f"--targets={file}")[0] == 0


# --- raters -------------------------------------------------------------------------------------------------

_TABLE = "case,time_point,lesion,longest_mm\ncase,0,1,40\ncase,1,1,{}\n"


def test_raters_are_two_of_the_same_cases_and_time_points(recist, tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(_TABLE.format(30))
    status, error = recist(f"--raters={one}")
    assert status == 1 and "raters: one; expected at least two" in error
    two.write_text(_TABLE.format(20).replace("case,0", "other,0").replace("case,1,1", "other,1,1"))
    status, error = recist(f"--raters={one},{two}")
    assert status == 1 and error.endswith(
        "no reading of case by two, other by one; expected every case of every rater\n"
    )
    two.write_text(_TABLE.format(20).replace("case,1,1", "case,2,1"))
    status, error = recist(f"--raters={one},{two}")
    assert status == 1 and "time points 0, 2 by two and 0, 1 by one; expected the same" in error
    two.write_text(_TABLE.format(20))
    assert recist(f"--raters={one},{two}")[0] == 0


def test_tables_of_raters_are_corrected_as_the_message_says(recist, tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(_TABLE.format(30))
    for text, message in (
        (_TABLE.format(20) + "case,1,1,22\n", "lesion 1 of case at 1 a second time, expected one line"),
        (_TABLE.format("20 mm"), "longest_mm is '20 mm', expected a number of mm, 0 or more"),
        (
            _TABLE.format(20).replace("longest_mm", "longest"),
            "column 'longest' is unknown; did you mean 'longest_mm'",
        ),
    ):
        two.write_text(text)
        status, error = recist(f"--raters={one},{two}")
        assert status == 1 and str(two) in error and message in error
    two.write_text(_TABLE.format(20))
    assert recist(f"--raters={one},{two}")[0] == 0


def test_masks_of_raters_lie_on_the_same_voxels(recist, tmp_path):
    for rater in ("one", "two"):
        mask(tmp_path / rater / "case.nii.gz", (5, 40))
    other = mask(tmp_path / "two" / "case.nii.gz", (5, 40), shape=(50, 40, 12))
    words = f"--raters={tmp_path / 'one'},{tmp_path / 'two'}"
    status, error = recist(words)
    assert status == 1 and "expected the same shape" in error
    mask(other, (5, 38))
    assert recist(words)[0] == 0
    status, error = recist(f"--raters={tmp_path / 'one'},{tmp_path / 'three'}")
    assert status == 1 and "expected a folder of masks or a CSV file of diameters" in error


def test_simulated_raters_are_at_least_two(recist, points):
    status, error = recist(_flag(points), "--simulate_raters=1")
    assert status == 1 and "expected at least two raters" in error
    assert recist(_flag(points), "--simulate_raters=2")[0] == 0


def test_lesions_without_overlap_are_matched_by_transforms_as_the_note_says(recist, points, tmp_path, capsys):
    """A note is no error: it is in the report, and its remedy makes the lesion the same."""
    moved = AFFINE.copy()
    moved[1, 3] = 12
    later = mask(tmp_path / "moved.nii.gz", (5, 30), (15, 20), affine=moved)
    assert recist(_flag([points[0], later]))[0] == 0
    note = "if the scans are not in one frame, give --transforms"
    assert note in (tmp_path / "results" / "report.html").read_text()
    back = np.eye(4)
    back[1, 3] = -12
    np.savetxt(tmp_path / "back.txt", back)
    assert recist(_flag([points[0], later]), f"--transforms={tmp_path / 'back.txt'}")[0] == 0
    assert note not in (tmp_path / "results" / "report.html").read_text()
