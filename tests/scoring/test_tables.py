"""Tables of an evaluation as text."""

import math

import numpy as np
import pytest

from liverjax.scans import nifti
from liverjax.scoring import cohort, tables
from liverjax.volume import Volume


def _evaluate(folder, **masks):
    """Scores predictions and references of one row of voxels each; 1 is liver, 2 tumour."""
    for case, pair in masks.items():
        for side, labels in zip(("p", "r"), pair, strict=True):
            (folder / side).mkdir(exist_ok=True)
            voxels = np.array([int(label) for label in labels], np.uint8).reshape(-1, 1, 1)
            nifti.write(folder / side / f"{case}.nii", Volume(voxels, np.eye(4)))
    return cohort.evaluate(folder / "p", folder / "r", quiet=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.12345, "0.123"),
        (-99.99, "-99.990"),
        (1234.56, "1234.6"),
        (math.inf, "inf"),
        (math.nan, "-"),
    ],
)
def test_numbers(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("dice", "Dice"),
        ("nsd_2.5mm", "NSD at 2.5 mm"),
        ("false_5mm_ml", "false beyond 5 mm [ml]"),
        ("assd", "ASSD [mm]"),
    ],
)
def test_names_have_units(metric, name):
    assert tables.name(metric) == name


def test_infinite_values_and_numbers_of_cases_are_shown(tmp_path):
    found = _evaluate(tmp_path, a=("0110", "0110"), b=("0000", "0110"), c=("0000", "0000"))
    rows = {row[""]: row for row in found.tables()["Scores of the liver"]}
    assert (rows["ASSD [mm]"]["mean"], rows["ASSD [mm]"]["infinite"]) == ("inf", "1")
    assert (rows["Dice"]["mean"], rows["Dice"]["n"]) == ("0.500", "2")
    assert rows["cases"]["mean"] == "3"
    assert (rows["cases, both empty"]["mean"], rows["cases, prediction empty"]["mean"]) == ("1", "1")
    assert "cases, reference empty" not in rows


def test_a_set_without_tumours_has_no_tumour_metrics(tmp_path):
    found = _evaluate(tmp_path, a=("0110", "0110"))
    assert list(found.tables()) == ["Scores of the liver"]
    both = cohort.evaluate(tmp_path / "p", tmp_path / "r", regions=("liver", "tumor"), quiet=True)
    names = [row[""] for row in both.tables()["Scores of the tumor"]]
    assert "Dice" not in names and "cases, both empty" in names


def test_a_dice_of_0_is_shown(tmp_path):
    found = _evaluate(tmp_path, a=("0110", "2002"), b=("0110", "2112"))
    rows = {row[""]: row["mean"] for row in found.tables()["Scores of the tumor"]}
    assert rows["Dice global"] == rows["Dice per case, both empty = 1"] == rows["Dice"] == "0.000"


def test_only_the_primary_metric_is_adjusted_and_it_comes_first():
    test = {
        "n": 9,
        "mean_difference": 0.5,
        "ci_low": 0.25,
        "ci_high": 0.75,
        "p_wilcoxon": 0.01,
        "p_permutation": 0.02,
    }
    adjusted = test | {"p_wilcoxon_holm": 0.03, "p_permutation_holm": 0.04}
    regions = {region: {"iou": test, "dice": adjusted} for region in ("liver", "tumor")}
    rows = tables.comparison_rows({"other": "x", "primary": "dice"} | regions)
    assert [(row[""], row["(Holm)"], row["(Holm) "]) for row in rows] == [
        ("liver: Dice", "0.030", "0.040"), ("tumor: Dice", "0.030", "0.040"),
        ("liver: IoU", "", ""), ("tumor: IoU", "", ""),
    ]  # fmt: skip


def test_columns_are_aligned():
    rows = [{"": "a", "x": "1.5"}, {"": "longer", "x": "10.25"}]
    assert tables.aligned(rows).splitlines() == ["            x", "a         1.5", "longer  10.25"]
