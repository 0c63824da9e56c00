"""Learning curves as they are planned, read and reported; their laws are tested in `test_curve_fit.py`."""

import csv
import os
import re
import shlex

import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.data.splits import split_cases
from liverjax.datasets.layouts import find_cases
from liverjax.files import write_csv
from liverjax.scans import nifti
from liverjax.studies import fit_curve, plan_curve, read_curves
from liverjax.volume import Volume


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Eighteen scans, of which fold 0 of two tests nine and leaves seven to train."""
    folder = tmp_path_factory.mktemp("curve") / "scans"
    voxels = np.zeros((8, 8, 8), np.uint8)
    voxels[2:6, 2:6, 2:6], voxels[3, 3, 3] = 1, 2
    for number in range(18):
        for kind, values in (("images", voxels.astype(np.int16) * 50 + number), ("labels", voxels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nifti.write(
                folder / kind / f"case{number:02d}.nii.gz", Volume(values, np.diag([4.0, 4.0, 4.0, 1.0]))
            )
    return folder


HALF = ("split.folds=2",)


def _score(sweep, low=0.0):
    """Writes scores as `liverjax evaluate` does, of a known law, and notes that all commands are done."""
    for trial in sweep.trials:
        size = int(trial.variant.split()[0])
        rows = []
        for number, case in enumerate(trial.test):
            for region in ("liver", "tumor"):
                value = 0.95 - 0.4 / size + 0.01 * (number % 5) / 5 + 0.002 * (trial.seed % 3 - 1) - low
                rows.append({"case": case, "region": region, "dice": value})
        write_csv(trial.scores / "cases.csv", rows, ["case", "region", "dice"])
    for command in sweep.commands():
        command.folder.mkdir(parents=True, exist_ok=True)
        command.write_note()


def test_subsets_are_nested_by_patient_and_have_the_sizes(scans, tmp_path):
    sweep = plan_curve("demo", scans, tmp_path, sizes=[1, 2, 5], seeds=2, folds=[0, 1], overrides=HALF)
    cases = find_cases(scans, labelled=True)
    assert len(sweep.trials) == 3 * 2 * 2 and sweep.variants == ("5 patients", "2 patients", "1 patients")
    steps = {trial.config.train.steps for trial in sweep.trials}
    assert len(steps) == 1
    for fold in (0, 1):
        for seed in (0, 1):
            own = [t for t in sweep.trials if (t.fold, t.seed - sweep.base.seed) == (fold, seed)]
            trained = [
                {c.patient for c in split_cases(cases, t.config.split, t.config.seed).train} for t in own
            ]
            assert [len(patients) for patients in trained] == [5, 2, 1]
            assert trained[2] < trained[1] < trained[0]
            assert not trained[0] & {case.patient for case in cases if case.id in own[0].test}


def test_equal_epochs_are_steps_by_size(scans, tmp_path):
    sweep = plan_curve(
        "demo", scans, tmp_path, sizes=[1, 4], seeds=1, equal="epochs", overrides=(*HALF, "train.steps=400")
    )
    assert [trial.config.train.steps for trial in sweep.trials] == [400, 100]


def test_the_command_reads_what_is_done_and_says_what_is_needed(scans, tmp_path, capsys):
    words = ["study", "learning-curve", "--config=demo", f"--dataset={scans}", f"--workdir={tmp_path}"]
    words += ["--sizes=1,2,4,7", "--seeds=2", "--config.split.folds=2", "--targets=0.8,0.99"]
    assert main([*words, "--dry_run"]) == 0
    assert len(re.findall(r"^liverjax train ", capsys.readouterr().out, re.MULTILINE)) == 8
    sweep = plan_curve("demo", scans, tmp_path, sizes=[1, 2, 4, 7], seeds=2, overrides=HALF)
    _score(sweep)
    assert main(words) == 0
    printed = capsys.readouterr().out
    # 0.954 - 0.4 / n is 0.8 at 2.6.
    assert "patients needed for Dice 0.8: 3 (95 % range 2 to 3, power law)." in printed
    assert "patients needed for Dice 0.99: cannot be said from this; 28 or more" in printed
    with open(sweep.folder / "curve.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "liver"]
    assert [row["size"] for row in rows] == ["1", "2", "4", "7"] and {row["patients"] for row in rows} == {
        "9"
    }
    assert float(rows[0]["ci_low"]) < float(rows[0]["mean"]) < float(rows[0]["ci_high"])
    with open(sweep.folder / "patients.csv", encoding="utf-8", newline="") as file:
        assert float(next(csv.DictReader(file))["gain"]) == pytest.approx(0.4 - 0.4 / 7)
    assert (sweep.folder / "report.html").read_text(encoding="utf-8").count("<img") == 2
    # Other sizes are another study of the same trainings: those of 1, 2 and 4 patients are done, which is too short.
    assert main([*words, "--sizes=1,2,4"]) == 0
    assert (
        "cannot be said from this; 4 sizes, 2 seeds and 3 test patients are the least"
        in capsys.readouterr().out
    )


def test_trials_without_scores_and_patients_without_one_are_named(scans, tmp_path):
    sweep = plan_curve("demo", scans, tmp_path, sizes=[1, 2, 4, 7], seeds=2, overrides=HALF)
    _score(sweep)
    first = sweep.trials[0].scores / "cases.csv"
    text = first.read_text(encoding="utf-8").splitlines()
    text[1] = re.sub(r"[\d.]+$", "nan", text[1])
    first.write_text("\n".join(text) + "\n", encoding="utf-8")
    liver, tumor = read_curves(sweep)
    assert liver.rows[0]["patients"] == 8 and tumor.rows[0]["patients"] == 9
    assert any("left out, without a score" in note for note in liver.notes)
    first.unlink()
    liver, _ = read_curves(sweep)
    assert any("NOT COMPLETE: 1 of 8 trials" in note for note in liver.notes) and liver.fit is None


def test_bad_input_is_one_line_with_a_remedy(scans, tmp_path, capsys):
    place = [f"--dataset={scans}", f"--workdir={tmp_path}", "--config.split.folds=2", "--dry_run"]

    def status(*words):
        code = main(["study", "learning-curve", "--config=demo", *place, *words])
        return code, capsys.readouterr().err.strip()

    code, line = status("--sizes=2,40")
    assert code == 1 and "only 7 patients train" in line and "\n" not in line
    remedy = next(word for word in shlex.split(line) if word.startswith("--sizes="))
    assert remedy == "--sizes=2,7" and status(remedy)[0] == 0
    for words in (("--config.max_minutes=5",), ("--config.train.patience=3",)):
        code, line = status("--sizes=2,4", *words)
        assert code == 1 and "would not train equal steps" in line
        remedy = next(word for word in shlex.split(line) if word.startswith("--config."))
        assert status("--sizes=2,4", *words, remedy)[0] == 0
    assert "expected numbers of training patients, as --sizes=2,4,8,16" in status("--sizes=0,2")[1]
    assert "expected whole numbers, as 2,4,8,16" in status("--sizes=two")[1]
    assert "--sizes is missing" in status()[1]
    assert "expected dice, iou or nsd_2mm" in status("--sizes=2,4", "--metric=assd")[1]
    assert status("--sizes=2,4", "--metric=nsd_2mm")[0] == 0
    assert "--output has no effect on learning-curve" in status("--sizes=2", f"-o={tmp_path}")[1]


def test_slurm_gets_the_same_words(scans, tmp_path, capsys, monkeypatch):
    """A stand-in for sbatch, which prints the number of a job."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 7\n", encoding="utf-8")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = [
        "study",
        "learning-curve",
        "--config=demo",
        f"--dataset={scans}",
        f"--workdir={tmp_path / 'work'}",
    ]
    words += ["--sizes=1,2,4,7", "--seeds=2", "--config.split.folds=2"]
    assert main([*words, "--slurm=--partition=gpu"]) == 0
    assert "8 of 8 trainings are left" in capsys.readouterr().out
    script = next((tmp_path / "work").rglob("job.sh")).read_text(encoding="utf-8")
    (line,) = [line for line in script.splitlines() if "liverjax.commands.dispatch" in line]
    of_job = shlex.split(line.removesuffix(" &"))
    again = of_job[of_job.index("study") : -1]
    # What a job plans is what was submitted: its table needs no training.
    _score(plan_curve("demo", scans, tmp_path / "work", sizes=[1, 2, 4, 7], seeds=2, overrides=HALF))
    assert main([*again, "--task=table"]) == 0
    assert "patients needed for Dice 0.9" in capsys.readouterr().out


def test_fits_refuse_what_is_no_curve():
    with pytest.raises(ValueError, match="rising sizes"):
        fit_curve(np.array([4, 2]), np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="not finite or above 1"):
        fit_curve(np.array([2, 4]), np.full((2, 2, 3), np.nan))
    assert fit_curve(np.array([2, 4, 8]), np.zeros((3, 2, 3))) is None
