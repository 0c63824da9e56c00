"""Evaluation of folders of masks: values, pairing, files, bad input, and real masks scored by hand."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from liverjax.commands.dispatch import main
from liverjax.errors import InputError
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.scoring.case import LESION_COLUMNS
from liverjax.scoring.metrics import METRICS
from liverjax.volume import Volume

AFFINE = np.array([[-1.5, 0, 0, 10], [0, 2, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])


def _write(path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume(np.asarray(voxels), affine))


def _labels(liver=(), tumor=()):
    """Returns a small label map with these boxes, each (slice, slice, slice)."""
    voxels = np.zeros((8, 7, 6), np.uint8)
    for box, label in [(liver, 1), (tumor, 2)]:
        if box:
            voxels[box] = label
    return voxels


LIVER = np.s_[1:7, 1:6, 1:5]
TUMOR = np.s_[2:4, 2:4, 2:4]


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of three cases: alike, with one slice less of liver, and without tumour."""
    references = {"a_2": _labels(LIVER, TUMOR), "a_10": _labels(LIVER, TUMOR), "b": _labels(LIVER)}
    predictions = {
        "a_2": _labels(LIVER, TUMOR),
        "a_10": _labels(np.s_[1:7, 1:6, 1:4], TUMOR),
        "b": _labels(LIVER),
    }
    for folder, masks in (("predictions", predictions), ("references", references)):
        for case, voxels in masks.items():
            _write(tmp_path / folder / f"{case}.nii.gz", voxels)
    return tmp_path / "predictions", tmp_path / "references"


def _value(evaluation, case, region, metric):
    (row,) = (row for row in evaluation.cases if (row["case"], row["region"]) == (case, region))
    return row[metric]


# --- values -------------------------------------------------------------------------------------------------


def test_values_of_a_case_by_hand(folders):
    evaluation = cohort.evaluate(*folders, quiet=True)
    # The liver of a_10 has 6 * 5 voxels less of 6 * 5 * 4; a voxel is 1.5 * 2 * 4 mm.
    assert _value(evaluation, "a_10", "liver", "dice") == pytest.approx(2 * 90 / (90 + 120))
    assert _value(evaluation, "a_10", "liver", "rvd") == pytest.approx(-25)
    assert _value(evaluation, "a_10", "liver", "hausdorff") == pytest.approx(4)
    assert _value(evaluation, "a_10", "liver", "prediction_ml") == pytest.approx(90 * 0.012)
    assert _value(evaluation, "a_10", "tumor", "dice") == 1
    assert [row["case"] for row in evaluation.cases[::2]] == ["a_2", "a_10", "b"]


def test_a_case_without_tumour_is_undefined_and_counted(folders):
    evaluation = cohort.evaluate(*folders, quiet=True)
    scores = evaluation.summary["scores"]["tumor"]
    assert math.isnan(_value(evaluation, "b", "tumor", "dice"))
    assert (scores["cases"], scores["both_empty"]) == (3, 1)
    assert (scores["per_case"]["dice"]["n"], scores["per_case"]["dice"]["undefined"]) == (2, 1)
    assert (scores["dice_per_case"], scores["dice_per_case_lits"], scores["dice_global"]) == (1, 1, 1)


