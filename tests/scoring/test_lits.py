"""Detected lesions and the LiTS table, as defined and as its 2017 scorer computed it, on masks that one can read."""

import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest

from liverjax.objects.components import Lesion
from liverjax.objects.matching import match_lesions
from liverjax.scoring import lits, lits_compat
from liverjax.scoring.metrics import lesion_detection


def _labels(drawing):
    """Returns label ids of one row of voxels: - is liver, # tumour."""
    return np.array([".-#".index(letter) for letter in drawing], np.uint8).reshape(-1, 1, 1)


def _scores(*cases, module=lits):
    return module.table([module.score(_labels(p), _labels(r), (1, 1, 1)) for p, r in cases])


# --- detection ----------------------------------------------------------------------------------------------


def _counts(prediction, reference, threshold):
    masks = (_labels(drawing) == 2 for drawing in (prediction, reference))
    counted = lesion_detection(*masks, iou_above=threshold)
    return (counted.found, counted.references), (counted.confirmed, counted.predictions)


# Found and all reference lesions, confirmed and all predicted ones, at any overlap and at IoU > 0.5.
CASES = {
    "one to one": ("###.", ".###", ((1, 1), (1, 1)), ((0, 1), (0, 1))),
    "one to one, above half": ("####.", ".####", ((1, 1), (1, 1)), ((1, 1), (1, 1))),
    "exactly half is not above half": ("##..", "####", ((1, 1), (1, 1)), ((0, 1), (0, 1))),
    "missed": ("......##", "##......", ((0, 1), (0, 1)), ((0, 1), (0, 1))),
    "touching is not overlapping": ("##..", "..##", ((0, 1), (0, 1)), ((0, 1), (0, 1))),
    "nothing predicted": ("........", "##....##", ((0, 2), (0, 0)), ((0, 2), (0, 0))),
    "nothing there": ("##....##", "........", ((0, 0), (0, 2)), ((0, 0), (0, 2))),
    "both empty": ("....", "....", ((0, 0), (0, 0)), ((0, 0), (0, 0))),
    "one good prediction over two": ("#########", "####.####", ((2, 2), (1, 1)), ((2, 2), (1, 1))),
    "one bad prediction over two": ("#########", "#.......#", ((2, 2), (1, 1)), ((0, 2), (0, 1))),
    "one lesion split in two": ("####.####", "#########", ((1, 1), (2, 2)), ((1, 1), (2, 2))),
    "one lesion in two small pieces": ("#.......#", "#########", ((1, 1), (2, 2)), ((0, 1), (0, 2))),
    "two and two": ("###...###", "###...###", ((2, 2), (2, 2)), ((2, 2), (2, 2))),
    # The first prediction is the only one over the first lesion, but overlaps the second more.
    "left alone": ("######.####", "##.########", ((1, 2), (2, 2)), ((1, 2), (2, 2))),
}


@pytest.mark.parametrize("name", CASES)
def test_every_row_of_the_correspondence(name):
    prediction, reference, any_overlap, above_half = CASES[name]
    assert _counts(prediction, reference, 0.0) == any_overlap
    assert _counts(prediction, reference, 0.5) == above_half


def test_what_is_known_of_each_lesion():
    prediction, reference = np.zeros((2, 12, 10, 8), bool)
    reference[2:4, 3:6, 4] = True
    prediction[2:4, 3:5, 4] = True
    prediction[9, 9, 7] = True
    first, second, third = lits.scored_lesions(match_lesions(prediction, reference, (1, 2, 5)))
    assert (first.side, first.lesion.id, first.size, first.match) == ("reference", 1, "small", 0)
    assert (first.dice, first.iou) == pytest.approx((0.8, 2 / 3))
    assert (second.side, second.lesion.id, second.iou) == ("prediction", 1, first.iou)
    assert (third.lesion.id, third.match, third.dice, third.iou) == (2, None, 0, 0)


@pytest.mark.parametrize(
    ("diameter", "size"), [(9.9, "small"), (10, "medium"), (20, "medium"), (20.1, "large")]
)
def test_size_classes(diameter, size):
    lesion = Lesion(1, 1, 1, diameter, (0, 0, 0), (slice(1),) * 3)
    assert lits.ScoredLesion("reference", lesion, None, 0, 0).size == size


