"""Running commands in order, with commands of liverjax that take less than a second."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import threading
import time

import pytest

from liverjax.errors import ConfigError
from liverjax.experiments import runner
from liverjax.experiments.runner import Command
from liverjax.files import locked


@pytest.fixture
def check(tmp_path):
    """Makes a command that succeeds, or with a ``fault`` one that fails."""

    def make(name, fault=False):
        return Command(("check", "--nonsense" if fault else "--help"), tmp_path / name, name)

    return make


def _starts(command):
    return command.log.read_text().count("$ liverjax check") if command.log.exists() else 0


def test_what_is_done_is_not_done_again(check):
    command, lines = check("a"), []
    assert not command.done
    assert runner.run_chains([[command]], show=lines.append) == []
    assert command.done and _starts(command) == 1
    assert lines[0] == "[1/1] check a" and lines[1].startswith("  done in ")
    assert runner.run_chains([[command]], show=lines.append) == []
    assert _starts(command) == 1 and len(lines) == 2
    # Another command in the same folder is another thing.
    other = Command((*command.words, "--layout=nnunet"), command.folder, "a")
    assert not other.done


def test_other_inputs_and_another_version_run_it_again(check, monkeypatch):
    command = check("a")
    runner.run_chains([[command]], show=print)
    changed = dataclasses.replace(command, inputs="other data")
    assert command.done and not changed.done
    runner.run_chains([[changed]], show=print)
    assert changed.done and not command.done and _starts(command) == 2
    monkeypatch.setattr(runner, "__version__", "another")
    assert not changed.done


def test_a_damaged_note_counts_as_none(check):
    command = check("a")
    command.folder.mkdir()
    command.note.write_text("[")
    assert not command.done


def test_a_failure_ends_its_chain_and_the_others_go_on(check):
    bad, after, other = check("bad", fault=True), check("after"), check("other")
    lines = []
    failures = runner.run_chains([[bad, after], [other], [bad, after]], show=lines.append)
    (failure,) = failures
    assert (failure.command, failure.status) == (bad, 2) and "nonsense" in failure.reason
    assert (_starts(bad), _starts(after), _starts(other)) == (1, 0, 1)
    assert sum("FAILED: check bad" in line for line in lines) == 1
    # The next call tries it again.
    assert len(runner.run_chains([[bad, after]], show=lines.append)) == 1 and _starts(bad) == 2


@pytest.mark.parametrize("settings", [{"jobs": 3}, {"devices": ["0", "1"]}])
def test_chains_that_share_a_command_run_it_once(check, settings):
    shared, own = check("shared"), [check(f"own{number}") for number in range(3)]
    assert runner.run_chains([[shared, command] for command in own], show=print, **settings) == []
    assert _starts(shared) == 1 and all(_starts(command) == 1 for command in own)


def test_a_folder_that_another_process_works_in_is_waited_for(check):
    command, lines, shown = check("a"), [], threading.Event()

    def show(line):
        lines.append(line)
        shown.set()

    with locked(command.folder / ".sweep.lock"):
        thread = threading.Thread(target=runner.run_chains, args=([[command]],), kwargs={"show": show})
        thread.start()
        assert shown.wait(30) and f"waiting: another command is running in {command.folder}" in lines[0]
        assert _starts(command) == 0
        # The other process ends with success: nothing is left to do.
        command.write_note()
    thread.join(30)
    assert not thread.is_alive() and _starts(command) == 0


def test_cores_and_devices_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 6})
    assert runner._shares(2, []) == [({0, 2, 6}, {}), ({1, 3}, {})]
    assert runner._shares(1, ["4", "7"]) == [
        ({0, 2, 6}, {"CUDA_VISIBLE_DEVICES": "4"}),
        ({1, 3}, {"CUDA_VISIBLE_DEVICES": "7"}),
    ]
    # More jobs than cores: each has one.
    assert [cores for cores, _ in runner._shares(7, [])] == [{0}, {1}, {2}, {3}, {6}, {0}, {1}]


def test_no_jobs_are_refused():
    with pytest.raises(ConfigError, match="jobs is 0, expected 1 or more"):
        runner.run_chains([], jobs=0)


def test_a_command_that_is_killed_from_outside_is_a_failure_that_says_so(phantom_scans, tmp_path):
    store = tmp_path / "store"
    words = ("prepare", f"--input={phantom_scans}", f"--output={store}", "--config=demo")
    command, failures = Command(words, store, "store"), []
    thread = threading.Thread(target=lambda: failures.extend(runner.run_chains([[command]])))
    thread.start()
    while not command.log.exists() or not (children := _children()):
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    thread.join(60)
    (failure,) = failures
    assert failure.status == -signal.SIGKILL and "ended by SIGKILL" in failure.reason
    # The killed process no longer holds the lock.
    assert runner.run_chains([[command]]) == [] and command.done


def _children():
    """Returns the processes that this one has started as leaders of a session of their own."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[1:4]
            if int(parent) == os.getpid() and session == folder.name:
                found.append(int(folder.name))
    return found
