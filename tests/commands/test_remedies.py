"""Remedies of wrong usage, of `evaluate` and of what surrounds the commands: each is followed to its end."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from liverjax.commands.dispatch import COMMANDS, main
from liverjax.config import load_config, override, resolve
from liverjax.errors import ConfigError, InputError
from liverjax.files import local_path
from liverjax.scans import nifti
from liverjax.scoring import cohort
from liverjax.volume import Volume


def test_a_mistyped_command_is_the_one_that_is_meant(capsys):
    for name in COMMANDS:
        assert main([name[:-1] + "#"]) == 2
        meant = re.search(r"did you mean '([\w-]+)'\?; see 'liverjax --help'\n$", capsys.readouterr().err)
        assert meant and meant[1] == name
        assert main([meant[1], "--help"]) == 0
    assert main(["--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "bench", "models")])
def test_the_help_that_wrong_usage_names_lists_the_flags_that_are_required(name, capsys):
    assert main([name]) == 2
    error = capsys.readouterr().err
    required = re.findall(r"--(\w+)", error.partition(";")[0])
    assert error.endswith(f"see 'liverjax {name} --help'\n") and required
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for flag in required:
        (line,) = (line for line in lines if re.match(rf"  --{flag}[:,]", line))
        assert "required" in line


def test_fields_and_configs_are_named_as_they_are_called(capsys):
    with pytest.raises(ConfigError, match="no config is called 'demoo'; did you mean 'demo'"):
        load_config("demoo")
    config = resolve(load_config("demo"))
    for wrong, right in (
        ("train.setps=3", "train.steps=3"),
        ("model=3", "model.dropout=0.2"),
        ("train.steps", "train.steps=3"),
        ("predict.fusion=maximum", "predict.fusion=majority"),
        ("train.steps=many", "train.steps=30"),
    ):
        with pytest.raises(ConfigError, match="did you mean|expected|not of the form"):
            override(config, [wrong])
        assert override(config, [right]) != config
    # `liverjax config NAME` lists them.
    assert main(["config", "demo"]) == 0
    assert "train.steps = " in capsys.readouterr().out


def test_an_address_is_mounted_and_its_folder_named(tmp_path):
    for address, remedy in (
        ("gs://bucket/run", r"mount the bucket \(gcsfuse\) and name its folder"),
        ("s3://bucket/run", "mount it, or copy it here"),
    ):
        with pytest.raises(InputError, match=f"--workdir: {address} is an address, .*; {remedy}"):
            local_path(address, "--workdir")
    (tmp_path / "bucket" / "run").mkdir(parents=True)
    assert local_path(tmp_path / "bucket" / "run", "--workdir").is_dir()


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", "JAX_TRANSFER_GUARD"])
def test_an_environment_that_jax_cannot_use_is_changed_as_the_message_says(user_environment, variable):
    words = [sys.executable, "-m", "liverjax", "bench", "--config=demo", "--steps=2", "--quiet"]
    words += ["--config.model.features=4,8", "--config.batch.size=2", "--config.batch.patch=32,32"]
    value = {"JAX_PLATFORMS": "cuda", "JAX_TRANSFER_GUARD": "disallow"}[variable]
    environment = {**user_environment, variable: value}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    told = done.stderr.splitlines()[-1]
    if variable == "JAX_PLATFORMS":
        found = re.search(r"this machine has .*; expected JAX_PLATFORMS=(\w+), or none$", told)
        assert found
        environment[variable] = found[1]
    else:
        assert told.endswith("under which liverjax cannot run, expected it to be unset")
        del environment[variable]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# --- evaluate -----------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of two cases, which are equal."""
    for folder in ("p", "r"):
        for case in ("x", "y"):
            voxels = np.zeros((6, 6, 6), np.uint8)
            voxels[1:5, 1:5, 1:5], voxels[2:4, 2:4, 2:4] = 1, 2
            (tmp_path / folder).mkdir(exist_ok=True)
            nifti.write(tmp_path / folder / f"{case}.nii", Volume(voxels, np.diag([2.0, 2, 2, 1])))
    return tmp_path / "p", tmp_path / "r"


