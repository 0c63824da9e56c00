"""The report of an evaluation, made from the results of `evaluate`."""

import csv
import json
import re

import numpy as np
import pytest

from liverjax.report.evaluation import evaluation_report
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SHOWN = re.compile('<span class="badge">(.*?)</span>(.*?)</h3>')


def _case(folder, name, *, tumor=True, low=2):
    voxels = np.zeros((24, 20, 16), np.uint8)
    voxels[low:20, 2:18, 2:14] = 1
    if tumor:
        voxels[8:12, 8:12, 5:9] = 2
    folder.mkdir(parents=True, exist_ok=True)
    nifti.write(folder / f"{name}.nii.gz", Volume(voxels, AFFINE))


def _report(tmp_path, references="r", **options):
    evaluation = cohort.evaluate(tmp_path / "p", tmp_path / references, tmp_path / "s", quiet=True, **options)
    path = evaluation_report(
        tmp_path / "report.html",
        "Evaluation",
        **evaluation.report_rows(),
    )
    return path.read_text(encoding="utf-8")


def _pictures(page):
    return re.findall('href="data:image/jpeg;base64,([^"]*)"', page)


def test_the_worst_the_median_and_the_best_case_of_each_region_are_shown_and_called_so(tmp_path):
    for index in range(5):
        _case(tmp_path / "r", f"case{index}")
        _case(tmp_path / "p", f"case{index}", low=2 + index, tumor=index != 3)
    page = _report(tmp_path, compare=tmp_path / "r")
    # The liver loses a slab with each case; the tumour of case 3 is missed, those of the others are equal.
    dice = [2 * (18 - i) / (18 + 18 - i) for i in range(5)]
    assert SHOWN.findall(page) == [
        ("worst", f"case4: Dice {dice[4]:.3f}"), ("median", f"case2: Dice {dice[2]:.3f}"),
        ("best", "case0: Dice 1.000"),
        ("worst", "case3: Dice 0.000"), ("median", "case1: Dice 1.000"), ("best", "case4: Dice 1.000"),
    ]  # fmt: skip
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "The liver: worst, median, best", "The tumours: worst, median, best", "The figures", "The scores", "All cases",
        "What the measures mean", "Where this page comes from",
    ]  # fmt: skip
    cards = re.findall("<h3>([^<]*?)</h3>", page)
    assert cards == [
        "How much do the masks overlap?", "How far apart are the surfaces?", "How close to a human are the scores?",
        "Is the volume of the liver right?", "Is the volume of the tumours right?", "Which lesions are found?",
        "Scores of the liver", "Scores of the tumours", "LiTS table of the tumours",
        f"Difference from {tmp_path / 'r'}",
    ]  # fmt: skip
    assert len(_pictures(page)) == 18


def test_a_set_of_livers_alone_has_no_word_of_others(tmp_path):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "x", tumor=False)
    page = _report(tmp_path)
    assert SHOWN.findall(page) == [("only case", "x: Dice 1.000")]
    note, rest = page.split("</p>", 1)
    assert "tumours are in no mask" in note
    assert "tumo" not in rest and "LiTS" not in rest and "lesion" not in rest
    assert '<th scope="col">region' not in page and ">region<" not in page and ">state<" not in page