def test_nnunets_blocks(folders, tmp_path):
    cohort.evaluate(*folders, tmp_path / "out", quiet=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    _, second, third = summary["metric_per_case"]
    assert second["prediction_file"] == str(folders[0] / "a_10.nii.gz")
    assert second["reference_file"] == str(folders[1] / "a_10.nii.gz")
    assert second["metrics"]["(1, 2)"] == {
        "Dice": pytest.approx(180 / 210), "IoU": pytest.approx(90 / 120), "TP": 90, "FP": 0, "FN": 30,
        "TN": 8 * 7 * 6 - 120, "n_pred": 90, "n_ref": 120,
    }  # fmt: skip
    assert third["metrics"]["2"]["Dice"] is None
    assert summary["mean"]["(1, 2)"]["Dice"] == pytest.approx((1 + 180 / 210 + 1) / 3)
    assert summary["mean"]["2"]["Dice"] == 1
    liver = summary["mean"]["(1, 2)"]["Dice"]
    assert summary["foreground_mean"]["Dice"] == pytest.approx((liver + 1) / 2)


def test_tables_on_disk(folders, tmp_path):
    cohort.evaluate(*folders, tmp_path / "out", quiet=True)
    with open(tmp_path / "out" / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["region"], row["state"]) for row in rows[-2:]] == [
        ("b", "liver", ""),
        ("b", "tumor", "both empty"),
    ]
    assert rows[-1]["dice"] == "nan"
    with open(tmp_path / "out" / "lesions.csv", newline="") as file:
        lesions = list(csv.DictReader(file))
    assert [(row["case"], row["side"]) for row in lesions[:2]] == [
        ("a_2", "reference"),
        ("a_2", "prediction"),
    ]
    # The lesion's centre is voxel (2.5, 2.5, 2.5).
    centre = [float(lesions[0][f"{axis}_mm"]) for axis in "xyz"]
    assert centre == pytest.approx([10 - 1.5 * 2.5, -20 + 2 * 2.5, 30 + 4 * 2.5])
    assert lesions[0]["detected_0.5"] == "True"


