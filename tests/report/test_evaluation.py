"""The report of an evaluation, made from the results of `evaluate`."""

import re

import numpy as np
import pytest

from liverjax.report.evaluation import evaluation_report
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
CAPTION = re.compile(r'alt="([^"]*)"')


def _case(folder, name, *, tumor=True, low=2):
    voxels = np.zeros((24, 20, 16), np.uint8)
    voxels[low:20, 2:18, 2:14] = 1
    if tumor:
        voxels[8:12, 8:12, 5:9] = 2
    folder.mkdir(parents=True, exist_ok=True)
    nifti.write(folder / f"{name}.nii.gz", Volume(voxels, AFFINE))


def _report(tmp_path, references="r", **options):
    evaluation = cohort.evaluate(tmp_path / "p", tmp_path / references, quiet=True, **options)
    path = evaluation_report(
        tmp_path / "report.html",
        "Evaluation",
        evaluation.tables(),
        evaluation.cases,
        evaluation.lesions,
        evaluation.read,
    )
    return path.read_text(encoding="utf-8")


def _pictures(page):
    return re.findall(r'base64,([^"]*)"', page)


def test_the_worst_two_and_the_best_case_of_each_region_are_shown(tmp_path):
    for index in range(5):
        _case(tmp_path / "r", f"case{index}")
        _case(tmp_path / "p", f"case{index}", low=2 + index, tumor=index != 3)
    page = _report(tmp_path, compare=tmp_path / "r")
    captions = [caption for caption in CAPTION.findall(page) if "case" in caption]
    assert [caption.split(",")[0] for caption in captions] == [
        "case4: liver", "case3: liver", "case0: liver", "case3: tumor", "case0: tumor", "case4: tumor",
    ]  # fmt: skip
    assert captions[2].endswith("Dice 1.000") and captions[3].endswith("Dice 0.000")
    headings = re.findall("<h2>(.*?)</h2>", page)
    scores = ["Scores of the liver", "Scores of the tumor", "LiTS table of the tumours"]
    figures = ["Distributions", "Volume of the liver", "Volume of the tumor", "Detection of lesions"]
    assert headings == [
        *scores,
        f"Difference from {tmp_path / 'r'}",
        *figures,
        "Worst and best cases",
        "Cases",
    ]


def test_a_set_without_tumours_has_no_empty_figures(tmp_path):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "x", tumor=False)
    page = _report(tmp_path)
    assert CAPTION.findall(page) == [
        "Dice", "ASSD [mm]", "MICCAI score", "Bland-Altman: bias and limits of agreement",
        "x: liver, Dice 1.000",
    ]  # fmt: skip
    assert "both empty" in page


@pytest.mark.parametrize("metrics", [["voe"], ["dice"], ["prediction_ml"]])
def test_any_choice_of_metrics_makes_a_page(tmp_path, metrics):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "x")
    assert ("Dice 1.000" in _report(tmp_path, metrics=metrics)) == (metrics == ["dice"])


def test_masks_are_drawn_on_their_scan_where_it_is_known(tmp_path):
    _case(tmp_path / "p", "x")
    _case(tmp_path / "r" / "labels", "x")
    on_black = _pictures(_report(tmp_path, "r/labels"))
    scan = np.random.default_rng(0).normal(0, 100, (24, 20, 16)).astype(np.float32)
    (tmp_path / "r" / "images").mkdir()
    nifti.write(tmp_path / "r" / "images" / "x.nii.gz", Volume(scan, AFFINE))
    on_scan = _pictures(_report(tmp_path, "r/labels"))
    changed = [one != other for one, other in zip(on_black, on_scan, strict=True)]
    assert changed == [False] * (len(changed) - 2) + [True, True]  # The case's liver and its tumour.


def test_a_missing_prediction_is_drawn_as_nothing(tmp_path):
    _case(tmp_path / "r", "x")
    _case(tmp_path / "r", "y")
    _case(tmp_path / "p", "y")
    page = _report(tmp_path, allow_missing=True)
    assert "x: liver, Dice 0.000" in page and "prediction missing" in page


def test_names_are_escaped(tmp_path):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "<b>x&y")
    page = _report(tmp_path)
    assert "<b>" not in page and "&lt;b&gt;x&amp;y: liver" in page
