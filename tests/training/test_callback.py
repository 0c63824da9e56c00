"""Callbacks of training: what they are told, that they change nothing, and that what they raise ends a saved run."""

import dataclasses
import json
import os
import random
import signal
import threading

import jax
import numpy as np
import pytest

import liverjax
from liverjax.errors import Interrupted
from liverjax.training import read_log
from liverjax.training.loop import train


@pytest.fixture
def config(tiny_config):
    """The axial view alone, six steps; nothing is saved before the last one."""
    options = dataclasses.replace(tiny_config.train, steps=6, save_every=100)
    return dataclasses.replace(tiny_config, views=("axial",), train=options)


@pytest.fixture(scope="module")
def uninterrupted(tiny_config, tmp_path_factory, final_state):
    """Final state and log of the same training without a callback."""
    options = dataclasses.replace(tiny_config.train, steps=6, save_every=100)
    config, folder = (
        dataclasses.replace(tiny_config, views=("axial",), train=options),
        tmp_path_factory.mktemp("whole"),
    )
    train(config, folder, quiet=True)
    return final_state(config, folder), read_log(folder / "axial" / "log.jsonl")


def test_a_callback_is_told_what_is_logged_and_changes_no_bit(
    config, tmp_path, uninterrupted, final_state, assert_same_bits
):
    told = []

    def meddler(step, view, metrics):
        told.append((step, view, dict(metrics)))
        metrics.clear()
        metrics["loss"] = float("nan")
        np.random.seed(step)  # noqa: NPY002
        random.seed(step)
        jax.random.normal(jax.random.key(step), (3,)).block_until_ready()

    progress = train(config, tmp_path, quiet=True, callback=meddler)
    assert progress["axial"].finished
    assert_same_bits(final_state(config, tmp_path), uninterrupted[0])
    log = read_log(tmp_path / "axial" / "log.jsonl")
    assert told == [(record.pop("step"), "axial", record) for record in log]
    assert [step for step, _, metrics in told if "loss" in metrics] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _, metrics in told if "validation_dice" in metrics] == [2, 4, 6]
    # What the log holds beside times is that of a run without a callback.
    for own, other in zip(read_log(tmp_path / "axial" / "log.jsonl"), uninterrupted[1], strict=True):
        assert {n: own[n] for n in own if n in ("step", "loss", "validation_dice")} == {
            n: other[n] for n in other if n in ("step", "loss", "validation_dice")
        }


@pytest.mark.parametrize(
    ("raised", "at"),  # Between two validations, and at one.
    [(liverjax.StopTraining, 1), (liverjax.StopTraining, 4), (ZeroDivisionError, 4), (KeyboardInterrupt, 1)],
)
def test_what_a_callback_raises_ends_a_saved_run_that_goes_on_to_the_same_bits(
    config, tmp_path, uninterrupted, final_state, assert_same_bits, raised, at
):
    def stops(step, view, metrics):
        if step == at:
            raise raised("enough")

    if raised is liverjax.StopTraining:
        assert train(config, tmp_path, quiet=True, callback=stops) == {}
    else:
        with pytest.raises(raised, match="enough") as caught:
            train(config, tmp_path, quiet=True, callback=stops)
        assert f"step {at} of axial is saved, the same call goes on" in caught.value.__notes__[0]
    assert final_state(config, tmp_path)[0] == at
    assert train(config, tmp_path, quiet=True)["axial"].finished
    assert_same_bits(final_state(config, tmp_path), uninterrupted[0])
    log = read_log(tmp_path / "axial" / "log.jsonl")
    assert [record["step"] for record in log if "loss" in record] == [1, 2, 3, 4, 5, 6]


def test_a_stop_at_the_last_step_of_a_view_trains_no_further_view(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, steps=2))
    seen = []

    def stops(step, view, metrics):
        seen.append(view)
        if view == "coronal" and "validation_dice" in metrics:
            raise liverjax.StopTraining

    done = train(config, tmp_path, quiet=True, callback=stops)
    assert list(done) == ["axial"] and set(seen) == {"axial", "coronal"}
    assert sorted(train(config, tmp_path, quiet=True)) == ["axial", "coronal", "sagittal"]


def test_restarts_are_stopped_and_go_on(tiny_config, tmp_path, final_state):
    options = dataclasses.replace(tiny_config.train, restarts=2, halving_steps=(2,))
    config = dataclasses.replace(tiny_config, views=("axial",), train=options)
    calls = []

    def stops(step, view, metrics):
        calls.append(step)
        if len(calls) == 4:  # In the second restart.
            raise liverjax.StopTraining

    assert train(config, tmp_path, quiet=True, callback=stops) == {}
    assert not (tmp_path / "axial" / "restarts.json").exists()
    assert train(config, tmp_path, quiet=True)["axial"].finished
    facts = json.loads((tmp_path / "axial" / "restarts.json").read_text(encoding="utf-8"))
    assert [selection["step"] for selection in facts["selections"]] == [2, 4]


def test_a_signal_during_a_callback_stops_as_ever(config, tmp_path, final_state):
    def interrupted(step, view, metrics):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="SIGINT after step 3 of axial; saved"):
        train(config, tmp_path, quiet=True, callback=interrupted)
    assert final_state(config, tmp_path)[0] == 3


def test_in_a_thread_a_flag_stops_it(config, tmp_path, final_state):
    """Where Python catches no signals, as in threads, a callback is the way to stop."""
    stop, first, done = threading.Event(), threading.Event(), []

    def stops(step, view, metrics):
        first.set()
        stop.wait(30)
        raise liverjax.StopTraining

    worker = threading.Thread(target=lambda: done.append(train(config, tmp_path, quiet=True, callback=stops)))
    worker.start()
    assert first.wait(60)
    stop.set()
    worker.join(60)
    assert done == [{}] and final_state(config, tmp_path)[0] == 1


def test_a_model_is_where_another_starts_from_python(tiny_run, tiny_config, tmp_path):
    model = liverjax.load_model(tiny_run)
    options = dataclasses.replace(tiny_config.train, steps=1, warmup_steps=0, learning_rate=1e-9)
    config = dataclasses.replace(tiny_config, train=options, seed=7)
    init = {view: model.trained(view)[1] for view in model.config.views}
    train(config, tmp_path / "run", init=init, quiet=True)
    started = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["init"]
    assert set(started) == {"axial", "coronal", "sagittal"}
    # A step of next to no length leaves the parameters where they were.
    state = liverjax.load_model(tmp_path / "run", views=["axial"])
    one, other = (m.trained("axial")[1]["params"] for m in (state, model))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)
