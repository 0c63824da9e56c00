"""`liverjax recist` on masks whose diameters are known: lesions one pixel wide are as long as their pixels."""

import csv
import json
import re

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.planning.assessment import assess_patient
from liverjax.planning.patients import find_patients
from liverjax.scans import nifti
from liverjax.volume import Volume

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def mask(path, *lesions, affine=AFFINE, shape=(60, 40, 12)):
    """Writes a liver with lesions (row, length in mm), each one pixel wide in three slices."""
    voxels = np.ones(shape, np.uint8)
    for row, length in lesions:
        voxels[5 : 5 + length, row, 4:7] = 2
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume(voxels, affine))
    return path


def course(folder, *points):
    """Writes the masks of one patient's time points, and returns the flag that names them."""
    paths = [mask(folder / f"{index}.nii.gz", *lesions) for index, lesions in enumerate(points)]
    return f"--time_points={','.join(map(str, paths))}"


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def recist(tmp_path, capsys):
    """Function from flags to the status, the rows of responses.csv and what was printed as errors."""

    def call(*flags, output="out"):
        out = tmp_path / output
        status = main(["recist", *flags, f"-o={out}"])
        errors = capsys.readouterr().err
        return status, rows(out / "responses.csv") if status == 0 else out.exists(), errors

    return call


@pytest.mark.parametrize(
    ("points", "overall"),
    [
        # 40 mm at baseline, 28 mm are exactly -30 %; 34 mm are +21 % and 6 mm above the nadir, 33 mm +18 %.
        ([[(5, 40)], [(5, 28)], [(5, 34)]], ["", "PR", "PD"]),
        ([[(5, 40)], [(5, 28)], [(5, 33)]], ["", "PR", "SD"]),
        ([[(5, 40)], [(5, 29)], [(5, 40)]], ["", "SD", "PD"]),
        # +20 % of 20 mm are 4 mm: less than 5 mm are no progression.
        ([[(5, 20)], [(5, 24)], [(5, 25)]], ["", "SD", "PD"]),
        # Gone, then back.
        ([[(5, 20)], [], [(5, 6)]], ["", "CR", "PD"]),
        # A new lesion beside one that shrinks; one of 4 mm is equivocal.
        ([[(5, 40)], [(5, 20), (25, 8)]], ["", "PD"]),
        ([[(5, 40)], [(5, 20), (25, 4)]], ["", "PR"]),
        # Two targets, and a third lesion, not a target, which stays.
        ([[(5, 30), (15, 20), (25, 12)], [(25, 12)]], ["", "PR"]),
        ([[(5, 30), (15, 20), (25, 12)], []], ["", "CR"]),
        # Too small to measure: no target.
        ([[(5, 8)], [(5, 8)]], ["", "non-CR/non-PD"]),
    ],
)
def test_courses_that_are_known(tmp_path, points, overall):
    flag = course(tmp_path, *points)
    (patient,) = find_patients(flag.partition("=")[2].split(","))
    assert [response.overall for response in assess_patient(patient).responses] == overall


def test_sums_diameters_and_outputs(recist, tmp_path):
    status, responses, _ = recist(course(tmp_path, [(5, 40), (15, 20)], [(5, 30), (15, 3)]))
    assert status == 0
    # 3 mm are too small to measure, and count 5 mm.
    assert [float(row["sum_mm"]) for row in responses] == pytest.approx([60, 35])
    assert float(responses[1]["change_percent"]) == pytest.approx(-100 * 25 / 60)
    lesions = rows(tmp_path / "out" / "lesions.csv")
    assert [float(row["longest_mm"]) for row in lesions] == pytest.approx([40, 20, 30, 3])
    assert [float(row["volume_ml"]) for row in lesions] == pytest.approx([0.36, 0.18, 0.27, 0.027])
    for name in ("lesions.csv", "responses.csv", "recist.json", "report.html"):
        assert "Research use only, not for treatment" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    json.loads((tmp_path / "out" / "recist.json").read_text(encoding="utf-8"))


def test_a_transform_brings_a_lesion_back_to_where_it_was(recist, tmp_path):
    moved = AFFINE.copy()
    moved[1, 3] = 12  # the second scan's frame lies 12 mm further along y
    first, second = (
        mask(tmp_path / "a.nii.gz", (5, 40)),
        mask(tmp_path / "b.nii.gz", (5, 40), affine=moved),
    )
    points = f"--time_points={first},{second}"
    status, responses, _ = recist(points)
    assert status == 0 and responses[1]["overall"] == "PD"  # gone there, new here
    back = np.eye(4)
    back[1, 3] = -12
    np.savetxt(tmp_path / "back.txt", back)
    status, responses, _ = recist(points, f"--transforms={tmp_path / 'back.txt'}")
    assert status == 0 and responses[1]["overall"] == "SD"


def test_findings_elsewhere_and_chosen_targets(recist, tmp_path):
    points = course(tmp_path, [(5, 40), (15, 30), (25, 12)], [(5, 20), (15, 15), (25, 12)])
    assert recist(points)[1][1]["overall"] == "PR"
    file = tmp_path / "elsewhere.csv"
    file.write_text("time_point,new_lesion\nlater,yes\n")
    status, written, errors = recist(points, f"--elsewhere={file}", output="none")
    assert (status, written) == (1, False) and "line 2: no time point 'later' of" in errors
    file.write_text("time_point,new_lesion\n1,yes\n")
    status, responses, _ = recist(points, f"--elsewhere={file}")
    assert status == 0 and responses[1]["overall"] == "PD"
    # The lesion of 12 mm alone: it stays.
    assert recist(points, "--targets=3")[1][1]["target"] == "SD"


