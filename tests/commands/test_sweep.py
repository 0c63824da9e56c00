"""The sweep as it is typed: from scans to the table, stopped on the way and started again; and what fails."""

import collections
import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from liverjax.commands import dispatch
from liverjax.planning import read_volume_errors
from liverjax.training.logs import read_log

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = """
from liverjax.config import load_config

def get_config(arg=""):
    config = load_config("demo")
    config.target.labels = ("background", "liver")
    config.views = ("axial",)
    config.preprocess.spacing = (8.0, 8.0, 8.0)
    config.batch.size = 4
    config.batch.patch = (48, 48)
    config.batch.tumor_share = 0.0
    config.model.features = (4, 8)
    config.train.steps = 30
    config.train.save_every = 10
    config.train.validate_every = 30
    config.train.log_every = 1
    config.train.validation_slices = 8
    return config
"""
ABLATIONS = '''
def rate(config):
    """Learning rates."""
    yield "slow", ("train.learning_rate=0.003",)
    yield "fast", ("train.learning_rate=0.03",)

def broken(config):
    """A batch that two devices cannot share."""
    yield "good", ("train.learning_rate=0.003",)
    yield "bad", ("batch.size=3",)

def twice(config):
    """Two rates of one name."""
    yield "same", ("train.learning_rate=0.003",)
    yield "same", ("train.learning_rate=0.03",)

def single(config):
    """A forgotten comma."""
    yield "one", ("train.steps=5")

def faulty(config):
    yield "half", (f"train.steps={config.trian.steps // 2}",)
'''


