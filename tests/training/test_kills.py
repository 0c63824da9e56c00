"""Killed runs: whatever the signal and the moment, the same command ends with the uninterrupted run's bits."""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from liverjax.commands.dispatch import main
from liverjax.errors import Interrupted
from liverjax.signals import StopSignals
from liverjax.training.logs import read_log
from liverjax.training.loop import train

STEPS = 60


@pytest.fixture(scope="module")
def whole(tiny_config, tmp_path_factory):
    """Config and work folder of a run that nothing interrupted."""
    options = dataclasses.replace(tiny_config.train, steps=STEPS, save_every=5, validate_every=10)
    config = dataclasses.replace(tiny_config, views=("axial",), train=options)
    workdir = tmp_path_factory.mktemp("whole")
    train(config, workdir, quiet=True)
    return config, workdir


def _steps_done(workdir):
    return sum("loss" in record for record in read_log(workdir / "axial" / "log.jsonl"))


def _unsealed(workdir):
    """Checkpoints of the run that do not count yet: being written, or written and not sealed."""
    folders = (path for path in workdir.glob("axial/last/*") if path.name[0].isdigit())
    return [path.name for path in folders if not (path / "checksums.json").exists()]


def _children(pid):
    # Of all threads: Grain starts its workers from one of its own.
    lists = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text().split()]