def test_lesions_csv_without_lesions_has_its_columns(tmp_path):
    for folder in ("p", "r"):
        _write(tmp_path / folder / "x.nii.gz", _labels(LIVER))
    cohort.evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "out", quiet=True)
    lines = (tmp_path / "out" / "lesions.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [",".join(LESION_COLUMNS)]


def test_chosen_metrics_and_any_tolerance(folders):
    evaluation = cohort.evaluate(*folders, metrics=["nsd_3.5mm", "nsd_4mm"], quiet=True)
    # A missing slice of 4 mm: within 4 mm everything lies, within 3.5 mm all but the two flat faces.
    assert _value(evaluation, "a_10", "liver", "nsd_4mm") == 1
    assert 0 < _value(evaluation, "a_10", "liver", "nsd_3.5mm") < 1
    assert "dice" not in evaluation.cases[0]


def test_several_processes_give_the_same(folders):
    one, two = (cohort.evaluate(*folders, processes=n, quiet=True) for n in (1, 2))
    assert str(one.summary) == str(two.summary)
    assert str(one.cases) == str(two.cases)


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("place", ["lits/segmentation-1.nii.gz", "chaos_mr/labelsTr/mr20.nii.gz"])
def test_a_real_mask_moved_by_one_voxel_scored_by_hand(real_data, tmp_path, place, shift):
    mask = nifti.read_mask(real_data / place)
    reference = mask.voxels > 0
    moved = np.zeros_like(reference)
    x, y, z = (slice(None, -step) if step else slice(None) for step in shift)
    moved[tuple(slice(step, None) for step in shift)] = reference[x, y, z]
    nifti.write(tmp_path / "p" / place.split("/")[-1], mask.with_voxels(moved.astype(np.uint8)))
    files = [f"--predictions={tmp_path / 'p' / place.split('/')[-1]}", f"--references={real_data / place}"]
    assert (
        main(["evaluate", *files, "-o", str(tmp_path / "out"), "--metrics=dice,voe,rvd,assd", "--quiet"]) == 0
    )
    with open(tmp_path / "out" / "cases.csv", newline="") as file:
        liver = {name: float(value) for name, value in next(csv.DictReader(file)).items() if name in METRICS}

    both, either = (moved & reference).sum(), (moved | reference).sum()
    points = [
        np.argwhere(m & ~ndimage.binary_erosion(m, ndimage.generate_binary_structure(3, 2))) * mask.spacing
        for m in (moved, reference)
    ]
    there, back = cKDTree(points[1]).query(points[0])[0], cKDTree(points[0]).query(points[1])[0]
    assert liver["dice"] == pytest.approx(2 * both / (moved.sum() + reference.sum()), rel=1e-12)
    assert liver["voe"] == pytest.approx(100 * (1 - both / either), rel=1e-12)
    assert liver["rvd"] == pytest.approx(100 * (moved.sum() - reference.sum()) / reference.sum(), abs=1e-12)
    assert liver["assd"] == pytest.approx((there.sum() + back.sum()) / (there.size + back.size), rel=1e-6)


# --- two methods --------------------------------------------------------------------------------------------


def test_comparison_of_two_methods(folders, tmp_path):
    predictions, references = folders
    perfect = cohort.evaluate(
        references,
        references,
        tmp_path / "out",
        compare=predictions,
        metrics=["dice", "reference_ml"],
        quiet=True,
    )
    tests = perfect.summary["comparison"]
    assert tests["other"] == str(predictions)
    assert tests["liver"]["dice"]["mean_difference"] == pytest.approx((0 + (1 - 180 / 210) + 0) / 3)
    assert (tests["tumor"]["dice"]["n"], tests["tumor"]["dice"]["undefined"]) == (2, 1)
    assert tests["liver"].keys() == {"dice"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["comparison"]["liver"]["dice"]["n"] == 3


def test_p_values_are_adjusted_over_the_regions_of_the_primary_metric(tmp_path):
    # Ten cases, both regions better in each: p = 2 / 2**10 of either region, twice that for two regions.
    for case in range(10):
        _write(tmp_path / "r" / f"{case}.nii.gz", _labels(LIVER, TUMOR))
        _write(tmp_path / "good" / f"{case}.nii.gz", _labels(LIVER, TUMOR))
        _write(tmp_path / "bad" / f"{case}.nii.gz", _labels(np.s_[1:6, 1:6, 1:5], np.s_[2:4, 2:4, 2:3]))
    folders = tmp_path / "good", tmp_path / "r"
    found = cohort.evaluate(*folders, compare=tmp_path / "bad", metrics=["dice", "iou", "assd"], quiet=True)
    tests = found.summary["comparison"]
    assert tests["primary"] == "dice"
    for region in ("liver", "tumor"):
        assert tests[region]["iou"]["p_permutation"] == pytest.approx(2 / 2**10)
        assert "p_permutation_holm" not in tests[region]["iou"]
        assert tests[region]["dice"]["p_permutation_holm"] == pytest.approx(4 / 2**10)
        assert tests[region]["dice"]["p_wilcoxon_holm"] == pytest.approx(4 / 2**10)


@pytest.mark.parametrize(
    ("metrics", "primary", "expected"),
    [
        (["assd", "reference_ml"], "dice", "expected one of assd"),
        (["dice", "reference_ml"], "reference_ml", "expected one of dice"),
        (["reference_ml"], "dice", "no metric that can be tested"),
    ],
)
def test_a_primary_metric_that_is_not_computed_is_refused(folders, metrics, primary, expected):
    with pytest.raises(
        InputError, match=f"primary metric '{primary}' is not among those computed; .*{expected}"
    ):
        cohort.evaluate(*folders, compare=folders[0], metrics=metrics, primary=primary, quiet=True)


# --- pairing of masks -----------------------------------------------------------------------------------------


def test_a_data_set_as_reference(tmp_path):
    for case in ("x", "y"):
        _write(tmp_path / "set" / "imagesTr" / f"{case}_0000.nii.gz", np.zeros((8, 7, 6), np.int16))
        _write(tmp_path / "set" / "labelsTr" / f"{case}.nii.gz", _labels(LIVER).clip(0, 1) * 7)
        _write(tmp_path / "p" / f"{case}.nii.gz", _labels(LIVER))
    facts = {"labels": {"background": 0, "liver": 7}, "channel_names": {"0": "CT"}}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(facts))
    for references in (tmp_path / "set", tmp_path / "set" / "labelsTr"):
        evaluation = cohort.evaluate(tmp_path / "p", references, quiet=True)
        assert [row["dice"] for row in evaluation.cases if row["region"] == "liver"] == [1, 1]


@pytest.mark.parametrize("name", ["volume-{}", "segmentation-{}", "{}"])
def test_lits_names(tmp_path, name):
    for number in (3, 12):
        _write(tmp_path / "r" / f"volume-{number}.nii", np.zeros((8, 7, 6), np.int16))
        _write(tmp_path / "r" / f"segmentation-{number}.nii", _labels(LIVER, TUMOR))
        _write(tmp_path / "p" / f"{name.format(number)}.nii.gz", _labels(LIVER, TUMOR))
    evaluation = cohort.evaluate(tmp_path / "p", tmp_path / "r", quiet=True)
    assert [row["case"] for row in evaluation.cases[::2]] == ["volume-3", "volume-12"]
    chosen = cohort.evaluate(tmp_path / "p", tmp_path / "r", cases=["12"], quiet=True)
    assert {row["case"] for row in chosen.cases} == {"volume-12"}


def test_two_predictions_of_one_case_are_refused(tmp_path):
    _write(tmp_path / "r" / "segmentation-3.nii", _labels(LIVER))
    for name in ("3", "volume-3"):
        _write(tmp_path / "p" / f"{name}.nii", _labels(LIVER))
    with pytest.raises(InputError, match=r"volume-3\.nii and 3\.nii are predictions of one case"):
        cohort.evaluate(tmp_path / "p", tmp_path / "r", quiet=True)


def test_cases_whose_tumours_are_not_labelled(tmp_path):
    _write(tmp_path / "set" / "images" / "x.nii.gz", np.zeros((8, 7, 6), np.int16))
    _write(tmp_path / "set" / "labels" / "x.nii.gz", _labels(LIVER))
    _write(tmp_path / "p" / "x.nii.gz", _labels(LIVER, TUMOR))
    (tmp_path / "set" / "cases.json").write_text(json.dumps({"liver_only": ["x"]}))
    both = ("liver", "tumor")
    evaluation = cohort.evaluate(tmp_path / "p", tmp_path / "set", regions=both, quiet=True)
    liver, tumor = evaluation.cases
    assert (liver["dice"], tumor["state"]) == (1, "not labelled")
    assert math.isnan(tumor["dice"]) and math.isnan(tumor["prediction_ml"])
    scores = evaluation.summary["scores"]["tumor"]
    assert scores["not_labelled"] == 1
    assert math.isnan(scores["dice_per_case_lits"])
    assert (evaluation.summary["lits"]["cases"], evaluation.lesions) == (0, [])


def test_two_files_belong_together_whatever_their_names(folders):
    predictions, references = folders
    evaluation = cohort.evaluate(predictions / "a_10.nii.gz", references / "a_2.nii.gz", quiet=True)
    assert [row["case"] for row in evaluation.cases] == ["a_2", "a_2"]
    evaluation = cohort.evaluate(predictions / "a_10.nii.gz", references, quiet=True)
    assert [row["case"] for row in evaluation.cases] == ["a_10", "a_10"]


def test_missing_and_surplus_cases_are_all_listed(folders):
    predictions, references = folders
    for case in ("a_2", "b"):
        (predictions / f"{case}.nii.gz").unlink()
    for case in ("c", "d"):
        _write(predictions / f"{case}.nii.gz", _labels(LIVER))
    with pytest.raises(InputError) as error:
        cohort.evaluate(predictions, references, quiet=True)
    assert f"no reference in {references} for 2 cases: c, d" in str(error.value)
    assert f"no prediction in {predictions} for 2 cases: a_2, b" in str(error.value)
    with pytest.raises(InputError, match=r"no reference .* for 1 case: nine"):
        cohort.evaluate(predictions, references, cases=["a_10", "nine"], quiet=True)


def test_a_missing_prediction_counts_as_an_empty_one(folders):
    predictions, references = folders
    (predictions / "a_2.nii.gz").unlink()
    evaluation = cohort.evaluate(predictions, references, allow_missing=True, quiet=True)
    assert _value(evaluation, "a_2", "liver", "state") == "prediction missing"
    assert _value(evaluation, "a_2", "liver", "dice") == 0
    assert _value(evaluation, "a_2", "liver", "assd") == math.inf
    scores = evaluation.summary["scores"]["liver"]
    assert (scores["prediction_missing"], scores["per_case"]["assd"]["infinite"]) == (1, 1)
    assert scores["per_case"]["assd"]["mean"] == math.inf
    assert evaluation.summary["lits"]["burden_rmse"] == math.inf


@pytest.mark.parametrize("state", ["both empty", "prediction empty", "reference empty"])
def test_empty_masks_in_every_combination(tmp_path, state):
    for folder, word in (("p", "prediction"), ("r", "reference")):
        empty = state == "both empty" or state.startswith(word)
        _write(tmp_path / folder / "x.nii.gz", _labels() if empty else _labels(LIVER, TUMOR))
    folders, both = (tmp_path / "p", tmp_path / "r", tmp_path / "out"), ("liver", "tumor")
    evaluation = cohort.evaluate(*folders, regions=both, quiet=True)
    assert [row["state"] for row in evaluation.cases] == [state, state]
    values = [row[metric] for row in evaluation.cases for metric in ("dice", "miccai")]
    assert np.isnan(values).all() if state == "both empty" else values == [0, 0, 0, 0]
    assert state in evaluation.table()
    json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 5, 1), (1, 6, 4)])
