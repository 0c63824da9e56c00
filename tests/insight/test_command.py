"""`liverjax explain`: its reports, its errors, and that their remedies work."""

import csv
import re

import pytest

from liverjax.commands import dispatch


def explain(capsys, *words):
    status = dispatch.main(["explain", *map(str, words)])
    out = capsys.readouterr()
    return status, out.out + out.err


@pytest.fixture(scope="module")
def scan(phantom_scans):
    return phantom_scans / "imagesTr" / "phantom_000_0000.nii.gz"


@pytest.fixture(scope="module")
def mask(phantom_scans):
    return phantom_scans / "labelsTr" / "phantom_000.nii.gz"


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_worst_region_of_a_scan(tiny_run, scan, mask, tmp_path, capsys):
    words = ["slice", f"--model={tiny_run}", "-i", scan, "-o", tmp_path, "--views=axial", "--smoothgrad=2"]
    status, said = explain(capsys, *words, "--worst", f"--reference={mask}")
    assert status == 0 and "largest false region" in said
    found = rows(tmp_path / "slice.csv")
    assert [row["view"] for row in found] == ["axial"] * 4
    assert found[0]["map"] == "Seg-Grad-CAM at encoder_1" and found[1]["map"].startswith(
        "SmoothGrad, 2 draws"
    )
    error = float(re.search(r"completeness error ([0-9.]+)%", found[2]["map"]).group(1))
    assert error <= 1
    page = (tmp_path / "slice.html").read_text()
    assert page.count("data:image/png") == 2 and "axial slice" in page


def test_one_question_at_a_time_and_remedies(tiny_run, scan, mask, tmp_path, capsys):
    words = ["slice", f"--model={tiny_run}", "-i", scan, "-o", tmp_path, "--views=axial"]
    status, said = explain(capsys, *words, "--worst")
    assert (
        status == 1
        and said == "liverjax: error: --worst needs a mask to compare with, expected --reference=MASK\n"
    )
    status, said = explain(capsys, *words, "--at=0,0,0", "--lesion=1")
    assert status == 1 and "--at and --lesion are both given, expected one; leave one out" in said
    status, said = explain(capsys, *words, "--at=0,0")
    assert status == 1 and "--at is '0,0', expected three numbers, as 12.5,-30,40 in mm" in said
    status, said = explain(capsys, *words, "--at=nan,0,0")
    assert status == 1 and "--at is 'nan,0,0', expected three numbers" in said
    status, said = explain(capsys, *words, "--at=0,0,9000")
    middle = said.strip().rpartition(" ")[2]
    assert status == 1 and "its middle is" in said
    assert explain(capsys, *words, f"--at={middle}")[0] == 0  # the remedy
    status, said = explain(capsys, *words, "--voxel=0,0,900")
    assert status == 1 and "expected indices from 0 to (47, 39, 35)" in said
    status, said = explain(capsys, *words, "--samples=3")
    assert (
        status == 1 and "--samples has no effect on slice, expected it with `liverjax explain field`" in said
    )


def test_a_folder_needs_the_name_of_a_case(tiny_run, phantom_scans, tmp_path, capsys):
    words = [
        "slice",
        f"--model={tiny_run}",
        "-i",
        phantom_scans,
        "-o",
        tmp_path,
        "--views=sagittal",
        "--voxel=20,20,20",
    ]
    status, said = explain(capsys, *words)
    remedy = re.search(r"name it, as (--cases=\w+)", said).group(1)
    assert status == 1 and "8 scans, expected one" in said
    assert explain(capsys, *words, remedy)[0] == 0


def test_fields_of_a_run(tiny_run, phantom_scans, tmp_path, capsys):
    words = [
        "field",
        f"--model={tiny_run}",
        "-i",
        phantom_scans,
        "-o",
        tmp_path,
        "--views=axial",
        "--samples=2",
    ]
    assert explain(capsys, *words)[0] == 0
    found = rows(tmp_path / "field.csv")
    assert len(found) == 3 + 3 + 2  # classes, untrained and without short skips, levels of the encoder
    # Two levels, pixel 0: 2 convolutions [-2, 2]; a level down [-1, 1], two more [-3, 3]; pooled from [-6, 7], and
    # three more [-9, 10]: 20 pixels; pixel 1 lies in the same window.
    assert {row["theoretical [px]"] for row in found[:6]} == {"20"}
    none = explain(capsys, *words, "--cases=nobody")
    remedy = re.search(r"name some, as (--cases=\S+)", none[1]).group(1)
    assert none[0] == 1 and explain(capsys, *words, remedy)[0] == 0


def test_features_of_a_run(tiny_run, phantom_scans, tmp_path, capsys):
    words = ["features", f"--model={tiny_run}", "-i", phantom_scans, "-o", tmp_path, "--views=axial"]
    assert explain(capsys, *words)[0] == 0
    found = rows(tmp_path / "features.csv")
    assert len(found) == 8 and all((row["distance"] == "") == (row["trained"] == "True") for row in found)
    assert (tmp_path / "features.html").read_text().count("data:image/png") == 5


def test_robustness_of_two_models(tiny_run, phantom_scans, tmp_path, capsys):
    words = [f"--model={tiny_run},{tiny_run}/", "-i", phantom_scans, "-o", tmp_path, "--cases=phantom_000"]
    status, said = explain(capsys, "field", *words)
    assert status == 1 and "--model lists 2, expected one; only robustness takes several" in said
    assert explain(capsys, "robustness", *words, "--views=axial")[0] == 0
    found = rows(tmp_path / "robustness.csv")
    half = len(found) // 2
    assert [row["dice"] for row in found[:half]] == [
        row["dice"] for row in found[half:]
    ]  # the same model twice
