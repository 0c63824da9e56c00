"""The table of an ablation against values worked out by hand."""

import csv
import math
from pathlib import Path

import pytest

from liverjax.errors import InputError
from liverjax.experiments.comparison import compare
from liverjax.experiments.plan import Run, Study
from liverjax.options import Config, Target
from liverjax.report.ablation import ablation_report
from liverjax.scoring import statistics

PATIENTS = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
#: Liver Dice of two variants, two seeds: by hand, means over seeds, then over the two cases of patient a.
LIVER = {
    ("base", 0): {"a1": 0.5, "a2": 0.7, "b": 0.8, "c": 0.9},
    ("base", 1): {"a1": 0.7, "a2": 0.9, "b": 0.8, "c": 0.7},
    ("new", 0): {"a1": 0.8, "a2": 0.8, "b": 0.9, "c": 0.9},
    ("new", 1): {"a1": 0.8, "a2": 0.8, "b": 0.9, "c": 0.8},
}


def _study(folder, dice, labels=("background", "liver"), tumor=math.nan):
    runs = []
    for (variant, seed), values in dice.items():
        masks = folder / "runs" / f"{variant}_{seed}" / "predictions" / "p"
        run = Run(
            variant,
            0,
            seed,
            Config(target=Target(labels=labels)),
            Path(),
            masks.parent.parent,
            masks,
            tuple(values),
        )
        runs.append(run)
        run.scores.mkdir(parents=True)
        rows = [f"{case},liver,{value}\n{case},tumor,{tumor}\n" for case, value in values.items()]
        (run.scores / "cases.csv").write_text("case,region,dice\n" + "".join(rows), encoding="utf-8")
    names = tuple(dict.fromkeys(variant for variant, _ in dice))
    return Study("x", "X.", (), "demo", Config(), Path("scans"), folder, PATIENTS, names, tuple(runs))


def test_the_table_by_hand(tmp_path):
    found = compare(_study(tmp_path, LIVER))
    assert found.dice["liver"]["base"] == pytest.approx({"a": 0.7, "b": 0.8, "c": 0.8})
    assert found.dice["liver"]["new"] == pytest.approx({"a": 0.8, "b": 0.9, "c": 0.85})
    base, new = found.rows
    assert (base["runs"], base["patients"], base["worst_patient"]) == (2, 3, "a")
    assert (base["mean"], new["mean"]) == pytest.approx((2.3 / 3, 2.55 / 3))
    assert (base["worst"], new["worst"]) == pytest.approx((0.7, 0.8))
    # Means over cases 0.725 and 0.775, 0.85 and 0.825: the sd of two values is their distance over sqrt 2.
    assert (base["seed_sd"], new["seed_sd"]) == pytest.approx((0.05 / math.sqrt(2), 0.025 / math.sqrt(2)))
    assert (new["pairs"], new["difference"]) == (3, pytest.approx(0.25 / 3))
    # Of the 8 signs of three differences, all + and all - are as far from 0 as what was seen.
    assert new["p_permutation"] == pytest.approx(2 / 8) and new["p_holm"] == pytest.approx(2 / 8)
    assert math.isnan(base["p_permutation"]) and math.isnan(base["p_holm"])
    assert (new["ci_low"], new["ci_high"]) == statistics.confidence_interval(
        list(found.dice["liver"]["new"].values()), seed=0
    )


def test_intervals_depend_on_the_seed_alone(tmp_path):
    study = _study(tmp_path, LIVER)
    assert str(compare(study, seed=1).rows) == str(compare(study, seed=1).rows)


def test_p_values_are_adjusted_for_the_number_of_variants_without_the_baseline(tmp_path):
    third = {("third", seed): dict.fromkeys(PATIENTS, 0.1) for seed in (0, 1)}
    rows = compare(_study(tmp_path, LIVER | third)).rows
    assert [row["p_holm"] for row in rows[1:]] == pytest.approx([0.5, 0.5])


def test_seeds_and_cases_that_are_missing(tmp_path):
    dice = {**LIVER, ("new", 1): {"a1": 0.8}}
    found = compare(_study(tmp_path, dice))
    assert found.dice["liver"]["new"] == pytest.approx({"a": 0.8, "b": 0.9, "c": 0.9})
    # A patient that only the baseline has is in its mean, and not among the pairs.
    del dice["new", 1], dice["new", 0]["c"]
    row = compare(_study(tmp_path / "less", dice)).rows[1]
    assert (row["runs"], row["patients"], row["pairs"]) == (1, 2, 2)
    assert row["difference"] == pytest.approx(0.1) and math.isnan(row["seed_sd"])


def test_tumours_only_where_the_networks_tell_them(tmp_path):
    assert {row["region"] for row in compare(_study(tmp_path, LIVER)).rows} == {"liver"}
    labels = ("background", "liver", "tumor")
    found = compare(_study(tmp_path / "tumor", LIVER, labels, tumor=0.25))
    assert [row["mean"] for row in found.rows if row["region"] == "tumor"] == [0.25, 0.25]
    # Where no case has a tumour nothing is defined.
    none = compare(_study(tmp_path / "none", LIVER, labels)).rows[-1]
    assert none["patients"] == 0 and math.isnan(none["mean"]) and none["worst_patient"] == ""


def test_without_the_baseline_there_is_no_table(tmp_path):
    study = _study(tmp_path, LIVER)
    for run in study.runs[:2]:
        (run.scores / "cases.csv").unlink()
    with pytest.raises(InputError, match="no run of the baseline 'base' is scored"):
        compare(study)


def test_files(tmp_path):
    study = _study(tmp_path, LIVER)
    (study.runs[3].scores / "cases.csv").unlink()
    found = compare(study)
    found.save(study.folder)
    report = ablation_report(
        study.folder, "T", str(study), found.tables(), found.rows, found.dice, found.runs
    )
    assert {path.name for path in study.folder.iterdir()} == {
        "table.csv",
        "table.md",
        "runs.csv",
        "report.html",
        "liver.png",
    }
    with open(study.folder / "table.csv", encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["mean"]) == found.rows[0]["mean"]
    lines = (study.folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "### Dice of the liver" and lines[4].startswith("| base | 0.767 |")
    assert len({line.count("|") for line in lines[2:]}) == 1
    html = report.read_text(encoding="utf-8")
    assert "NOT COMPLETE: 1 of 4 runs are not scored" in html and "data:image/png" in html
    assert "new" in found.text() and "baseline" in found.text()