@pytest.fixture(scope="module")
def words(phantom_scans, tmp_path_factory):
    """The command line, without ablation and work folder, and the folder of its files."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.py").write_text(CONFIG, encoding="utf-8")
    (folder / "own.py").write_text(ABLATIONS, encoding="utf-8")
    program = [sys.executable, "-m", "liverjax.commands.dispatch", "sweep"]
    return [*program, f"--config={folder / 'tiny.py'}", f"--dataset={phantom_scans}", "--seeds=2"], folder


def _run(command, *more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *more], capture_output=True, text=True, env=environment)


def _started(work):
    """Returns every command that was started, from the logs."""
    return [
        line for log in work.rglob("*.log") for line in log.read_text().splitlines() if line.startswith("$ ")
    ]


def _steps(run):
    """Returns the steps of a training, in the order in which they were made."""
    log = run / "axial" / "log.jsonl"
    return [record["step"] for record in read_log(log) if "loss" in record]


def _wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "the sweep was to be stopped on its way"
        time.sleep(0.05)


def test_two_variants_with_two_seeds_stopped_on_the_way_and_started_again(words):
    command, folder = words
    work = folder / "work"
    command = [*command, f"--ablation={folder / 'own.py'}:rate", f"--workdir={work}", "--jobs=2"]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **settings)
    _wait_for(lambda: any(len(_steps(run)) > 4 for run in work.glob("runs/*")), process)
    process.send_signal(signal.SIGTERM)
    printed, error = process.communicate(timeout=300)
    assert process.returncode == 75, printed + error
    assert "SIGTERM: stopping the running commands" in printed
    assert "SIGTERM; the same command resumes" in error
    assert any(len(_steps(run)) < 30 for run in work.glob("runs/*"))
    done = {note: note.stat().st_mtime_ns for note in work.rglob("*.done.json")}
    assert not (work / "ablations").exists()

    again = _run(command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {note: note.stat().st_mtime_ns for note in done} == done
    started = _started(work)
    assert collections.Counter(line.split()[2] for line in set(started)) == {
        "prepare": 1,
        "train": 4,
        "predict": 4,
        "evaluate": 4,
    }
    # What was stopped was started once more and resumed: no step was made twice.
    repeated = [line for line in set(started) if started.count(line) > 1]
    assert 1 <= len(repeated) <= 2 and len(started) == 13 + len(repeated)
    assert {line.split()[2] for line in repeated} == {"train"}
    for run in work.glob("runs/*"):
        assert _steps(run) == list(range(1, 31))

    results = work / "ablations" / "rate"
    with open(results / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["trials"], row["patients"]) for row in rows] == [
        ("slow", "2", "2"),
        ("fast", "2", "2"),
    ]
    assert "| slow |" in (results / "table.md").read_text() and (results / "liver.png").exists()
    assert (results / "report.html").stat().st_size > 10_000

    # The held-out predictions of the first variant say how far its volumes are from the truth.
    errors = read_volume_errors([results])
    assert len(errors.logs["liver"]) == 2 and errors.sources[0].endswith("scores/dice/cases.csv")
    assert set(read_volume_errors([f"{results}:fast"]).sources).isdisjoint(errors.sources)

    # Nothing is left; of another ablation neither is what it has in common with this one.
    left = _run(command, "--dry_run")
    assert (left.returncode, left.stdout.strip()) == (0, "") and "0 of 13 commands are left" in left.stderr
    other = [*command, f"--ablation={folder / 'own.py'}:broken"]
    assert "6 of 13 commands are left" in _run(other, "--dry_run").stderr


@pytest.mark.slow
def test_after_a_kill_the_next_sweep_waits_for_the_training_that_goes_on(words, tmp_path):
    command, folder = words
    command = [*command, f"--ablation={folder / 'own.py'}:rate", f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    _wait_for(lambda: list(tmp_path.glob("runs/*/axial")), process)
    process.kill()
    process.wait()
    again = _run(command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "waiting: another command is running in" in again.stdout
    for run in tmp_path.glob("runs/*"):
        assert _steps(run) == list(range(1, 31))


@pytest.mark.slow
def test_after_a_failure_the_others_go_on_and_it_is_said(words, tmp_path):
    command, folder = words
    command = [*command, f"--ablation={folder / 'own.py'}:broken", f"--workdir={tmp_path}"]
    done = _run(command)
    assert done.returncode == 1
    assert "FAILED: train bad (fold 0, seed 0): batch.size is 3" in done.stdout
    assert done.stderr.count("liverjax: error: exit status 1 of: liverjax train") == 2
    report = (tmp_path / "ablations" / "broken" / "report.html").read_text(encoding="utf-8")
    assert "NOT COMPLETE: 2 of 4 trials are not scored" in report


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ablation=nrm", "no ablation is called 'nrm'; did you mean 'norm'?"),
        ("--config.train.step=4", "the config has no field 'train.step'; did you mean 'steps'?"),
        ("--config.model.norm=grup", "model.norm is 'grup'; did you mean 'group'?"),
        ("--config.predict.fusion=weighted", "expected 'mean' or 'majority'"),
        ("--folds=0,x", "split.fold is 'x', expected int"),
        ("--folds=7", "split.fold is 7, expected -1 to 3"),
        ("--folds=-1", "no case is held out"),
        ("--task=4", "task is '4', expected stores, table, or 0 to 3"),
        ("--metric=dize", "metric 'dize' does not exist; did you mean 'dice'?"),
        ("--ablation={own}:twice", "the ablation 'twice' yields two variants called 'same'"),
        (
            "--ablation={own}:single",
            "yields 'train.steps=5' for 'one', expected a list of overrides",
        ),
        ("--ablation={own}:faulty", "own.py:22: AttributeError: 'Config' object has no attribute 'trian'"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_starts(words, tmp_path, flag, message, capsys):
    command, folder = words
    flags = [f"--ablation={folder / 'own.py'}:rate", f"--workdir={tmp_path / 'work'}"]
    flags.append(flag.format(own=folder / "own.py"))
    assert dispatch.main([*command[3:], *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("liverjax: error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "work" / "stores").exists()


def test_slurm_jobs_depend_on_each_other(words, tmp_path):
    """With an `sbatch` that notes what it is given: a job for the stores, an array, and the table after both."""
    command, folder = words
    (tmp_path / "sbatch").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nwc -l < {tmp_path}/calls\n')
    (tmp_path / "sbatch").chmod(0o755)
    command = [*command, f"--ablation={folder / 'own.py'}:rate", f"--workdir={tmp_path / 'work'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    submit = [*command, "--slurm=--partition=gpu --time=1:00:00"]
    done = subprocess.run(submit, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 trainings are left; the table is job 3" in done.stdout
    stores, array, table = (tmp_path / "calls").read_text().splitlines()
    script = str(tmp_path / "work" / "ablations" / "rate" / "slurm" / "job.sh")
    assert stores.endswith(f"{script} stores") and "--partition=gpu --time=1:00:00" in stores
    assert "--array=0,1,2,3 --dependency=afterok:1" in array and array.rstrip().endswith(script)
    assert "--dependency=afterany:2" in table and table.endswith(f"{script} table")

    # The job itself: what is stopped by a signal is queued again.
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment["SLURM_JOB_ID"] = "17"
    # The last task of an array has the number of the whole array.
    task = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}
    job = subprocess.Popen(["bash", script], env=environment | task)
    _wait_for(lambda: list(tmp_path.glob("work/stores/*/prepare.log")), job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=300) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 17_2\n"
    assert not (tmp_path / "work" / "runs").exists()
    (tmp_path / "requeued").unlink()
    subprocess.run(["bash", script, "stores"], env=environment, check=True)
    assert list(tmp_path.glob("work/stores/*/index.json")) and not (tmp_path / "requeued").exists()
