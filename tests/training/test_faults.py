"""What happens to a run from outside: damaged data, a worker that dies, a disk that is full or gone."""

import dataclasses
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import threading
import time

import pytest

from liverjax.checkpoint.runs import verify_checksums
from liverjax.commands.dispatch import main
from liverjax.errors import CheckpointError, InputError, TrainingError
from liverjax.training.logs import read_log
from liverjax.training.loop import train

#: Seconds that are promised.
_SOON = 30


def _endless(config, **train_options):
    """Config of one view that would train for hours."""
    options = dataclasses.replace(config.train, steps=10**6, **{"save_every": 10**6, **train_options})
    return dataclasses.replace(config, views=("axial",), train=options)


def _with_workers(config, workers):
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, workers=workers))


@pytest.fixture
def when_under_way(tmp_path):
    """Function that lets another thread act on the run in ``tmp_path / "run"`` after two steps.

    Returns a function that gives the seconds since then.
    """
    threads, times = [], []

    def arrange(act, ready=lambda: len(read_log(tmp_path / "run" / "axial" / "log.jsonl")) >= 2):
        def work():
            while not ready():
                time.sleep(0.02)
            act()
            times.append(time.monotonic())

        threads.append(threading.Thread(target=work, daemon=True))
        threads[0].start()

        def seconds_since():
            threads[0].join(timeout=10)
            return time.monotonic() - times[0]

        return seconds_since

    return arrange


def _vanish(path):
    path.unlink()


def _truncate(path):
    os.truncate(path, path.stat().st_size // 3)


@pytest.mark.parametrize(
    ("fault", "workers"),
    [
        (_truncate, 0),
        pytest.param(_vanish, 2, marks=pytest.mark.slow),
        pytest.param(_vanish, 0, marks=pytest.mark.slow),
        pytest.param(_truncate, 2, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_store_ends_the_run_with_the_case_named(
    tiny_config, tmp_path, when_under_way, fault, workers
):
    store = shutil.copytree(tiny_config.store, tmp_path / "store")
    config = dataclasses.replace(_with_workers(_endless(tiny_config), workers), store=str(store))
    seconds_since = when_under_way(lambda: [fault(path) for path in store.glob("cases/*/axial.npy")])
    with pytest.raises(InputError, match=r"case phantom_00\d, axial slice \d+: .*axial.npy: not readable"):
        train(config, tmp_path / "run", quiet=True)
    assert seconds_since() < _SOON
    assert not multiprocessing.active_children()


def test_a_worker_process_that_is_killed_ends_the_run(tiny_config, tmp_path, when_under_way):
    config = _with_workers(_endless(tiny_config), 2)
    kill = lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # noqa: E731
    seconds_since = when_under_way(kill)
    with pytest.raises(
        TrainingError, match=r"orker process .* exit code -9, .*last checkpoint is kept"
    ) as caught:
        train(config, tmp_path / "run", quiet=True)
    assert seconds_since() < _SOON
    assert not multiprocessing.active_children()
    assert "the same command goes on. Fewer batch.workers take less memory" in str(caught.value)
    fewer = dataclasses.replace(_with_workers(config, 0), max_minutes=0.05)
    assert train(fewer, tmp_path / "run", quiet=True)["axial"].finished


def test_an_output_that_vanishes_ends_the_run_with_its_name(tiny_config, tmp_path, when_under_way):
    run = tmp_path / "run"
    seconds_since = when_under_way(lambda: run.rename(tmp_path / "elsewhere"))
    with pytest.raises((OSError, CheckpointError)) as raised:
        train(_endless(tiny_config, save_every=3), run, quiet=True)
    assert str(run / "axial") in str(raised.value)
    assert seconds_since() < _SOON


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no limits of other processes")
def test_a_disk_that_takes_no_more_leaves_the_checkpoint_before(
    tiny_config, train_command, tmp_path, final_state, assert_same_bits
):
    options = dataclasses.replace(tiny_config.train, steps=40, save_every=4, validate_every=40)
    config = dataclasses.replace(tiny_config, views=("axial",), train=options)
    run = tmp_path / "run"
    command = train_command(config, run)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(run.glob("axial/last/*/checksums.json")):
        time.sleep(0.005)
    # No file may grow beyond 12 kB: less than the log and the arrays of a checkpoint need.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and len(stderr.splitlines()) == 1, stderr
    told = stderr.removeprefix("liverjax: error: ")
    assert told != stderr
    assert str(run / "axial") in told and "File too large" in told
    sealed = [path.parent for path in run.glob("axial/last/*/checksums.json")]
    for folder in sealed:
        verify_checksums(folder)
    assert sealed

    assert subprocess.run(command).returncode == 0
    train(config, tmp_path / "whole", quiet=True)
    assert_same_bits(final_state(config, run), final_state(config, tmp_path / "whole"))


@pytest.fixture
def disk(tmp_path):
    """Folder with a file system of its own of 2 MB, and a function that mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        if (
            shutil.which("mount") is None
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
            ).returncode
        ):
            pytest.skip("file systems cannot be mounted here")

    mount("size=2m")
    yield folder, mount
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_output_is_told_in_one_line(tiny_config, train_command, disk, capsys):
    folder, mount = disk
    mount("remount,ro")
    assert main(train_command(tiny_config, folder / "run")[3:]) == 1
    printed = capsys.readouterr().err
    assert printed == f"liverjax: error: {folder / 'run'}: Read-only file system\n"


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on_when_there_is_room(
    tiny_config, train_command, tmp_path, disk, final_state, assert_same_bits
):
    folder, _ = disk
    options = dataclasses.replace(tiny_config.train, steps=60, save_every=5, validate_every=30)
    config = dataclasses.replace(tiny_config, views=("axial",), train=options)
    command = train_command(config, folder / "run")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(folder.glob("run/axial/last/*/checksums.json")):
        time.sleep(0.005)
    filler = folder / "filler"
    try:
        with open(filler, "wb") as file:
            while process.poll() is None:
                file.write(b"0" * 4096)
                file.flush()
    except OSError:
        pass
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and len(stderr.splitlines()) == 1, stderr
    told = stderr.removeprefix("liverjax: error: ")
    assert told != stderr
    assert str(folder / "run" / "axial") in told and "No space left on device" in told
    sealed = [path.parent for path in folder.glob("run/axial/last/*/checksums.json")]
    for path in sealed:
        verify_checksums(path)
    assert sealed

    filler.unlink()
    assert subprocess.run(command).returncode == 0
    train(config, tmp_path / "whole", quiet=True)
    assert_same_bits(final_state(config, folder / "run"), final_state(config, tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_stays_flat_over_two_thousand_steps(tiny_config, train_command, tmp_path):
    options = dataclasses.replace(
        tiny_config.train, steps=2000, save_every=250, validate_every=250, log_every=10
    )
    config = dataclasses.replace(tiny_config, views=("axial",), train=options)
    process = subprocess.Popen(train_command(config, tmp_path / "run"))
    megabytes = {}
    while process.poll() is None:
        time.sleep(0.1)
        records = read_log(tmp_path / "run" / "axial" / "log.jsonl")
        if records:
            pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1] or 0)
            megabytes[records[-1]["step"]] = pages * os.sysconf("SC_PAGESIZE") / 2**20
    assert process.returncode == 0
    early = [value for step, value in megabytes.items() if 400 <= step <= 600]
    late = [value for step, value in megabytes.items() if 1800 <= step < 2000]
    assert sum(late) / len(late) < 1.03 * sum(early) / len(early)
