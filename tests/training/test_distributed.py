"""Runs of several real processes: the same batches and gradients, one stop for all, and what happens to the lone."""

import dataclasses
import json
import os
import pathlib
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from liverjax.checkpoint.runs import Checkpoints
from liverjax.config import override, to_dict
from liverjax.data.store import prepare
from liverjax.errors import ConfigError
from liverjax.options import Augment, Batch, Train
from liverjax.training.distributed import data_mesh, initialize_distributed, replicated
from liverjax.training.logs import read_log
from liverjax.training.step import init_state, step_spec

_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parent.parent
_batches_and_gradient = runpy.run_path(str(_HERE / "one_process.py"))["batches_and_gradient"]


def _start(processes, devices, command, folder, only=None):
    """Starts ``command`` in so many processes of so many devices each; ``{process}`` in it is the process's number.

    ``only`` so many of them are really started.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    if processes > 1:
        environment |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(processes)}
    started = []
    for process in range(only or processes):
        own = {"JAX_PROCESS_ID": str(process)} if processes > 1 else {}
        with open(folder / f"process{process}.txt", "w", encoding="utf-8") as output:
            words = [str(word).format(process=process) for word in command]
            started.append(
                subprocess.Popen(
                    [sys.executable, *words], env=environment | own, stdout=output, stderr=output
                )
            )
    return started


def _finish(started, folder):
    """Returns the exit statuses and outputs."""
    try:
        statuses = [process.wait(timeout=900) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return statuses, [
        (folder / f"process{process}.txt").read_text(encoding="utf-8") for process in range(len(started))
    ]


@pytest.mark.parametrize("boxed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batches_gradients_and_scores_are_the_same_whatever_the_processes_and_devices(
    tiny_config, phantom_scans, tmp_path, boxed
):
    config = dataclasses.replace(
        tiny_config,
        batch=Batch(size=4, patch=(32, 32), tumor_share=0.25),
        augment=Augment(flip=0.5),
        model=dataclasses.replace(tiny_config.model, dropout=0.5),
        train=Train(optimizer="sgd", momentum=0.0, clip_norm=0.0),
    )
    if boxed:
        target = ("target.region=reference", "target.labels=background,tumor")
        config = override(config, (*target, "batch.stratified=true", "loss.lesion_power=0.5"))
        config = dataclasses.replace(config, store=str(tmp_path / "boxes"))
        prepare(phantom_scans, config.store, config, quiet=True)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)), encoding="utf-8")
    found = {}
    for processes, devices in ((2, 2), (1, 4)):
        command = [
            _HERE / "one_process.py",
            tmp_path / "config.json",
            tmp_path / f"{processes}_{{process}}.npz",
        ]
        statuses, outputs = _finish(_start(processes, devices, command, tmp_path), tmp_path)
        assert statuses == [0] * processes, outputs
        parts = [dict(np.load(tmp_path / f"{processes}_{process}.npz")) for process in range(processes)]
        assert [(int(part["processes"]), int(part["devices"])) for part in parts] == [
            (processes, 4)
        ] * processes
        for part in parts[1:]:
            np.testing.assert_array_equal(part["loss"], parts[0]["loss"])
        rows = [name for name in parts[0] if name.startswith(("image", "window", "label", "pixel"))]
        found[processes] = parts[0] | {name: np.concatenate([part[name] for part in parts]) for name in rows}

    one_device = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    alone = _batches_and_gradient(config, one_device, 0, 1)
    assert len({alone[f"image {step}"].tobytes() for step in (0, 1)}) == 2
    gradients = [name for name in alone if name.startswith("gradient")]
    assert max(np.abs(alone[name]).max() for name in gradients) > 1e-3
    for several in found.values():
        for name in rows:
            np.testing.assert_array_equal(several[name], alone[name])
        np.testing.assert_allclose(several["loss"], alone["loss"], rtol=1e-5)
        scores = {name for name in alone if name.startswith("score")}
        assert scores == ({"score tumor", "score detection"} if boxed else {"score liver", "score tumor"})
        for name in scores:  # A pixel may change sides by rounding.
            np.testing.assert_allclose(several[name], alone[name], atol=1e-3)
        assert any(name.startswith("pixel_weight") for name in alone) == boxed
        whole = np.linalg.norm([np.linalg.norm(alone[name]) for name in gradients])
        apart = np.linalg.norm([np.linalg.norm(several[name] - alone[name]) for name in gradients])
        assert apart < 1e-4 * whole


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two', expected a whole number"),
        ({"JAX_NUM_PROCESSES": "2"}, r"\(JAX_NUM_PROCESSES=2\) cannot be joined: .*--distributed=off"),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2.* cannot be joined: .*process_id < num_processes",
        ),
    ],
)
def test_an_environment_that_names_others_wrongly_is_told_in_one_line(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # jax refuses to join once it is in use, as it is in this process; a fresh one gets to the values.
    command = "from liverjax.training.distributed import initialize_distributed\nwith initialize_distributed(): pass"
    fresh = subprocess.run([sys.executable, "-c", command], env=os.environ, capture_output=True, text=True)
    assert re.search(message, fresh.stderr.splitlines()[-1]), fresh.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # A step of one task; a notebook in a pod.
        {
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_NODELIST": "nowhere",
            "SLURM_NTASKS": "1",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
        },
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        # The interactive step of `salloc -n 4`.
        {
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_NODELIST": "nowhere",
            "SLURM_NTASKS": "4",
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
        },
    ],
)
def test_a_lone_process_stays_alone(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    with initialize_distributed():
        assert not jax.distributed.is_initialized()
    assert time.monotonic() - start < 5


def test_off_stays_alone_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with initialize_distributed("off"):
        assert not jax.distributed.is_initialized()
    with (
        pytest.raises(ConfigError, match="distributed is 'of'; did you mean 'off'"),
        initialize_distributed("of"),
    ):
        pass


_JOIN = """
import sys, logging
from liverjax.errors import LiverjaxError
from liverjax.training.distributed import initialize_distributed
logging.basicConfig(format="%(message)s")
try:
    with initialize_distributed(sys.argv[1], wait=float(sys.argv[2])):
        import jax
        print(jax.process_count(), "processes")
