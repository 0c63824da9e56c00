"""Several restarts of a view: which continue, with whose bits, and what a kill leaves."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import liverjax
from liverjax.checkpoint.restarts import Selection, kept_folders, read_selections, write_selections
from liverjax.checkpoint.runs import Checkpoints
from liverjax.errors import CheckpointError, ConfigError
from liverjax.options import Config, Train
from liverjax.training.distributed import data_mesh, replicated
from liverjax.training.logs import read_log
from liverjax.training.loop import train
from liverjax.training.monitor import Progress
from liverjax.training.restarts import comparisons, ranked, restart_seed, train_restarts
from liverjax.training.step import init_state, step_spec


def test_halves_are_kept_by_hand():
    sixteen = Train(restarts=16, steps=50_000)
    assert comparisons(sixteen) == [
        (5_000, 16, 8),
        (10_000, 8, 4),
        (20_000, 4, 2),
        (40_000, 2, 1),
        (50_000, 1, 1),
    ]
    # Odd halves are rounded up, and what would be compared after the last step never is.
    assert comparisons(Train(restarts=5, steps=10_000)) == [(5_000, 5, 3), (10_000, 3, 2)]
    assert comparisons(Train(restarts=4, steps=3_000)) == [(3_000, 4, 4)]


def test_the_best_come_first_and_of_equal_ones_the_first():
    assert ranked({0: 0.5, 1: 0.7, 2: 0.5, 3: 0.9}) == [3, 1, 0, 2]


def test_seeds_differ_between_restarts_and_runs_and_the_first_has_the_runs_own():
    assert [restart_seed(seed, 0) for seed in (0, 1, 7)] == [0, 1, 7]
    seeds = {restart_seed(seed, restart) for seed in range(20) for restart in range(1, 17)}
    assert len(seeds) == 20 * 16 and all(Config(seed=seed) for seed in seeds)


def test_the_better_half_is_trained_on_and_the_best_is_told(tmp_path):
    # Dice of restarts 0 to 3 after 2, 4 and 6 steps, where they come so far. At 2, restarts 0 and 3 tie for second.
    dice = {2: [0.5, 0.6, 0.1, 0.5], 4: [0.8, 0.7], 6: [0.9]}
    trained = []

    def train_one(restart, step):
        trained.append((restart, step))
        return Progress(steps=6, max_minutes=0, end_step=6, best_dice=dice[step][restart])

    lines = []
    options = Train(restarts=4, steps=6, validate_every=2, halving_steps=(2, 4))
    best = train_restarts(tmp_path, options, train_one, lines.append)
    assert trained == [(0, 2), (1, 2), (2, 2), (3, 2), (0, 4), (1, 4), (0, 6), (0, 6)]
    assert best.best_dice == 0.9
    kept = [selection.kept for selection in read_selections(tmp_path)]
    assert kept == [(1, 0), (0,), (0,)] and kept_folders(tmp_path, 4) == [tmp_path / "restart_0"]
    assert lines[1].endswith("after 2 steps 2 of 4 restarts kept: 1 (0.600), 0 (0.500)")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"train.halving_steps is \(5, 7\), expected multiples .* \(2\)"):
        Train(restarts=2, validate_every=2, halving_steps=(5, 7))
    with pytest.raises(ConfigError, match="rising numbers of steps"):
        Train(halving_steps=(7, 5))
    with pytest.raises(ConfigError, match="train.restarts is 0, expected 1 or more"):
        Train(restarts=0)
    with pytest.raises(ConfigError, match="max_minutes is 5.0, expected 0 with train.restarts 2"):
        Config(max_minutes=5.0, train=Train(restarts=2))
    assert Config(max_minutes=5.0, train=Train(validate_every=7))


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"selections": [{}]}', '{"selections": [{"step": 2, "validation_dice": {}, "kept": [1]}]}'],
)
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "restarts.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"restarts\.json: damaged"):
        read_selections(tmp_path)


def _with_restarts(config, restarts, **train_options):
    options = dataclasses.replace(config.train, restarts=restarts, **train_options)
    return dataclasses.replace(config, views=("axial",), train=options)


def _state(config, folder, step=None):
    """Returns all arrays of a restart's newest checkpoint, or of that of a step."""
    template = init_state(step_spec(config), config.batch.patch, 0, replicated(data_mesh(config.batch.size)))
    if step is not None:
        copy = folder.parent / f"{folder.name}_until_{step}"
        (copy / "last").mkdir(parents=True)
        shutil.copytree(folder / "last" / str(step), copy / "last" / str(step))
        folder = copy
    with Checkpoints(folder / "last", keep=2) as checkpoints:
        _, state, _ = checkpoints.restore(template.arrays())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def _assert_same_bits(states, others):
    for one, other in zip(states, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def three(tiny_config, tmp_path_factory):
    """Three restarts of the axial view: two are kept after 2 steps, and both until the end after 4."""
    config = _with_restarts(tiny_config, 3, halving_steps=(2,), save_every=100)
    workdir = tmp_path_factory.mktemp("three")
    return config, workdir, train(config, workdir, quiet=True)["axial"]


def test_the_restarts_are_kept_that_their_logs_say_are_best(three):
    _, workdir, progress = three
    looks = {
        (restart, record["step"]): record["validation_dice"]
        for restart in range(3)
        for record in read_log(workdir / "axial" / f"restart_{restart}" / "log.jsonl")
        if "validation_dice" in record
    }
    first, last = read_selections(workdir / "axial")
    assert first.dice == {restart: looks[restart, 2] for restart in range(3)}
    kept = sorted(range(3), key=lambda restart: -looks[restart, 2])[:2]
    assert list(first.kept) == kept
    assert last.dice == {restart: max(looks[restart, 2], looks[restart, 4]) for restart in kept}
    assert {restart for restart, step in looks if step == 4} == set(kept) == set(last.kept)
    assert progress.best_dice == last.dice[last.kept[0]] == max(last.dice.values()) and progress.finished


def test_a_restart_has_the_bits_of_a_run_with_its_seed(three, tiny_run, tmp_path):
    config, workdir, _ = three
    kept = read_selections(workdir / "axial")[-1].kept
    other = max(
        kept
    )  # Not the first restart: two are kept. It was paused after 2 steps, the other run was not.
    seeded = dataclasses.replace(_with_restarts(config, 1, save_every=2), seed=restart_seed(0, other))
    train(seeded, tmp_path / "other", quiet=True)
    for restart, alone in ((0, tiny_run), (other, tmp_path / "other")):
        copy = shutil.copytree(alone / "axial", tmp_path / f"{restart}_alone")
        last = 4 if restart in kept else 2
        _assert_same_bits(
            _state(config, workdir / "axial" / f"restart_{restart}"), _state(config, copy, last)
        )


def test_a_finished_run_is_left_alone(three):
    config, workdir, progress = three
    before = {
        path: path.stat().st_mtime_ns
        for path in workdir.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert train(config, workdir, quiet=True)["axial"] == progress
    assert {
        path: path.stat().st_mtime_ns
        for path in workdir.rglob("*")
        if path.is_file() and path.name != ".lock"
    } == before


def test_a_record_of_other_halvings_is_refused(three, tmp_path):
    config, workdir, _ = three
    shutil.copytree(workdir, tmp_path / "run")
    other = _with_restarts(config, 3, halving_steps=(2, 4))
    with pytest.raises(CheckpointError, match=r"train.halving_steps \(2,\), now \(2, 4\)"):
        train(other, tmp_path / "run", quiet=True)
    with pytest.raises(CheckpointError, match=r"record of .* is \[\(2, 3, 2\), \(4, 2, 2\)\], the config's"):
        train(other, tmp_path / "run", resume="force", quiet=True)


def test_a_run_is_loaded_as_its_best_restarts(three, tmp_path):
    config, workdir, _ = three
    kept = read_selections(workdir / "axial")[-1].kept
    model = liverjax.load_model(workdir)
    best = model.with_options(ensemble="best")
    assert (model.networks.members, best.networks.members) == (2, 1)
    # The same as a run whose only restart is the best.
    run = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    run["config"]["train"]["restarts"] = 1
    shutil.copytree(workdir / "axial" / f"restart_{kept[0]}", tmp_path / "axial")
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    _assert_same_bits(
        *(jax.tree.leaves(one.networks.variables["axial"]) for one in (best, liverjax.load_model(tmp_path)))
    )

    # While a view is being trained there may be more of it; before the first comparison there is none.
    run["config"] |= {"train": dataclasses.asdict(config.train), "views": ["axial", "coronal"]}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    shutil.rmtree(tmp_path / "axial")
    for view in ("axial", "coronal"):
        shutil.copytree(workdir / "axial", tmp_path / view)
    write_selections(tmp_path / "axial", [Selection(2, {0: 0.1, 1: 0.2, 2: 0.3}, (2,))])
    assert liverjax.load_model(tmp_path).networks.members == 1
    (tmp_path / "axial" / "restarts.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"axial/restarts\.json does not exist: the 3 restarts were not"
    ):
        liverjax.load_model(tmp_path)


@pytest.fixture(scope="module")
def two_long(tiny_config, tmp_path_factory):
    """Two restarts of 40 steps, of which one is kept after 20."""
    config = _with_restarts(tiny_config, 2, steps=40, halving_steps=(20,), validate_every=20, save_every=5)
    workdir = tmp_path_factory.mktemp("two_long")
    train(config, workdir, quiet=True)
    return config, workdir


@pytest.mark.parametrize("signal_name", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_a_run_killed_in_its_second_restart_goes_on_to_the_same_bits(two_long, tmp_path, signal_name):
    config, whole = two_long
    (tmp_path / "tiny.py").write_text(_CONFIG_FILE.format(config=json.dumps(dataclasses.asdict(config))))
    killed = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "liverjax.commands.dispatch",
        "train",
        f"--config={tmp_path / 'tiny.py'}",
    ]
    command += [f"--store={config.store}", f"--workdir={killed}", "--quiet"]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    log = killed / "axial" / "restart_1" / "log.jsonl"
    while process.poll() is None and sum("loss" in record for record in read_log(log)) < 7:
        time.sleep(0.01)
    process.send_signal(getattr(signal, signal_name))
    _, stderr = process.communicate(timeout=60)
    if signal_name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75 and "of axial/restart_1; saved, the same command goes on" in stderr
    assert 7 <= max(record["step"] for record in read_log(log)) < 20, "it was to be killed on its way"
    assert not read_selections(killed / "axial")

    train(config, killed, quiet=True)
    assert read_selections(killed / "axial") == read_selections(whole / "axial")
    for restart in ("restart_0", "restart_1"):
        _assert_same_bits(*(_state(config, run / "axial" / restart) for run in (killed, whole)))


_CONFIG_FILE = """
import json
from liverjax.config import resolve, to_dict
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict(to_dict(resolve(json.loads('''{config}''')))).lock()
"""