def test_precision_recall_and_f1():
    counted = lits.Detection(references=4, found=3, predictions=6, confirmed=3)
    assert (counted.recall, counted.precision) == (0.75, 0.5)
    assert counted.f1 == pytest.approx(0.6)


def test_f1_without_hits_and_without_lesions():
    assert lits.Detection(2, 0, 0, 0).f1 == 0
    assert math.isnan(lits.Detection(2, 0, 0, 0).precision)
    assert math.isnan(lits.Detection(0, 0, 1, 0).recall)
    assert math.isnan(lits.Detection(0, 0, 0, 0).f1)


# --- the table, as defined ----------------------------------------------------------------------------------


def test_a_set_of_two_cases_by_hand():
    # Case 1: a lesion with IoU 3/4, a false one. Case 2: one lesion missed, another with IoU 1/5.
    table = _scores(("---###--#", "--####---"), ("-----#----", "##-#####--"))
    assert table["cases"] == 2
    assert table["dice_per_case"] == pytest.approx((6 / 8 + 2 / 8) / 2)
    assert table["dice_global"] == pytest.approx((6 + 2) / (8 + 8))
    assert table["dice_per_lesion"] == pytest.approx((6 / 7 + 0 + 2 / 6) / 3)
    assert table["dice_per_corresponding_lesion"] == pytest.approx((6 / 7 + 2 / 6) / 2)
    assert table["detected_pairs"] == 1
    assert (table["dice"], table["voe"], table["rvd"]) == pytest.approx((6 / 7, 25, -25))
    # Three voxels within four: distances 0, 0, 0 from the one side, 1, 0, 0, 0 from the other.
    assert (table["assd"], table["rmsd"], table["hausdorff"]) == pytest.approx((1 / 7, math.sqrt(1 / 7), 1))
    any_overlap, above_half = (table["detection"][f"iou_above_{t}"]["all"] for t in ("0", "0.5"))
    assert (any_overlap["precision"], any_overlap["recall"]) == pytest.approx((2 / 3, 2 / 3))
    assert (above_half["precision"], above_half["recall"]) == pytest.approx((1 / 3, 1 / 3))
    assert above_half["f1"] == pytest.approx(1 / 3)


def test_tumour_burden():
    # 4 of 9 against 4 of 9, then 2 of 8 against 4 of 10.
    table = _scores(("--####---", "-####----"), ("##------..", "####------"))
    assert table["burden_rmse"] == pytest.approx(math.sqrt((0 + 0.15**2) / 2))
    assert table["burden_max"] == pytest.approx(0.15)


def test_an_over_estimate_of_the_burden_counts_too():
    assert _scores(("####------", "##--------"))["burden_max"] == pytest.approx(0.2)


def test_a_missed_liver_makes_the_burden_infinite_and_a_missing_one_undefined():
    missed, absent = ("....", "-##-"), ("-##-", "....")
    assert _scores(missed)["burden_rmse"] == _scores(missed, ("-##-", "-##-"))["burden_max"] == math.inf
    table = _scores(absent, ("-##-", "-#--"))
    assert table["burden_undefined"] == 1
    assert table["burden_max"] == pytest.approx(0.25)
    assert math.isnan(_scores(absent)["burden_rmse"])


def test_tumour_free_cases_are_left_out_and_counted():
    table = _scores(("----", "----"), ("-#-#", "----"), ("-##-", "-##-"))
    assert table["both_empty"] == 1
    assert table["dice_per_case"] == pytest.approx((0 + 1) / 2)
    assert table["dice_per_case_lits"] == pytest.approx((1 + 0 + 1) / 3)
    assert table["tumor_free"] == {
        "cases": 2, "with_false_lesion": 1, "false_lesions": 2, "false_ml": pytest.approx(2 / 1000),
    }  # fmt: skip


