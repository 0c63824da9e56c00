"""Training runs: resumption bit for bit, refusals, and what is left behind."""

import dataclasses
import json
import os
import shutil
import time

import jax
import numpy as np
import pytest

from liverjax import __version__
from liverjax.data.store import open_store
from liverjax.errors import CheckpointError, ConfigError, InputError, LockedError, TrainingError
from liverjax.files import locked
from liverjax.pretrained.load import load_model
from liverjax.training.logs import read_log
from liverjax.training.loop import train
from liverjax.training.optim import learning_rate


def _one_view(config, **train_options):
    options = dataclasses.replace(config.train, **train_options)
    return dataclasses.replace(config, views=("axial",), train=options)


@pytest.fixture(scope="module")
def uninterrupted(tiny_config, tmp_path_factory):
    config = _one_view(tiny_config)
    workdir = tmp_path_factory.mktemp("uninterrupted")
    progress = train(config, workdir, quiet=True)["axial"]
    return config, workdir, progress


def test_a_run_leaves_manifest_log_and_checkpoints(uninterrupted):
    config, workdir, progress = uninterrupted
    manifest = json.loads((workdir / "run.json").read_text())
    store_ids = [case.id for case in open_store(config.store, config.preprocess, config.target).cases]
    data = manifest["data"]
    assert sorted(data["train"] + data["validation"] + data["test"]) == store_ids
    assert data["test"] == ["phantom_000", "phantom_004"]
    assert manifest["versions"]["jax"] == jax.__version__
    steps = [record["step"] for record in read_log(workdir / "axial" / "log.jsonl") if "loss" in record]
    assert steps == [1, 2, 3, 4]
    assert progress.finished and progress.end_step == 4 and 0 <= progress.best_dice <= 1
    assert sorted(int(p.name) for p in (workdir / "axial" / "last").iterdir()) == [2, 4]
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert f"axial, step {progress.best_step} (chosen)" in report and "Does the loss fall?" in report


def test_two_and_two_steps_equal_four(uninterrupted, final_state, assert_same_bits, tmp_path):
    config, workdir, _ = uninterrupted
    halfway = tmp_path / "run"
    shutil.copytree(workdir, halfway)
    shutil.rmtree(halfway / "axial" / "last" / "4")
    train(config, halfway, quiet=True)
    assert_same_bits(final_state(config, halfway), final_state(config, workdir))
    losses = [
        {r["step"]: r["loss"] for r in read_log(w / "axial" / "log.jsonl") if "loss" in r}
        for w in (halfway, workdir)
    ]
    assert losses[0] == losses[1]


def test_another_seed_gives_other_parameters(uninterrupted, final_state, tmp_path):
    config, workdir, _ = uninterrupted
    train(dataclasses.replace(config, seed=1), tmp_path / "run", quiet=True)
    state, other = final_state(config, workdir)[1], final_state(config, tmp_path / "run")[1]
    assert any(not np.array_equal(a, b) for a, b in zip(state, other, strict=True))


def test_a_finished_run_is_left_alone(uninterrupted):
    config, workdir, progress = uninterrupted
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


def test_a_damaged_checkpoint_is_passed_over_and_made_again(
    uninterrupted, final_state, assert_same_bits, tmp_path, caplog
):
    config, workdir, _ = uninterrupted
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    arrays = max(
        (damaged / "axial" / "last" / "4").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
    )
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    train(config, damaged, quiet=True)
    assert "checkpoint of step 4 is not used" in caplog.text and arrays.name in caplog.text
    assert_same_bits(final_state(config, damaged), final_state(config, workdir))


def test_a_run_of_another_config_is_refused_by_field_and_value(uninterrupted):
    config, workdir, _ = uninterrupted
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.3))
    with pytest.raises(
        CheckpointError, match=r"differs in: model.dropout 0.1, now 0.3; choose another --workdir"
    ):
        train(other, workdir, quiet=True)