except LiverjaxError as error:
    print(type(error).__name__, error)
    sys.exit(1)
"""


def test_processes_that_do_not_come_are_named_after_a_while_and_off_trains_alone(tmp_path):
    (alone,) = _start(2, 1, ["-c", _JOIN, "auto", "8"], tmp_path, only=1)
    start = time.monotonic()
    (status,), (output,) = _finish([alone], tmp_path)
    assert status == 1 and time.monotonic() - start < 60
    waiting, error = output.splitlines()
    assert waiting == "waiting for 1 more process (JAX_NUM_PROCESSES=2)"
    assert error.startswith("ConfigError 1 more process (JAX_NUM_PROCESSES=2) did not come within 8 s")
    assert "--distributed=off" in error
    (alone,) = _start(2, 1, ["-c", _JOIN, "off", "8"], tmp_path, only=1)
    assert _finish([alone], tmp_path) == ([0], ["1 processes\n"])


def test_a_process_that_comes_late_is_waited_for(tmp_path):
    command = f"import sys, time; time.sleep(7 * int(sys.argv[3]))\n{_JOIN}"
    started = _start(2, 1, ["-c", command, "auto", "120", "{process}"], tmp_path)
    statuses, outputs = _finish(started, tmp_path)
    assert statuses == [0, 0], outputs
    assert outputs[0].splitlines() == ["waiting for 1 more process (JAX_NUM_PROCESSES=2)", "2 processes"]


def test_a_signal_ends_the_wait_for_other_processes(tmp_path):
    (alone,) = _start(2, 1, ["-c", _JOIN, "auto", "300"], tmp_path, only=1)
    output = tmp_path / "process0.txt"
    while alone.poll() is None and "waiting" not in output.read_text(encoding="utf-8"):
        time.sleep(0.1)
    alone.send_signal(signal.SIGINT)
    start = time.monotonic()
    (status,), (text,) = _finish([alone], tmp_path)
    assert status == 1 and time.monotonic() - start < 20
    assert text.splitlines()[1:] == [
        "Interrupted SIGINT while waiting for 1 more process (JAX_NUM_PROCESSES=2); the same command starts again"
    ]


def _train_command(config, folder, workdir, store=None):
    (folder / "tiny.py").write_text(_CONFIG_FILE.format(config=json.dumps(to_dict(config))), encoding="utf-8")
    command = ["-m", "liverjax.commands.dispatch", "train", f"--config={folder / 'tiny.py'}", "--quiet"]
    return [*command, f"--store={store or config.store}", f"--workdir={workdir}"]


_CONFIG_FILE = """
import json
from liverjax.config import resolve
from liverjax.config import to_dict
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict(to_dict(resolve(json.loads('''{config}''')))).lock()
"""


def _final_arrays(config, workdir):
    """Returns step and arrays of the newest checkpoint, restored whole onto this process's devices."""
    template = init_state(step_spec(config), config.batch.patch, 0, replicated(data_mesh(config.batch.size)))
    with Checkpoints(workdir / "axial" / "last", keep=2) as checkpoints:
        step, state, _ = checkpoints.restore(template.arrays())
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.slow
@pytest.mark.parametrize("shard_optimizer", [False, True])
def test_one_process_is_told_to_stop_and_all_save_and_go_on_to_the_same_bits(
    tiny_config, tmp_path, shard_optimizer
):
    train = dataclasses.replace(
        tiny_config.train,
        steps=60,
        save_every=50,
        validate_every=30,
        validation_slices=6,  # Of batches of 4: rows of the last one only pad, all those of the second process.
        shard_optimizer=shard_optimizer,
    )
    config = dataclasses.replace(tiny_config, views=("axial",), train=train)
    whole, stopped, elsewhere = tmp_path / "whole", tmp_path / "stopped", tmp_path / "elsewhere"
    statuses, outputs = _finish(_start(2, 2, _train_command(config, tmp_path, whole), tmp_path), tmp_path)
    assert statuses == [0, 0], outputs

    command = _train_command(config, tmp_path, stopped)
    started = _start(2, 2, command, tmp_path)
    log = stopped / "axial" / "log.jsonl"
    while started[1].poll() is None and sum("loss" in record for record in read_log(log)) < 8:
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    statuses, outputs = _finish(started, tmp_path)
    assert statuses == [75, 75], outputs
    assert "a signal to another process after step" in outputs[0] and "SIGTERM after step" in outputs[1]
    (step,) = (int(path.name) for path in (stopped / "axial" / "last").iterdir())
    assert 8 <= step < 50, "the run was to be stopped on its way, between two saves"
    shutil.copytree(stopped, elsewhere)

    statuses, outputs = _finish(_start(2, 2, command, tmp_path), tmp_path)
    assert statuses == [0, 0], outputs
    assert not any("goes on elsewhere" in output for output in outputs)
    (last, arrays), (expected_last, expected) = (_final_arrays(config, run) for run in (stopped, whole))
    assert last == expected_last == 60
    for array, expected_array in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, expected_array)

    command = _train_command(config, tmp_path, elsewhere)
    statuses, outputs = _finish(_start(1, 4, command, tmp_path), tmp_path)
    assert statuses == [0], outputs
    assert "processes 2, now 1" in outputs[0] and "not the uninterrupted run's to the bit" in outputs[0]
    losses, expected = (
        {
            record["step"]: record["loss"]
            for record in read_log(run / "axial" / "log.jsonl")
            if "loss" in record
        }
        for run in (elsewhere, whole)
    )
    assert list(losses) == list(range(1, 61))
    assert losses[step] == expected[step]
    np.testing.assert_allclose(losses[step + 1], expected[step + 1], rtol=1e-4)
    np.testing.assert_allclose(losses[60], expected[60], rtol=0.05)


@pytest.mark.slow
def test_an_error_of_one_process_ends_it_at_once_and_the_others_with_it(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, views=("axial",))
    for process in range(2):
        shutil.copytree(config.store, tmp_path / f"store{process}")
    for path in (tmp_path / "store1").glob("cases/*/axial.npy"):
        path.unlink()
    command = _train_command(config, tmp_path, tmp_path / "run", store=tmp_path / "store{process}")
    started = _start(2, 2, command, tmp_path)
    assert started[1].wait(timeout=600) == 1
    ended = time.monotonic()
    statuses, outputs = _finish(started, tmp_path)
    assert statuses[0] == 1 and time.monotonic() - ended < 35
    assert re.search(
        r"^liverjax: error: \S*store1/cases/phantom_00\d/axial.npy: not readable", outputs[1], re.M
    )
    assert re.search(r"^liverjax: error: another process of this run is gone", outputs[0], re.M)
    assert "Traceback" not in outputs[0] + outputs[1]