def test_detection_by_size():
    # In voxels of 500 mm3, one is a small lesion (9.8 mm) and two are a medium one (12.4 mm).
    case = lits.score(_labels("-#--##-"), _labels("-#--#-#"), (5, 10, 10))
    sizes = lits.table([case])["detection"]["iou_above_0"]
    assert (sizes["small"]["references"], sizes["small"]["found"]) == (3, 2)
    assert (sizes["medium"]["predictions"], sizes["medium"]["confirmed"]) == (1, 1)
    assert math.isnan(sizes["large"]["f1"])


def test_a_set_without_lesions_is_undefined():
    table = _scores(("----", "----"))
    undefined = ("dice_per_case", "dice_global", "dice_per_lesion", "dice", "assd")
    assert all(math.isnan(table[name]) for name in undefined)
    assert table["burden_rmse"] == 0


# --- as the scorer of 2017 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "reference", "counts"),
    [
        ("#########", "####-####", (1, 0, 1)),  # One good prediction over two lesions.
        ("#########", "#-------#", (-1, 2, 3)),  # One bad prediction over two lesions.
        ("####-####", "#########", (1, 1, 0)),  # One lesion split in two.
        ("---------", "##--##---", (0, 0, 2)),
    ],
)
def test_the_counts_of_the_2017_scorer(prediction, reference, counts):
    case = lits_compat.score(_labels(prediction), _labels(reference), (1, 1, 1))
    assert case.counts[0.5] == counts


def test_precision_of_the_2017_scorer_can_be_negative():
    table = _scores(("#########-", "#-------#-"), module=lits_compat)
    assert (table["precision"], table["recall"]) == (-1, -0.5)
    assert _scores(("#########-", "#-------#-"))["detection"]["iou_above_0.5"]["all"]["precision"] == 0


def test_the_2017_scorer_divides_by_the_reference_where_ids_differ():
    # The second prediction has an IoU of 1/4 with the first lesion, and covers it whole.
    pair = "#---####----", "-----#------"
    assert lits_compat.score(*map(_labels, pair), (1, 1, 1)).counts[0.5] == (1, 1, 0)
    assert _scores(pair)["detection"]["iou_above_0.5"]["all"]["found"] == 0


def test_the_2017_scorer_uses_9001_and_signed_errors():
    nothing_detected = _scores(("----", "-##-"), module=lits_compat)
    assert nothing_detected["assd"] == nothing_detected["rvd"] == 9001
    assert (nothing_detected["dice"], nothing_detected["voe"]) == (0, 1)
    no_liver = _scores(("....", "-##-"), module=lits_compat)
    assert no_liver["burden_max"] == pytest.approx(0.5 - 9001)
    over_estimate = _scores(("####------", "##--------"), module=lits_compat)
    assert over_estimate["burden_max"] == pytest.approx(-0.2)
    assert over_estimate["burden_rmse"] == pytest.approx(0.2)


def test_cases_that_crash_the_2017_scorer_are_counted():
    table = _scores(("-#--", "----"), ("-##-", "-##-"), module=lits_compat)
    assert (table["cases"], table["crashes_on"], table["precision"]) == (1, 1, 1)
    assert _scores(("-#--", "----"), module=lits_compat) == {"cases": 0, "crashes_on": 1}


def test_fractions_in_the_table_of_the_2017_scorer():
    table = _scores(("-###----", "-####---"), module=lits_compat)
    assert (table["voe"], table["rvd"]) == pytest.approx((0.25, -0.25))
    assert table["dice"] == pytest.approx(6 / 7)


def test_the_published_scorer_gives_the_same_counts_and_dice():
    here = pathlib.Path(__file__).parent
    spec = importlib.util.spec_from_file_location("oracle_values", here / "oracle_values.py")
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    stored = json.loads((here / "lits_2017_values.json").read_text(encoding="utf-8"))
    assert len(stored) == oracle.PAIRS
    assert sum(min(map(min, values["counts"])) < 0 for values in stored.values()) >= 10
    for index, values in stored.items():
        prediction, reference, spacing = oracle.mask_pair(int(index))
        case = lits_compat.score(prediction * np.uint8(2), reference * np.uint8(2), spacing)
        assert [list(case.counts[threshold]) for threshold in (0.0, 0.5)] == values["counts"]
        assert [pair["dice"] for pair in case.pairs] == pytest.approx(values["dice"], abs=1e-9)