def test_the_table_of_cases_is_complete_and_its_headings_are_plain_and_can_be_sorted_by(tmp_path):
    for index in range(3):
        _case(tmp_path / "r", f"case{index}")
        _case(tmp_path / "p", f"case{index}", low=2 + index)
    page = _report(tmp_path)
    (table,) = re.findall('<div class="wide long".*?</div>', page, re.DOTALL)
    headings = re.findall('aria-sort="none"><button type="button">(.*?)</button>', table)
    with open(tmp_path / "s" / "cases.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # All columns but the state, which is "" in each; two regions.
    assert (
        len(headings) == len(rows[0]) - 1 and "HD95 pooled [mm]" in headings and "voxels in both" in headings
    )
    assert not [heading for heading in headings if "_" in heading]
    assert table.count("<tr>") == 1 + len(rows) == 7
    # What each measure means is said, by the heading that it has.
    meant = set(re.findall("<dt>(.*?)</dt>", page))
    assert set(headings) - meant == {"case", "region", *(h for h in headings if h.startswith("voxels"))}


def test_two_hundred_cases_make_a_page_below_ten_megabytes(tmp_path):
    """Of noise, which no JPEG makes small, at the size of real scans."""
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[-1:1:256j, -1:1:256j, -1:1:100j]
    mask = ((x + 0.3) ** 2 / 0.3 + y**2 / 0.3 + z**2 / 0.6 < 1).astype(np.uint8)
    mask[60:80, 100:120, 40:50] = 2
    scan = Volume(rng.normal(40, 60, mask.shape).astype(np.int16), np.diag([1.5, 1.5, 2.5, 1.0]))
    cases = [
        {"case": f"case{i:03}", "region": region, "state": "", **{f"metric_{k}": rng.random() * 100 for k in range(15)},
         "dice": rng.random(), **{f"voxels_{k}": 123456 for k in "abcd"}}
        for i in range(200)
        for region in ("liver", "tumor")
    ]  # fmt: skip
    page = evaluation_report(
        tmp_path / "report.html",
        "t",
        tables={},
        cases=cases,
        lesions=[],
        read=lambda case: (scan, mask, mask),
    )
    assert 3_000_000 < page.stat().st_size < 10_000_000


@pytest.mark.parametrize("metrics", [["voe"], ["dice"], ["prediction_ml"]])
def test_any_choice_of_metrics_makes_a_page(tmp_path, metrics):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "x")
    page = _report(tmp_path, metrics=metrics)
    value = {"voe": "VOE [%] 0.000", "dice": "Dice 1.000"}.get(metrics[0])
    assert [caption for _, caption in SHOWN.findall(page)] == ([f"x: {value}"] * 2 if value else [])


def test_masks_are_drawn_on_their_scan_where_it_is_known(tmp_path):
    _case(tmp_path / "p", "x")
    _case(tmp_path / "r" / "labels", "x")
    on_labels = _pictures(_report(tmp_path, "r/labels"))
    scan = np.random.default_rng(0).normal(0, 100, (24, 20, 16)).astype(np.float32)
    (tmp_path / "r" / "images").mkdir()
    nifti.write(tmp_path / "r" / "images" / "x.nii.gz", Volume(scan, AFFINE))
    on_scan = _pictures(_report(tmp_path, "r/labels"))
    assert len(on_scan) == len(on_labels) == 6  # Three planes of the case's liver and of its tumour.
    assert not set(on_scan) & set(on_labels)


def test_a_missing_prediction_is_drawn_as_nothing(tmp_path):
    _case(tmp_path / "r", "x")
    _case(tmp_path / "r", "y")
    _case(tmp_path / "p", "y")
    page = _report(tmp_path, allow_missing=True)
    assert "x: Dice 0.000" in page and "prediction missing" in page


def test_names_are_escaped(tmp_path):
    for folder in ("p", "r"):
        _case(tmp_path / folder, "<b>x&y")
    page = _report(tmp_path)
    assert "<b>" not in page and "&lt;b&gt;x&amp;y: Dice" in page


def test_a_model_without_tumours_is_named_and_scored_without_them(tmp_path):
    """What `predict` writes beside its masks says so; `--regions` brings the tumours back."""
    _case(tmp_path / "p", "x", tumor=False)
    _case(tmp_path / "r", "x")
    facts = {"model": "ct_liver", "versions": {"liverjax": "9.9"}}
    facts |= {"cases": [{"case": "x", "mask": "x.nii.gz", "status": "done"}]}
    (tmp_path / "p" / "manifest.json").write_text(json.dumps(facts))
    (tmp_path / "p" / "labels.json").write_text('{"background": 0, "liver": 1}')
    page = _report(tmp_path)
    assert "the model that predicted knows no tumours" in page and "LiTS" not in page
    assert "<dt>Model</dt><dd>ct_liver, predicted by liverjax 9.9</dd>" in page
    assert "LiTS table" in _report(tmp_path, regions=("liver", "tumor"))