@pytest.mark.parametrize(
    ("flag", "message", "remedy"),
    [
        (
            "--targets=9",
            "target lesion 9 has no voxel in any slice at baseline, expected one of 1",
            "--targets=1",
        ),
        ("--targets=2", "expected a measurable one of at least 10 mm, of 1 \\(40.0 mm\\)", "--targets=1"),
        ("--targets=1,1", "expected at most 2, each once", "--targets=1"),
        ("--tumor_labels=x", "expected whole numbers of 1 to 255", "--tumor_labels=2"),
        ("--dates=2024-02-01,2024-01-01", "2024", "--dates=2024-01-01,2024-02-01"),
    ],
)
def test_what_cannot_be_followed_is_one_line_and_nothing_is_written(recist, tmp_path, flag, message, remedy):
    points = course(tmp_path, [(5, 40), (15, 8)], [(5, 30), (15, 8)])
    status, written, errors = recist(points, flag)
    assert (status, written) == (1, False) and errors.count("\n") == 1
    assert re.search(message, errors)
    assert recist(points, remedy)[0] == 0


def test_masks_that_are_missing_or_empty(recist, tmp_path):
    points = course(tmp_path, [(5, 40)], [(5, 30)])
    status, written, errors = recist(points + f",{tmp_path / 'gone.nii.gz'}")
    assert (status, written) == (1, False) and "gone.nii.gz: no such file or folder" in errors
    points = course(tmp_path / "none", [], [])
    status, written, errors = recist(points)
    assert (status, written) == (1, False)
    assert "no tumour (2), expected lesions at baseline; if 1 is tumour: --tumor_labels=1" in errors
    assert recist(points, "--tumor_labels=1")[0] == 0


def test_one_case_has_no_kappa(tmp_path, capsys):
    for rater, length in (("one", 28), ("two", 30)):
        mask(tmp_path / rater / "0" / "case.nii.gz", (5, 40))
        mask(tmp_path / rater / "1" / "case.nii.gz", (5, length))
    raters = f"--raters={tmp_path / 'one'},{tmp_path / 'two'}"
    assert main(["recist", raters, f"-o={tmp_path / 'out'}"]) == 0
    (kappa,) = json.loads((tmp_path / "out" / "raters.json").read_text(encoding="utf-8"))["kappas"]
    assert (kappa["cases"], kappa["kappa"]) == (1, None)
    capsys.readouterr()


def test_raters_by_masks_and_by_tables(tmp_path, capsys):
    for rater, length in (("one", 28), ("two", 30)):
        mask(tmp_path / rater / "0" / "case.nii.gz", (5, 40))
        mask(tmp_path / rater / "1" / "case.nii.gz", (5, length))
    table = tmp_path / "three.csv"
    table.write_text("case,time_point,lesion,longest_mm\ncase,0,1,40\ncase,1,1,27\n")
    raters = ",".join(str(tmp_path / name) for name in ("one", "two", "three.csv"))
    assert main(["recist", f"--raters={raters}", f"-o={tmp_path / 'out'}"]) == 0
    (classes,) = rows(tmp_path / "out" / "classes.csv")
    assert float(classes["PR"]) == pytest.approx(2 / 3) and float(classes["SD"]) == pytest.approx(1 / 3)
    sums = {row["time_point"]: row for row in rows(tmp_path / "out" / "sums.csv")}
    assert [float(sums["1"][name]) for name in ("one", "two", "three")] == pytest.approx([28, 30, 27])
    # Lesions are one pixel wide in three slices of 3 mm: 40 mm are 0.36 ml. Tables of diameters have no volumes.
    volumes = rows(tmp_path / "out" / "volumes.csv")
    assert [float(volumes[0][name]) for name in ("one", "two")] == pytest.approx([0.36, 0.36])
    assert [float(volumes[1][name]) for name in ("one", "two")] == pytest.approx([0.252, 0.27])
    assert {row["three"] for row in volumes} == {"nan"}
    limits = {(row["of"], row["raters"]): row for row in rows(tmp_path / "out" / "limits.csv")}
    assert float(limits["sums", "one - two"]["bias"]) == pytest.approx(-1)  # 40 and 40, 28 and 30.
    assert ("volumes", "one - two") in limits and ("volumes", "one - three") not in limits
    assert "Research use only" in (tmp_path / "out" / "raters.html").read_text(encoding="utf-8")
    capsys.readouterr()


def test_simulated_raters_follow_the_stated_errors(tmp_path, capsys):
    points = course(tmp_path, [(5, 40)], [(5, 30)])
    command = ["recist", points, f"-o={tmp_path / 'out'}", "--simulate_raters=60", "--error_mm=2"]
    assert main(command) == 0
    baseline = rows(tmp_path / "out" / "diameters.csv")[0]
    names = [name for name in baseline if name not in ("case", "time_point", "lesion", "use")]
    measured = np.array([float(baseline[name]) for name in names])
    assert len(measured) == 60
    # Standard errors: 0.26 mm of the mean, 0.18 mm of the deviation.
    assert measured.mean() == pytest.approx(40, abs=1) and measured.std() == pytest.approx(2, abs=0.7)
    capsys.readouterr()