def test_views_can_be_trained_by_separate_calls(uninterrupted, tmp_path):
    config, workdir, _ = uninterrupted
    shutil.copytree(workdir, tmp_path / "run")
    train(dataclasses.replace(config, views=("sagittal",)), tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["views"] == ["axial", "sagittal"]
    assert set(load_model(tmp_path / "run").config.views) == {"axial", "sagittal"}


def test_a_store_of_another_grid_is_refused(tiny_config, tmp_path):
    other = dataclasses.replace(tiny_config.preprocess, spacing=(4.0, 4.0, 4.0))
    with pytest.raises(ConfigError, match=r"preprocess.spacing \(8.0, 8.0, 8.0\), now \(4.0, 4.0, 4.0\)"):
        train(dataclasses.replace(tiny_config, preprocess=other), tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tiny_config, tmp_path):
    odd = dataclasses.replace(tiny_config, batch=dataclasses.replace(tiny_config.batch, size=3))
    with pytest.raises(
        ConfigError, match=rf"batch.size is 3, expected a multiple of the {jax.device_count()} devices"
    ):
        train(odd, tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tiny_config, tmp_path):
    # A step of this size overflows float32 in the next forward pass.
    config = _one_view(tiny_config, learning_rate=1e38, warmup_steps=0, validate_every=100, save_every=1)
    with pytest.raises(TrainingError, match=r"axial: loss .* at step [23], expected finite values"):
        train(config, tmp_path, quiet=True)


@pytest.mark.parametrize("keep", [0, 2])
def test_a_lower_rate_goes_on_after_a_checkpoint_that_gives_no_finite_loss(uninterrupted, tmp_path, keep):
    config, workdir, _ = uninterrupted
    if keep:  # Two steps as they should be; else the first checkpoint of all is the one that has to go.
        shutil.copytree(workdir, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "axial" / "last" / "4")
    harsh = _one_view(config, steps=8, learning_rate=1e38, warmup_steps=0, validate_every=100, save_every=1)
    kept = f"that of step {keep} is kept" if keep else "no checkpoint is left, training starts anew"
    told = rf"at step {keep + 2}, expected finite values; the checkpoint of step {keep + 1} gave it and was removed"
    with pytest.raises(TrainingError, match=f"{told}, {kept}.*lower train.learning_rate .* --resume=force"):
        train(harsh, tmp_path / "run", resume="force", quiet=True)
    gentle = dataclasses.replace(harsh, train=dataclasses.replace(harsh.train, learning_rate=1e-3))
    progress = train(gentle, tmp_path / "run", resume="force", quiet=True)["axial"]
    assert progress.finished and progress.step == 8


def test_parameters_that_are_not_finite_are_not_kept(uninterrupted, tmp_path):
    config, _, _ = uninterrupted
    # The step itself overflows: its loss and gradient are still finite.
    harsh = _one_view(config, learning_rate=3e38, warmup_steps=0, optimizer="sgd", clip_norm=0.0, steps=1)
    harsh = dataclasses.replace(harsh, loss=dataclasses.replace(harsh.loss, dice=100.0))
    with pytest.raises(
        TrainingError, match=r"parameters that are not finite after step 1.* no checkpoint is left"
    ):
        train(harsh, tmp_path, quiet=True)
    assert not list(tmp_path.glob("axial/*/1"))
    skip = dataclasses.replace(harsh, train=dataclasses.replace(harsh.train, on_nonfinite="skip"))
    assert train(skip, tmp_path, resume="force", quiet=True)["axial"].skipped == 1


def test_a_forced_resume_whose_checkpoints_do_not_fit_changes_nothing(tiny_run, tiny_config, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("[!.]*") if path.is_file()}
    wider = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, features=(4, 12)))
    # Of one view only, which has no checkpoint yet: the others are those of the same run.
    shutil.rmtree(run / "axial")
    for views in (("axial",), ("coronal",), tiny_config.views):
        with pytest.raises(
            CheckpointError, match=r"holds another network than the config.*nothing was changed"
        ):
            train(dataclasses.replace(wider, views=views), run, resume="force", quiet=True)
    shutil.copytree(tiny_run / "axial", run / "axial")
    assert {path: path.read_bytes() for path in run.rglob("[!.]*") if path.is_file()} == before
    assert load_model(run).config.model.features == (4, 8)
    assert all(progress.finished for progress in train(tiny_config, run, quiet=True).values())
    # The remedy of the message: what fits is taken.
    start = {"axial": load_model(run).trained("axial")[1]}
    one = dataclasses.replace(wider, views=("axial",))
    assert train(one, tmp_path / "other", init=start, quiet=True)["axial"].finished


