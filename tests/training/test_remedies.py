"""Remedies of training: each message's way out is followed, and the run ends as it should."""

import dataclasses
import json
import os
import shutil

import pytest

from liverjax.commands.dispatch import main
from liverjax.data.store import prepare
from liverjax.errors import CheckpointError, ConfigError, InputError, LockedError, TrainingError
from liverjax.files import locked
from liverjax.pretrained.load import load_model
from liverjax.training.distributed import data_mesh, initialize_distributed
from liverjax.training.loop import train


def _one_view(config, **train_options):
    options = dataclasses.replace(config.train, **train_options)
    return dataclasses.replace(config, views=("axial",), train=options)


@pytest.fixture
def typed(train_command):
    """Function from config, work folder and flags to the exit status of `liverjax train`, in this process."""
    return lambda config, workdir, *flags: main(train_command(config, workdir, *flags)[3:])


def test_another_network_starts_from_the_run_by_the_flag_that_is_named(
    tiny_run, tiny_config, tmp_path, typed, capsys
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    model = dataclasses.replace(tiny_config.model, features=(4, 12))
    wider = dataclasses.replace(_one_view(tiny_config, steps=1), model=model)
    assert typed(wider, run, "--resume=force") == 1
    error = capsys.readouterr().err
    assert f"A run in another --workdir with --init={run} starts from what fits" in error
    assert typed(wider, tmp_path / "other", f"--init={run}") == 0
    facts = json.loads((tmp_path / "other" / "run.json").read_text(encoding="utf-8"))
    assert set(facts["init"]) == {"axial"}
    # Which arrays did not fit is logged; the others are those of the run.
    assert "starts at random, for want of a match" in capsys.readouterr().err or facts["init"]["axial"]


def test_a_run_of_another_config_has_three_ways_on(tiny_config, tmp_path, typed, capsys):
    first = _one_view(tiny_config, steps=1, warmup_steps=0)
    other = dataclasses.replace(first, seed=1)
    assert typed(first, tmp_path / "run") == 0
    assert typed(other, tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert (
        "differs in: seed 0, now 1; choose another --workdir, the values of that run, or --resume=force"
        in error
    )
    assert typed(other, tmp_path / "another") == 0
    assert typed(first, tmp_path / "run") == 0
    assert typed(other, tmp_path / "run", "--resume=force") == 0
    with pytest.raises(ConfigError, match="resume is 'forse'; did you mean 'force'"):
        train(other, tmp_path / "run", resume="forse", quiet=True)
    assert train(other, tmp_path / "run", resume="force", quiet=True)["axial"].finished


@pytest.mark.parametrize("way", ["clip_norm", "learning_rate", "on_nonfinite"])
def test_a_loss_that_is_not_finite_is_answered_as_the_message_says(tiny_config, tmp_path, way):
    harsh = _one_view(
        tiny_config,
        optimizer="sgd",
        learning_rate=1e30,
        warmup_steps=0,
        clip_norm=0.0,
        validate_every=100,
        save_every=1,
    )
    with pytest.raises(
        TrainingError, match=r"loss .* at step 2, expected finite values.*training starts anew"
    ) as caught:
        train(harsh, tmp_path, quiet=True)
    told = str(caught.value)
    assert "A lower train.learning_rate or train.clip_norm with --resume=force may help" in told
    assert "if single batches cause it, train.on_nonfinite=skip" in told
    # Of gradients of length 1e-33 the same rate makes steps of a thousandth.
    value = {"clip_norm": 1e-33, "learning_rate": 1e-3, "on_nonfinite": "skip"}[way]
    options = dataclasses.replace(harsh.train, **{way: value})
    progress = train(dataclasses.replace(harsh, train=options), tmp_path, resume="force", quiet=True)["axial"]
    assert progress.finished and progress.step == 4
    assert bool(progress.skipped) == (way == "on_nonfinite")


def test_a_store_is_made_where_there_is_none(tiny_config, phantom_scans, tmp_path, typed, capsys):
    config = _one_view(tiny_config, steps=1, warmup_steps=0)
    with pytest.raises(
        ConfigError, match="store is empty, expected the folder that `liverjax prepare` wrote"
    ):
        train(dataclasses.replace(config, store=""), tmp_path / "run", quiet=True)
    config = dataclasses.replace(config, store=str(tmp_path / "store"))
    assert typed(config, tmp_path / "run") == 1
    assert "index.json does not exist; `liverjax prepare` makes a store" in capsys.readouterr().err
    words = [
        "prepare",
        "-i",
        str(phantom_scans),
        "-o",
        config.store,
        f"--config={tmp_path / 'tiny.py'}",
        "--quiet",
    ]
    assert main(words) == 0
    assert typed(config, tmp_path / "run") == 0


def test_a_store_of_another_grid_is_named_with_the_values_to_choose(tiny_config, phantom_scans, tmp_path):
    preprocess = dataclasses.replace(tiny_config.preprocess, spacing=(9.0, 9.0, 9.0))
    other = dataclasses.replace(_one_view(tiny_config, steps=1, warmup_steps=0), preprocess=preprocess)
    with pytest.raises(
        ConfigError, match=r"preprocess\.spacing \(8\.0, 8\.0, 8\.0\), now \(9\.0, 9\.0, 9\.0\)"
    ):
        train(other, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="holds a store of other values: .*; choose another folder"):
        prepare(phantom_scans, shutil.copytree(tiny_config.store, tmp_path / "copy"), other, quiet=True)
    prepare(phantom_scans, tmp_path / "another", other, quiet=True)
    other = dataclasses.replace(other, store=str(tmp_path / "another"))
    assert train(other, tmp_path / "run", quiet=True)["axial"].finished


def test_a_folder_in_use_is_free_once_the_other_has_ended(tiny_config, tmp_path):
    config = _one_view(tiny_config, steps=1, warmup_steps=0)
    with locked(tmp_path / ".lock"), pytest.raises(LockedError, match="wait until it ends, or end it"):
        train(config, tmp_path, quiet=True)
    assert train(config, tmp_path, quiet=True)["axial"].finished


def test_restarts_that_were_not_compared_are_trained_further(tiny_config, tmp_path):
    config = _one_view(tiny_config, restarts=2, steps=2, validate_every=2, save_every=2, warmup_steps=0)
    run = tmp_path / "run"
    train(config, run, quiet=True)
    record = (run / "axial" / "restarts.json").rename(tmp_path / "record.json")
    with pytest.raises(CheckpointError, match="the 2 restarts were not compared yet; train further"):
        load_model(run)
    train(config, run, quiet=True)
    assert load_model(run).networks.members == 2
    assert (run / "axial" / "restarts.json").read_bytes() == record.read_bytes()
    # A record of other comparisons.
    longer = _one_view(config, restarts=2, steps=4, halving_steps=(2,), validate_every=2, save_every=2)
    with pytest.raises(
        CheckpointError,
        match=r"axial/restarts\.json: its record of .*; choose another --workdir, or the values",
    ):
        train(longer, run, resume="force", quiet=True)
    assert train(longer, tmp_path / "another", quiet=True)["axial"].finished
    assert train(config, run, quiet=True)["axial"].finished


def test_a_batch_is_a_multiple_of_the_devices_and_parts(tiny_config, tmp_path):
    for size, accumulate, expected, sound in (
        (3, 1, "a multiple of the 2 devices", 2),
        (6, 2, r"a multiple of 2 devices times 2 parts \(train\.accumulate\)", 4),
    ):
        with pytest.raises(ConfigError, match=f"batch.size is {size}, expected {expected}"):
            data_mesh(size, accumulate)
        assert data_mesh(sound, accumulate).size == 2


def test_processes_are_named_by_whole_numbers_or_not_joined(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with (
        pytest.raises(ConfigError, match="JAX_NUM_PROCESSES is 'two', expected a whole number"),
        initialize_distributed(),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="distributed is 'of'; did you mean 'off'"),
        initialize_distributed("of"),
    ):
        pass
    with initialize_distributed("off"):
        assert os.environ["JAX_NUM_PROCESSES"] == "two"