def test_single_voxels_and_slices(tmp_path, shape):
    for folder in ("p", "r"):
        _write(tmp_path / folder / "x.nii.gz", np.full(shape, 2, np.uint8))
    for row in cohort.evaluate(tmp_path / "p", tmp_path / "r", quiet=True).cases:
        assert (row["dice"], row["hausdorff"], row["nsd_2mm"], row["miccai"]) == (1, 0, 1, 100)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voxels", "affine", "message"),
    [
        (np.ones((8, 7, 5), np.uint8), AFFINE, r"b\.nii\.gz has shape \(8, 7, 5\).*\(8, 7, 6\)"),
        (_labels(LIVER), AFFINE + np.eye(4, k=3) * 5, r"b\.nii\.gz.*5 mm apart"),
        (_labels(LIVER), AFFINE @ np.diag([1, 1, 1.25, 1]), r"b\.nii\.gz.*mm apart"),
        (_labels(LIVER) * np.float32(0.7), AFFINE, r"b\.nii\.gz: label values 0\.7"),
        (_labels(LIVER) * np.uint8(4), AFFINE, r"b\.nii\.gz: label values 4"),
        (_labels(LIVER).astype(np.int16) * -1, AFFINE, r"b\.nii\.gz: label values -1"),
    ],
    ids=["shape", "origin", "spacing", "fractions", "value", "negative"],
)
def test_masks_that_do_not_fit_are_named(folders, tmp_path, voxels, affine, message):
    _write(folders[0] / "b.nii.gz", voxels, affine)
    with pytest.raises(InputError, match=message):
        cohort.evaluate(*folders, tmp_path / "out", quiet=True)
    assert not list((tmp_path / "out").iterdir())