def test_a_run_that_cannot_start_leaves_its_folder_for_a_better_config(tiny_config, tmp_path):
    labels = dataclasses.replace(tiny_config.target, labels=("background", "liver"))
    batch = dataclasses.replace(tiny_config.batch, empty_share=0.5, liver_share=0.25, tumor_share=0.0)
    config = dataclasses.replace(_one_view(tiny_config, steps=1), target=labels, batch=batch)
    store = shutil.copytree(tiny_config.store, tmp_path / "store")
    # No slice without liver is left; each view has the same number of pixels.
    for path in store.glob("cases/*/case.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        sizes = {view: len(rows) for view, rows in facts["counts"].items()}
        facts["counts"] = {view: [[100 - n + 1, 0]] + [[1, 0]] * (n - 1) for view, n in sizes.items()}
        path.write_text(json.dumps(facts), encoding="utf-8")
    config = dataclasses.replace(config, store=str(store))
    with pytest.raises(
        InputError, match=r"no training case has a slice without liver, but batch.empty_share is 0.5"
    ):
        train(config, tmp_path / "run", quiet=True)
    better = dataclasses.replace(config, batch=dataclasses.replace(batch, empty_share=0.0))
    assert train(better, tmp_path / "run", quiet=True)["axial"].finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"loss": {"focal": 1.0}}}, r"the config has no field 'loss.focal'"),
        ({"config": 5}, "the config is 5, expected a group of fields"),
        (
            {"config": {"batch": {"patch": [65536, 65536]}}},
            r"batch.patch is \(65536, 65536\), expected rows and",
        ),
        ({"data": {"train": []}}, "data.validation is None, expected a list of case ids"),
        ({"data": []}, r"data is \[\], expected a group of fields"),
    ],
)
def test_a_manifest_of_another_version_is_named_with_field_and_versions(tiny_run, tmp_path, change, message):
    facts = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))
    facts["versions"]["liverjax"] = "9.8"
    (tmp_path / "run.json").write_text(json.dumps({**facts, **change}), encoding="utf-8")
    told = rf"run.json was written by liverjax 9.8, this is {__version__}: .*{message}"
    with pytest.raises(CheckpointError, match=told):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"format": "x", "versions": {}}', "\x00"])
def test_a_manifest_that_is_none_is_told_in_a_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"run.json: not the manifest of a run") as caught:
        load_model(tmp_path)
    assert len(str(caught.value)) < 400


def test_an_address_is_no_folder(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"workdir: gs://bucket/.* is an address, expected a file or folder"):
        train(tiny_config, "gs://bucket/run", quiet=True)
    assert not list(tmp_path.iterdir())


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted(tiny_config, final_state, tmp_path):
    config = _one_view(
        tiny_config, learning_rate=1e38, warmup_steps=0, validate_every=100, on_nonfinite="skip"
    )
    progress = train(config, tmp_path, quiet=True)["axial"]
    counts = [r["skipped_steps"] for r in read_log(tmp_path / "axial" / "log.jsonl") if "skipped_steps" in r]
    assert progress.finished and progress.skipped == counts[-1] >= 2
    _, state = final_state(config, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in state)


def test_a_forced_resume_takes_the_new_config_and_records_it(uninterrupted, tmp_path, caplog):
    config, workdir, _ = uninterrupted
    shutil.copytree(workdir, tmp_path / "run")
    other = dataclasses.replace(_one_view(config, steps=6), loss=dataclasses.replace(config.loss, dice=0.5))
    progress = train(other, tmp_path / "run", resume="force", quiet=True)["axial"]
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["forced"] == ["loss.dice 1.0, now 0.5", "train.steps 4, now 6"]
    assert manifest["config"]["loss"]["dice"] == 0.5
    assert "its result belongs to no single config" in caplog.text
    assert "continues after its planned end, step 4" in caplog.text
    # It really goes on to the new end.
    assert (progress.step, progress.end_step, progress.finished) == (6, 6, True)
    assert [r["step"] for r in read_log(tmp_path / "run" / "axial" / "log.jsonl") if "loss" in r] == [
        *range(1, 7)
    ]


def test_more_minutes_continue_a_finished_run(tiny_config, tmp_path):
    config = _one_view(tiny_config, steps=10**6, validate_every=10**6, save_every=10**6)
    seconds = []
    for minutes in (0.05, 0.05, 0.1):
        progress = train(dataclasses.replace(config, max_minutes=minutes), tmp_path, quiet=True)["axial"]
        seconds.append(progress.seconds)
        assert progress.finished
    assert seconds[1] == seconds[0] < seconds[2]


