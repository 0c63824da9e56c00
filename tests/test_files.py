"""Atomic writes, JSON as it may lie there, and locks, with threads and processes."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liverjax.errors import CheckpointError, InputError, LockedError
from liverjax.files import MAX_JSON_BYTES, locked, read_json, replacing, write_json

#: Holds a lock until its input ends; with "child", a process that has inherited the lock outlives it.
_HOLD = """
import subprocess, sys
from liverjax.files import locked
with locked(sys.argv[1]) as descriptor:
    if sys.argv[2:] == ["child"]:
        subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,), stdout=subprocess.DEVNULL)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds ``tmp_path/run/.lock``; it is ended with the test."""
    processes = []

    def start(*words):
        command = [sys.executable, "-c", _HOLD, str(tmp_path / "run" / ".lock"), *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_process_is_refused_by_the_name_of_the_first(holder, tmp_path):
    process = holder()
    with pytest.raises(LockedError) as caught, locked(tmp_path / "run" / ".lock"):
        pass
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'run'}: process {process.pid} on {os.uname().nodename}, or one that"
    )
    process.communicate()
    with locked(tmp_path / "run" / ".lock"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_killed_process_leaves_no_lock(holder, tmp_path):
    process = holder()
    process.kill()
    process.wait()
    with locked(tmp_path / "run" / ".lock"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_process_that_inherited_the_lock_keeps_it(holder, tmp_path):
    process = holder("child")
    process.kill()
    process.wait()
    with pytest.raises(LockedError, match=f"process {process.pid} on "), locked(tmp_path / "run" / ".lock"):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    for _ in range(100):
        try:
            with locked(tmp_path / "run" / ".lock"):
                break
        except LockedError:
            time.sleep(0.1)
    else:
        pytest.fail("the lock was to be free after the last process that held it")


def test_one_process_holds_a_lock_once_and_an_error_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock"):
        with pytest.raises(LockedError), locked(tmp_path / ".lock"):
            pass
        with pytest.raises(LockedError), locked(tmp_path / ".lock"):
            pass
        1 / 0  # noqa: B018
    with locked(tmp_path / ".lock"):
        pass


def test_commands_that_are_started_inherit_no_lock_unless_it_is_passed_on(tmp_path):
    with locked(tmp_path / ".lock") as descriptor:
        assert not os.get_inheritable(descriptor)


def test_a_replaced_file_is_the_old_one_until_the_end_and_stays_after_an_error(tmp_path):
    path = tmp_path / "folder" / "mask.nii.gz"
    with replacing(path) as temporary:
        assert temporary.name.endswith(".nii.gz") and temporary.parent == path.parent
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("second")
        1 / 0  # noqa: B018
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file.txt"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_threads_that_write_leave_the_umask_as_it_was(tmp_path):
    before = os.umask(0o027)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda number: _write(tmp_path / f"{number}.txt"), range(400)):
                pass
        assert os.umask(0o027) == 0o027
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        os.umask(before)


def _write(path):
    with replacing(path) as temporary:
        temporary.write_text("text")


def test_an_error_of_the_system_names_the_file_itself(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "inside").write_text("")
    with pytest.raises(OSError) as caught, replacing(tmp_path / "target"):
        pass
    assert caught.value.filename == str(tmp_path / "target")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), _values, max_size=3))
def test_what_is_written_is_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Windows' editors begin a file
    assert read_json(path) == value


_DAMAGED = {
    b"": "line 1, column 1: Expecting value",
    b'{"a": 1,\n "b" 2}': "line 2, column 6: Expecting ':' delimiter",
    b'{"a": "\xff"}': "byte 7 is not UTF-8",
    '{"a": 1}'.encode("utf-16"): "byte 0 is not UTF-8",
    b'{"a": ' * 100_000: "nested too deeply",
    b'{"a": ' + b"[" * 100_000: "nested too deeply",
    b'{"a": ' + b"1" * 5000 + b"}": "a number of 5000 digits, expected at most 300",
    b'{"a": NaN}': "NaN is no number of JSON",
    b'{"a": -Infinity}': "-Infinity is no number of JSON",
    b'{"a": 1e999}': "the number 1e999 is too large",
    b'{"b": {"a": 1, "c": 2, "a": 1}}': "the key 'a' stands twice in an object",
    b"[]": "holds [], expected a JSON object, {...}",
    b"null": "holds None, expected a JSON object, {...}",
    b'"' + b"x" * 10_000 + b'"': "holds 'xxxxxxxxxxxx...xxxxxxxxxxxxx', expected a JSON object, {...}",
}


@pytest.mark.parametrize("number", range(len(_DAMAGED)))
def test_json_that_is_damaged_is_refused_in_one_line_with_the_file_and_the_place(tmp_path, number):
    data, reason = list(_DAMAGED.items())[number]
    path = tmp_path / "facts.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_json(path, error=CheckpointError, remedy="make it again")
    message = str(caught.value)
    assert message in (f"{path}: {reason}; make it again", f"{path}: not JSON ({reason}); make it again")
    assert "\n" not in message


def test_a_whole_number_of_json_is_a_float_too(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"a": 10**299, "b": -(10**299)}))
    assert list(map(float, read_json(path).values())) == [1e299, -1e299]


def test_what_is_no_file_is_not_read_as_json(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("link")
    (tmp_path / "file").write_text("{}")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    for name, reason in {
        "folder": "cannot be read (no regular file)",
        "pipe": "cannot be read (no regular file)",
        "link": "cannot be read (Too many levels of symbolic links)",
        "file/inside": "cannot be read (Not a directory)",
        "a\0b": "cannot be read (embedded null byte)",
        "large": "has more than 64 MiB, too much for a JSON file",
    }.items():
        with pytest.raises(InputError) as caught:
            read_json(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {reason}"
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing")
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError):
        read_json(tmp_path / "folder")
    assert len(os.listdir("/proc/self/fd")) == open_files
