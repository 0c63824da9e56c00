"""The command `evaluate`, as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from liverjax.checkpoint.manifest import write_manifest
from liverjax.commands.dispatch import main
from liverjax.config import to_dict
from liverjax.labels import NAMES
from liverjax.options import Config, Target
from liverjax.scans import nifti
from liverjax.volume import Volume


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of three cases; one liver is predicted a slice too small."""
    for folder, top in (("p", 4), ("r", 5)):
        for case in ("x", "y", "z"):
            voxels = np.zeros((8, 8, 6), np.uint8)
            voxels[1:7, 1:7, 1 : top if case == "y" else 5] = 1
            voxels[2:4, 2:4, 2:4] = 2
            path = tmp_path / folder / f"{case}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nifti.write(path, Volume(voxels, np.diag([1, 1, 2.5, 1])))
    return tmp_path / "p", tmp_path / "r"


def _command(folders, output, *more):
    predictions, references = folders
    return [
        "evaluate",
        f"--predictions={predictions}",
        f"--references={references}",
        "-o",
        str(output),
        *more,
    ]


def test_tables_are_printed_and_files_written(folders, tmp_path, capsys):
    assert main(_command(folders, tmp_path / "out")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    dice = (2 * 108 / (108 + 144) + 2) / 3
    assert next(line for line in lines if line[:1] == ["Dice"])[1] == f"{dice:.3f}"
    assert ["Dice", "global", "1.000"] in lines
    assert any(line[:2] == ["MICCAI", "score"] for line in lines)
    assert ["recall", "at", "50", "%", "overlap", "1.000", "(3", "of", "3)"] in lines
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["mean"]["(1, 2)"]["Dice"] == pytest.approx(dice)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "summary.json",
        "cases.csv",
        "lesions.csv",
    }


def test_quiet_prints_nothing(folders, tmp_path, capsys):
    assert main(_command(folders, tmp_path / "out", "--quiet", "--processes=2")) == 0
    assert capsys.readouterr() == ("", "")


def test_chosen_cases_and_metrics_against_another_method(folders, tmp_path, capsys):
    more = ("--cases=y,z", "--metrics=dice,assd", f"--compare={folders[1]}", "--primary=assd", "--quiet")
    assert main(_command(folders, tmp_path / "out", *more)) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in summary["metric_per_case"]] == ["y", "z"]
    assert summary["comparison"]["liver"].keys() == {"dice", "assd"}
    assert summary["comparison"]["liver"]["dice"]["mean_difference"] < 0
    assert "p_wilcoxon_holm" in summary["comparison"]["liver"]["assd"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--cases=x,nine", "no reference in"),
        ("--metrics=dise", "did you mean 'dice'"),
        ("--compare=/nowhere", "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(folders, tmp_path, capsys, flag, message):
    assert main(_command(folders, tmp_path / "out", flag)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("liverjax: error: ") and message in errors[0]


def _run(folder, labels, **subsets):
    """Writes the manifest of a run, of which `evaluate` reads no more."""
    config = to_dict(Config(target=Target(labels=labels)))
    nothing = {"fingerprint": "0" * 64, "train": [], "validation": [], "test": []}
    write_manifest(folder / "run.json", config=config, data=nothing | subsets)
    return f"--model={folder}"


def _scored(folder):
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return [row["case"] for row in summary["metric_per_case"]], set(summary["mean"])


def test_the_subset_of_a_run_is_scored(folders, tmp_path, capsys):
    model = _run(tmp_path / "run", NAMES, validation=["x"], test=["y", "z"], train=["gone"])
    command = _command(folders, tmp_path / "out", "--quiet")
    assert main([*command, "--subset=test", model]) == 0
    assert _scored(tmp_path / "out") == (["y", "z"], {"(1, 2)", "2"})
    assert main([*command, "--subset=validation", model]) == 0
    assert _scored(tmp_path / "out")[0] == ["x"]
    assert main([*command, model]) == 0
    assert _scored(tmp_path / "out")[0] == ["x", "y", "z"]
    assert capsys.readouterr() == ("", "")
    # Cases of the split that are not there are no silent gap.
    assert main([*command, "--subset=train", model]) == 1
    assert "1 case: gone" in capsys.readouterr().err
    # What the errors ask for was done above.
    assert main([*command, "--subset=test"]) == 1
    assert "--subset=test with no --model, expected --model=RUN" in capsys.readouterr().err
    assert main([*command, "--subset=test", model, "--cases=x"]) == 1
    assert "--subset=test with --cases, expected --model=RUN" in capsys.readouterr().err


def test_only_the_regions_that_a_run_knows_are_scored(folders, tmp_path):
    model = _run(tmp_path / "run", NAMES[:2])
    command = _command(folders, tmp_path / "out", "--quiet", model)
    assert main(command) == 0
    assert _scored(tmp_path / "out") == (["x", "y", "z"], {"(1, 2)"})
    assert main([*command, "--regions=tumor"]) == 0
    assert _scored(tmp_path / "out")[1] == {"2"}


def test_a_model_that_lists_no_cases_is_refused(folders, tmp_path, capsys):
    (tmp_path / "liver.safetensors").write_bytes(b"")
    assert main(_command(folders, tmp_path / "out", f"--model={tmp_path / 'liver.safetensors'}")) == 1
    assert "is a file, expected the folder of a run" in capsys.readouterr().err


def test_a_metric_that_is_named_twice_is_scored_once(folders, tmp_path):
    assert main(_command(folders, tmp_path / "out", "--metrics=dice,dice", "--quiet")) == 0
    header, row, *_ = (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert header.split(",").count("dice") == 1 and header.count(",") == row.count(",")


def test_missing_predictions_need_a_flag(folders, tmp_path, capsys):
    (folders[0] / "x.nii.gz").unlink()
    assert main(_command(folders, tmp_path / "out")) == 1
    assert "1 case: x" in capsys.readouterr().err
    assert main(_command(folders, tmp_path / "out", "--allow_missing", "--quiet")) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["metric_per_case"][0]["metrics"]["2"]["Dice"] == 0
    assert summary["metric_per_case"][0]["prediction_file"] is None


def test_wrong_usage_is_status_2(capsys):
    assert main(["evaluate", "--predictions=p"]) == 2
    assert main(["evaluate", "--processes=0"]) == 2
    capsys.readouterr()


def test_scores_need_no_jax(folders, tmp_path):
    code = "import sys; from liverjax.commands.dispatch import main; print(main(sys.argv[1:]), 'jax' in sys.modules)"
    command = [sys.executable, "-c", code, *_command(folders, tmp_path / "out", "--quiet")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "False"]