def test_all_bad_masks_are_named_at_once(folders):
    for case in ("a_2", "b"):
        _write(folders[0] / f"{case}.nii.gz", np.ones((2, 2, 2), np.uint8))
    with pytest.raises(InputError, match=r"a_2\.nii\.gz has shape.*; .*b\.nii\.gz has shape"):
        cohort.evaluate(*folders, quiet=True)


def test_an_output_that_cannot_be_written_is_refused_before_the_work(folders, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(InputError, match=f"{place}: results cannot be written there"):
            cohort.evaluate(*folders, place, quiet=True)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("dise", "did you mean 'dice'"),
        ("nsd_xmm", "'nsd_xmm' does not exist"),
        ("nsd_2", "did you mean 'nsd_2mm'"),
        ("msd", "two meanings; expected 'hausdorff'.* or 'assd'"),
    ],
)
def test_unknown_metrics(folders, metric, message):
    with pytest.raises(InputError, match=message):
        cohort.evaluate(*folders, metrics=["dice", metric], quiet=True)


def test_nothing_to_pair(folders, tmp_path):
    with pytest.raises(InputError, match="no case was chosen"):
        cohort.evaluate(*folders, cases=[], quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        cohort.evaluate(tmp_path / "empty", folders[1], quiet=True)
    with pytest.raises(InputError, match="absent"):
        cohort.evaluate(folders[0], tmp_path / "absent", quiet=True)