@pytest.fixture
def evaluate(folders, tmp_path, capsys):
    """Function from flags to the exit status of `evaluate` and what it printed as errors."""

    def call(*flags, output="out"):
        words = [f"--predictions={folders[0]}", f"--references={folders[1]}", f"-o={tmp_path / output}"]
        status = main(["evaluate", *words, "--quiet", *flags])
        return status, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("wrong", "message", "right"),
    [
        ("--metrics=msd", "expected 'hausdorff' .* or 'assd'", "--metrics=hausdorff,assd"),
        ("--metrics=dise", "did you mean 'dice'", "--metrics=dice"),
        ("--regions=lever", "did you mean 'liver'", "--regions=liver"),
        ("--cases=z", "no reference in .* for 1 case: z", "--cases=x"),
    ],
)
def test_a_choice_of_scores_is_corrected_as_the_message_says(evaluate, wrong, message, right):
    status, error = evaluate(wrong)
    assert status == 1 and re.search(message, error)
    assert evaluate(right) == (0, "")


def test_the_primary_metric_is_one_that_is_computed(evaluate, folders):
    compare = f"--compare={folders[1]}"
    status, error = evaluate("--metrics=assd", compare)
    found = re.search(r"primary metric 'dice' is not among those computed; expected one of (\w+)\n", error)
    assert status == 1 and found
    assert evaluate("--metrics=assd", compare, f"--primary={found[1]}") == (0, "")


def test_a_missing_prediction_has_two_ways_on(evaluate, folders):
    (folders[0] / "y.nii").unlink()
    status, error = evaluate()
    assert status == 1 and "(--allow_missing scores them as empty, --cases chooses some)" in error
    assert evaluate("--allow_missing") == (0, "")
    assert evaluate("--cases=x") == (0, "")


def test_a_subset_needs_the_run_that_names_its_cases(evaluate, folders, tiny_run):
    for flags in ((), (f"--model={tiny_run}", "--cases=x")):
        status, error = evaluate("--subset=test", *flags)
        assert status == 1 and "expected --model=RUN, whose split names the cases" in error
    for case, id in zip(
        ("x", "y"), json.loads((tiny_run / "run.json").read_text())["data"]["test"], strict=True
    ):
        for folder in folders:
            (folder / f"{case}.nii").rename(folder / f"{id}.nii")
    assert evaluate("--subset=test", f"--model={tiny_run}") == (0, "")


def test_results_of_another_program_and_two_masks_of_a_case_are_put_apart(evaluate, folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    status, error = evaluate()
    assert status == 1 and error.endswith("expected a folder without; choose another one\n")
    assert evaluate(output="another") == (0, "")
    shutil.copy(folders[0] / "x.nii", folders[0] / "x.nii.gz.nii")
    (folders[0] / "x.nii.gz.nii").rename(folders[0] / "x.NII")
    status, error = evaluate(output="third")
    assert status == 1 and "x" in error
    (folders[0] / "x.NII").unlink()
    assert evaluate(output="third") == (0, "")


def test_scores_take_as_many_processes_as_the_memory_allows(folders):
    """Two that die, in tests/scoring, are told so: fewer --processes, of which one is the program itself."""
    for processes in (2, 1):
        found = cohort.evaluate(*folders, metrics=["dice"], processes=processes, quiet=True)
        assert [row["dice"] for row in found.cases] == [1] * 4


# --- bench: the output is looked at first ---------------------------------------------------------------------


def test_figures_that_cannot_be_written_are_found_out_before_the_measuring(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    # A store that is not there would be found out next.
    words = ["bench", "--config=demo", f"--store={tmp_path / 'nowhere'}", "-o"]
    for place, reason in (("file/bench.json", "cannot be written"), ("folder", "is a folder")):
        assert main([*words, str(tmp_path / place)]) == 1
        assert re.search(rf"--output: {tmp_path}/{place} {reason}, expected .*\n$", capsys.readouterr().err)
    assert main([*words, str(tmp_path / "new" / "bench.json")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
