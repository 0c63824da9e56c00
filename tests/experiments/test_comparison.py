"""The table of an ablation against values worked out by hand."""

import csv
import math
from pathlib import Path

import pytest

from liverjax.errors import InputError
from liverjax.experiments.comparison import compare
from liverjax.experiments.plan import Sweep, Trial
from liverjax.options import Config, Target
from liverjax.report.ablation import ablation_report

PATIENTS = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
#: Liver Dice of two variants, two seeds: by hand, means over seeds, then over the two cases of patient a.
LIVER = {
    ("base", 0): {"a1": 0.5, "a2": 0.7, "b": 0.8, "c": 0.9},
    ("base", 1): {"a1": 0.7, "a2": 0.9, "b": 0.8, "c": 0.7},
    ("new", 0): {"a1": 0.8, "a2": 0.8, "b": 0.9, "c": 0.9},
    ("new", 1): {"a1": 0.8, "a2": 0.8, "b": 0.9, "c": 0.8},
}


def _sweep(folder, scores, labels=("background", "liver"), tumor=math.nan, metric="dice"):
    trials = []
    for (variant, seed), values in scores.items():
        masks = folder / "runs" / f"{variant}_{seed}" / "predictions" / "p"
        config, training = Config(target=Target(labels=labels)), masks.parent.parent
        trial = Trial(variant, 0, seed, config, Path(), training, masks, masks / "scores", tuple(values))
        trials.append(trial)
        trial.scores.mkdir(parents=True)
        rows = [f"{case},liver,{value}\n{case},tumor,{tumor}\n" for case, value in values.items()]
        (trial.scores / "cases.csv").write_text(f"case,region,{metric}\n" + "".join(rows), encoding="utf-8")
    names, data = tuple(dict.fromkeys(variant for variant, _ in scores)), Path("scans")
    return Sweep("x", "X.", (), "demo", Config(), data, "", folder, metric, PATIENTS, names, tuple(trials))


def test_the_table_by_hand(tmp_path):
    found = compare(_sweep(tmp_path, LIVER))
    assert found.scores["liver"]["base"] == pytest.approx({"a": 0.7, "b": 0.8, "c": 0.8})
    assert found.scores["liver"]["new"] == pytest.approx({"a": 0.8, "b": 0.9, "c": 0.85})
    base, new = found.rows
    assert (base["trials"], base["patients"], base["worst_patient"]) == (2, 3, "a")
    assert (base["mean"], new["mean"]) == pytest.approx((2.3 / 3, 2.55 / 3))
    assert (base["worst"], new["worst"]) == pytest.approx((0.7, 0.8))
    # Means over cases 0.725 and 0.775, 0.85 and 0.825: the sd of two values is their distance over sqrt 2.
    assert (base["seed_sd"], new["seed_sd"]) == pytest.approx((0.05 / math.sqrt(2), 0.025 / math.sqrt(2)))
    assert (new["pairs"], new["difference"]) == (3, pytest.approx(0.25 / 3))
    # Of the 8 signs of three differences, all + and all - are as far from 0 as what was seen.
    assert new["p_permutation"] == pytest.approx(2 / 8) and new["p_holm"] == pytest.approx(2 / 8)
    assert math.isnan(base["p_permutation"]) and math.isnan(base["p_holm"])
    # Three patients are too few for an interval.
    assert math.isnan(new["ci_low"]) and math.isnan(new["difference_high"])


def test_p_values_are_adjusted_for_the_number_of_variants_without_the_baseline(tmp_path):
    third = {("third", seed): dict.fromkeys(PATIENTS, 0.1) for seed in (0, 1)}
    rows = compare(_sweep(tmp_path, LIVER | third)).rows
    assert [row["p_holm"] for row in rows[1:]] == pytest.approx([0.5, 0.5])