def _kill(command, workdir, signal_number, aim, random):
    """Starts the run and sends it a signal; returns its exit status and standard error."""
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    least = _steps_done(workdir) + random.integers(1, STEPS // 3)
    while process.poll() is None and _steps_done(workdir) < least:
        time.sleep(0.005)
    if aim == "step":
        time.sleep(random.uniform(0, 0.1))
    else:
        suffix = {"writing": ".orbax-checkpoint-tmp", "unsealed": ""}[aim]
        while process.poll() is None and not any(
            name.lstrip("0123456789") == suffix for name in _unsealed(workdir)
        ):
            time.sleep(0.001)
    process.send_signal(signal_number)
    stderr = process.communicate(timeout=300)[1]
    return process.returncode, stderr


#: Signal, where it is aimed at, and the number of worker processes. These run by default.
_KILLS = [("SIGTERM", "step", 0), ("SIGKILL", "writing", 2)]
_MORE_KILLS = [
    ("SIGTERM", "step", 2),
    ("SIGTERM", "writing", 0),
    ("SIGINT", "step", 0),
    ("SIGINT", "writing", 2),
    ("SIGINT", "unsealed", 0),
    ("SIGKILL", "step", 0),
    ("SIGKILL", "step", 2),
    ("SIGKILL", "unsealed", 0),
]


@pytest.mark.parametrize(
    ("signal_name", "aim", "workers"),
    [*_KILLS, *(pytest.param(*kill, marks=pytest.mark.slow) for kill in _MORE_KILLS)],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    whole, final_state, assert_same_bits, train_command, tmp_path, signal_name, aim, workers
):
    config, uninterrupted = whole
    workdir = tmp_path / "killed"
    command = train_command(config, workdir, f"--config.batch.workers={workers}")
    random = np.random.default_rng([ord(letter) for letter in signal_name + aim] + [workers])
    for _ in range(5):
        status, stderr = _kill(command, workdir, getattr(signal, signal_name), aim, random)
        # A checkpoint may be complete between the look and the signal: then once more.
        if status != 0 and (aim == "step" or signal_name != "SIGKILL" or _unsealed(workdir)):
            break
        shutil.rmtree(workdir)
    else:
        pytest.fail("the signal never came at the moment that it was aimed at")
    if signal_name == "SIGKILL":
        assert status == -signal.SIGKILL
    else:
        assert status == 75, stderr
        assert f"{signal_name} after step" in stderr and "saved, the same command goes on" in stderr
    assert max(record["step"] for record in read_log(workdir / "axial" / "log.jsonl")) < STEPS

    again = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert_same_bits(final_state(config, workdir), final_state(config, uninterrupted))
    assert not _unsealed(workdir)
    for curve in (_logged_losses, _shown_losses):
        assert curve(workdir) == curve(uninterrupted)
        assert [step for step, _ in curve(workdir)] == list(range(1, STEPS + 1))


class _Interrupts(io.StringIO):
    """Where a run prints to: it is sent a signal when it first does."""

    def write(self, text):
        if not self.tell():
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_a_signal_before_the_first_step_is_obeyed_there_and_the_same_call_goes_on(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, views=("axial",))
    with contextlib.redirect_stdout(_Interrupts()) as printed, pytest.raises(Interrupted) as caught:
        train(config, tmp_path / "run")
    assert printed.getvalue().startswith("devices: ")
    assert str(caught.value) == "SIGINT before a step of axial; the same command goes on"
    assert train(config, tmp_path / "run", quiet=True)["axial"].finished


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_starts_is_not_lost(whole, train_command, tmp_path, capsys, number):
    command = train_command(whole[0], tmp_path / "run")
    file = tmp_path / "tiny.py"
    early = f"import signal\nsignal.raise_signal({int(number)})\n"
    file.write_text(early + file.read_text(encoding="utf-8"), encoding="utf-8")
    before = signal.getsignal(number)
    assert main(command[3:]) == 75
    told = f"liverjax: {number.name} before a step of axial; the same command goes on\n"
    assert capsys.readouterr().err.endswith(told)
    assert signal.getsignal(number) is before


def test_signals_within_signals_are_shared_and_a_second_one_acts_as_usual():
    # A shell that starts a program in the background has it ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopSignals() as outer:
        with StopSignals() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert inner.received == outer.received == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with StopSignals() as later:
        assert later.received is None
    signal.signal(signal.SIGINT, before)


def _logged_losses(workdir):
    records = read_log(workdir / "axial" / "log.jsonl")
    return [(record["step"], np.float32(record["loss"])) for record in records if "loss" in record]


def _shown_losses(workdir):
    """What TensorBoard shows: a file that starts at a step hides what earlier files say of it and of later ones."""
    losses = []
    for path in sorted((workdir / "axial" / "tensorboard").iterdir()):
        content, place = path.read_bytes(), 0
        while place + 12 <= len(content):
            # A record is its length (8 bytes), a checksum (4), the event, a checksum (4).
            (length,) = struct.unpack_from("<Q", content, place)
            if place + 16 + length > len(content):
                break  # cut by a kill
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status == SessionLog.START:
                losses = [(step, loss) for step, loss in losses if step < event.step]
            losses += [(event.step, v.simple_value) for v in event.summary.value if v.tag == "loss"]
    return losses


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_nothing_that_was_sealed(
    whole, final_state, assert_same_bits, train_command, tmp_path
):
    config, uninterrupted = whole
    workdir = tmp_path / "killed"
    random = np.random.default_rng(0)
    sealed = kills = 0
    while True:
        aim = ("step", "writing", "unsealed")[random.integers(3)]
        signal_number = (signal.SIGKILL, signal.SIGTERM)[random.integers(2)]
        random_steps = np.random.default_rng([kills])
        status, stderr = _kill(train_command(config, workdir), workdir, signal_number, aim, random_steps)
        if status == 0:
            break
        assert status in (-signal.SIGKILL, 75), stderr
        kills += 1
        assert kills < 30
        steps = [int(path.parent.name) for path in workdir.glob("axial/last/*/checksums.json")]
        assert max(steps, default=0) >= sealed
        sealed = max(steps, default=0)
    assert kills >= 3
    assert_same_bits(final_state(config, workdir), final_state(config, uninterrupted))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_although_the_workers_get_it_too(
    whole, train_command, tmp_path, number
):
    command = train_command(whole[0], tmp_path / "run", "--config.batch.workers=2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and _steps_done(tmp_path / "run") < 3:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 75 and "Traceback" not in stderr, stderr


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="no /proc")
def test_worker_processes_end_with_a_run_that_is_killed(whole, train_command, tmp_path):
    # Long enough that the workers are still at work when the third step is seen.
    command = train_command(
        whole[0], tmp_path / "run", "--config.batch.workers=2", "--config.train.steps=5000"
    )
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and _steps_done(tmp_path / "run") < 3:
        time.sleep(0.02)
    workers = _children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.1)