def test_a_limit_shorter_than_the_first_log_line_is_kept_and_the_rate_falls(tiny_config, tmp_path):
    config = _one_view(tiny_config, steps=10**6, validate_every=10**6, save_every=10**6, log_every=10**5)
    config = dataclasses.replace(config, max_minutes=0.1)
    start = time.monotonic()
    progress = train(config, tmp_path, quiet=True)["axial"]
    assert progress.finished and time.monotonic() - start < 40
    assert (
        learning_rate(config.train, progress.step - 1, progress.end_step) < 0.2 * config.train.learning_rate
    )


def test_a_second_process_in_the_same_folder_is_refused(uninterrupted):
    config, workdir, _ = uninterrupted
    with locked(workdir / ".lock"), pytest.raises(LockedError, match=str(os.getpid())):
        train(config, workdir, quiet=True)


def test_a_run_of_a_newer_version_is_refused(uninterrupted, tmp_path):
    config, workdir, _ = uninterrupted
    shutil.copytree(workdir, tmp_path / "run")
    manifest = json.loads((workdir / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match=r"run.json: format 2, expected at most 1: .* newer liverjax"):
        train(config, tmp_path / "run", quiet=True)


def test_training_starts_from_a_model(uninterrupted, tiny_run, final_state, tmp_path, capsys):
    config, _, _ = uninterrupted
    # A rate of 0 leaves the parameters as they came, so that they can be compared.
    still = _one_view(config, steps=1, learning_rate=1e-30, save_every=1)
    variables = load_model(tiny_run).trained("axial")[1]
    train(still, tmp_path / "run", init={"axial": variables}, quiet=True)
    _, arrays = final_state(still, tmp_path / "run")
    trained = {leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(variables["params"]))}
    assert trained <= {array.tobytes() for array in arrays}
    assert set(json.loads((tmp_path / "run" / "run.json").read_text())["init"]) == {"axial"}
    other = jax.tree.map(lambda a: a + 1, variables)
    with pytest.raises(CheckpointError, match=r"the networks that it started from \(init\)"):
        train(still, tmp_path / "run", init={"axial": other}, quiet=True)


def test_another_environment_is_logged_at_resume(uninterrupted, tmp_path, caplog):
    config, workdir, _ = uninterrupted
    shutil.copytree(workdir, tmp_path / "run")
    manifest = json.loads((workdir / "run.json").read_text())
    manifest["versions"]["jax"] = "0.1"
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    train(config, tmp_path / "run", quiet=True)
    assert f"jax 0.1, now {jax.__version__}" in caplog.text and "not the uninterrupted run's" in caplog.text


def test_patience_ends_a_run_that_does_not_gain(tiny_config, tmp_path):
    config = _one_view(tiny_config, steps=50, validate_every=1, save_every=50, patience=3, min_delta=1.0)
    progress = train(config, tmp_path, quiet=True)["axial"]
    # The first look is a gain over none; no later Dice can be 1 above it.
    assert progress.finished and progress.end_step == 50 and progress.evaluations_without_improvement == 3
    assert read_log(tmp_path / "axial" / "log.jsonl")[-1]["step"] == 4


def test_a_time_limit_ends_a_run_and_its_rate_falls_before(tiny_config, tmp_path):
    config = dataclasses.replace(
        _one_view(tiny_config, steps=10**6, validate_every=10**6, save_every=10**6), max_minutes=0.15
    )
    start = time.monotonic()
    progress = train(config, tmp_path, quiet=True)["axial"]
    assert progress.finished and progress.seconds < time.monotonic() - start < 60
    rates = [r["learning_rate"] for r in read_log(tmp_path / "axial" / "log.jsonl") if "learning_rate" in r]
    assert max(rates) == pytest.approx(config.train.learning_rate)
    assert rates[-1] < 0.5 * max(rates)  # On a busy machine the pace is foretold only roughly.


def test_doubtful_cases_of_a_store_are_said_once(tiny_config, tmp_path, caplog):
    store = shutil.copytree(tiny_config.store, tmp_path / "store")
    path = store / "cases" / "phantom_003" / "case.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, "doubts": ["values from 0 to 1"]}), encoding="utf-8")
    config = dataclasses.replace(_one_view(tiny_config, steps=1), store=str(store))
    train(config, tmp_path / "run", quiet=True)
    said = "1 of the store's 8 cases are doubtful, the first phantom_003: values from 0 to 1"
    assert [record.getMessage() for record in caplog.records if "doubtful" in record.getMessage()] == [said]