def test_seeds_and_cases_that_are_missing(tmp_path):
    dice = {**LIVER, ("new", 1): {"a1": 0.8}}
    found = compare(_sweep(tmp_path, dice))
    assert found.scores["liver"]["new"] == pytest.approx({"a": 0.8, "b": 0.9, "c": 0.9})
    # A patient that only the baseline has is in its mean, and not among the pairs.
    del dice["new", 1], dice["new", 0]["c"]
    row = compare(_sweep(tmp_path / "less", dice)).rows[1]
    assert (row["trials"], row["patients"], row["pairs"]) == (1, 2, 2)
    assert row["difference"] == pytest.approx(0.1) and math.isnan(row["seed_sd"])


def test_tumours_are_compared_only_if_all_networks_segment_them(tmp_path):
    assert {row["region"] for row in compare(_sweep(tmp_path, LIVER)).rows} == {"liver"}
    labels = ("background", "liver", "tumor")
    found = compare(_sweep(tmp_path / "tumor", LIVER, labels, tumor=0.25))
    assert [row["mean"] for row in found.rows if row["region"] == "tumor"] == [0.25, 0.25]
    # Where no case has a tumour nothing is defined.
    none = compare(_sweep(tmp_path / "none", LIVER, labels)).rows[-1]
    assert none["patients"] == 0 and math.isnan(none["mean"]) and none["worst_patient"] == ""


def test_of_a_distance_the_largest_is_the_worst_and_a_missed_liver_is_no_baseline(tmp_path):
    """Patient c is missed by the new variant: its distance is infinite, and so are mean and difference."""
    distances = {
        ("base", 0): {"a1": 3.0, "b": 9.0, "c": 2.0},
        ("new", 0): {"a1": 1.0, "b": 4.0, "c": math.inf},
    }
    found = compare(_sweep(tmp_path, distances, metric="hd95"))
    base, new = found.rows
    assert (base["mean"], base["worst"], base["worst_patient"]) == (pytest.approx(14 / 3), 9.0, "b")
    assert (new["mean"], new["worst_patient"], new["difference"]) == (math.inf, "c", math.inf)
    (title, (first, second)) = next(iter(found.tables().items()))
    assert title == "HD95 pooled [mm] of the liver"
    assert first["difference"] == "baseline" and first["p"] == ""
    assert second["difference"] == "+inf" and second["p"] == second["(Holm)"] == "-"


def test_the_worst_error_is_the_one_furthest_from_0(tmp_path):
    errors = {("base", 0): {"a1": -30.0, "b": 20.0, "c": 1.0}}
    (row,) = compare(_sweep(tmp_path, errors, metric="rvd")).rows
    assert (row["worst"], row["worst_patient"]) == (-30.0, "a")


def test_without_the_baseline_there_is_no_table(tmp_path):
    sweep = _sweep(tmp_path, LIVER)
    for trial in sweep.trials[:2]:
        (trial.scores / "cases.csv").unlink()
    with pytest.raises(InputError, match="no trial of the baseline 'base' is scored"):
        compare(sweep)


def test_files(tmp_path):
    sweep = _sweep(tmp_path, LIVER)
    (sweep.trials[3].scores / "cases.csv").unlink()
    found = compare(sweep)
    found.save(sweep.folder)
    results = {name: getattr(found, name) for name in ("metric", "rows", "scores", "trials")}
    report = ablation_report(sweep.folder, "T", sweep.describe(), tables=found.tables(), **results)
    assert {path.name for path in sweep.folder.iterdir()} == {
        "table.csv",
        "table.md",
        "trials.csv",
        "report.html",
        "liver.png",
    }
    with open(sweep.folder / "table.csv", encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["mean"]) == found.rows[0]["mean"]
    lines = (sweep.folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "### Dice of the liver" and lines[4].startswith("| base | 0.767 |")
    assert len({line.count("|") for line in lines[2:]}) == 1
    html = report.read_text(encoding="utf-8")
    assert "NOT COMPLETE: 1 of 4 trials are not scored" in html and "data:image/png" in html
    assert "new" in found.text() and "baseline" in found.text()
