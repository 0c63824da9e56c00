"""Where stores are written: folders that hold other things, disks that are full, calls that are killed."""

import dataclasses
import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from liverjax.config import to_dict
from liverjax.data.store import prepare
from liverjax.errors import InputError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cases/phantom_001/notes.txt",
            "notes.txt: is no file of a store; remove it, or choose another folder",
        ),
        ("cases/phantom_001/axial.npy/notes.txt", "axial.npy: is no file of a store; remove it"),
        ("cases/phantom_001", "phantom_001: is no folder of a store; remove it, or choose another folder"),
        ("index.json", "index.json: is of no store; remove it, or choose another folder"),
        ("index.json/notes.txt", "index.json: is a folder, expected a file of a store; remove it"),
    ],
)
def test_nothing_of_others_is_replaced(two_scans, tiny_config, tmp_path, name, message, contents):
    folder, precious = tmp_path / "home", tmp_path / "home" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("{}")
    with pytest.raises(InputError) as caught:
        prepare(two_scans, folder, tiny_config, quiet=True)
    assert str(caught.value).startswith(str(folder)) and message in str(caught.value)
    assert [path for path in folder.rglob("*") if path.is_file()] == [precious]
    prepare(two_scans, tmp_path / "another", tiny_config, quiet=True)  # the one remedy
    culprit = pathlib.Path(str(caught.value).split(": is ")[0])
    shutil.rmtree(culprit) if culprit.is_dir() else culprit.unlink()  # the other
    prepare(two_scans, folder, tiny_config, quiet=True)
    assert contents(folder) == contents(tmp_path / "another")


def test_a_store_among_other_files_leaves_them(two_scans, tiny_config, tmp_path, contents):
    folder = tmp_path / "home"
    for name in (".partial-mine/x", "cases/other/scan.nii", "notes.txt", "cases/phantom_001/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    before = contents(folder)
    for _ in range(2):
        prepare(two_scans, folder, tiny_config, quiet=True)
    after = contents(folder)
    before.pop("cases/phantom_001/.DS_Store")
    assert before.items() <= after.items()


def test_a_link_for_a_case_is_refused_and_its_target_stays(two_scans, tiny_config, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "case.json").write_text("precious")
    (tmp_path / "store" / "cases").mkdir(parents=True)
    (tmp_path / "store" / "cases" / "phantom_001").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="phantom_001: is no folder of a store"):
        prepare(two_scans, tmp_path / "store", tiny_config, quiet=True)
    assert (tmp_path / "victim" / "case.json").read_text() == "precious"


def test_a_store_within_its_data_set(two_scans, tiny_config, tmp_path):
    with pytest.raises(InputError, match="is the data set itself.*choose another folder for the store"):
        prepare(two_scans, two_scans / "labelsTr" / "..", tiny_config, quiet=True)
    for _ in range(2):
        store = prepare(two_scans, two_scans / "store", tiny_config, quiet=True)
        assert [case.id for case in store.cases] == ["phantom_001", "phantom_002"]


def test_addresses_are_refused(two_scans, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the store: gs://b/store is an address"):
        prepare(two_scans, "gs://b/store", tiny_config)
    with pytest.raises(InputError, match=r"the data set: s3://b/scans is an address"):
        prepare("s3://b/scans", tmp_path / "store", tiny_config)
    assert sorted(os.listdir(tmp_path)) == ["scans"]


# --- disks and kills ----------------------------------------------------------------------------------------


def test_a_write_that_fails_names_the_file_and_the_next_call_goes_on(
    two_scans, tiny_config, tmp_path, capsys
):
    store, before = tmp_path / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    # Large enough for the labels (one byte a voxel), not for the voxels.
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            prepare(two_scans, store, tiny_config, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(store / "cases" / "phantom_001" / "axial.npy")
    assert sorted(path.name for path in store.rglob("*")) == [".prepare.lock", "cases"]
    assert len(prepare(two_scans, store, tiny_config, quiet=True).cases) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A small disk, and a function that sets its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield (
        folder,
        lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True),
    )
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(phantom_scans, tiny_config, tmp_path, small_disk, contents):
    folder, resize = small_disk
    size, named = 1 << 20, set()
    while True:
        resize(size)
        try:
            prepare(phantom_scans, folder / "store", tiny_config, quiet=True)
            break
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert (
                error.filename.startswith(str(folder / "store")) and ".prepare-partial" not in error.filename
            )
            named.add(os.path.basename(error.filename))
        assert not (folder / "store" / ".prepare-partial").exists()
        size += 128 << 10
    assert {"axial.npy", "axial_labels.npy"} & named
    prepare(phantom_scans, tmp_path / "store", tiny_config, quiet=True)
    assert contents(folder / "store") == contents(tmp_path / "store")


_PREPARE = """
import json, sys, time
from liverjax.config import resolve
from liverjax.data.store import prepare
source, folder, config = sys.argv[1:]
try:
    prepare(source, folder, resolve(json.loads(config)), quiet=True)
except KeyboardInterrupt:
    print("interrupted", time.time())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_call_that_was_stopped_is_completed_by_the_next(some_scans, tiny_config, tmp_path, number):
    scans = some_scans(range(4))
    fine = dataclasses.replace(tiny_config.preprocess, spacing=(2.0, 2.0, 2.0))
    config = dataclasses.replace(tiny_config, preprocess=fine)
    store = tmp_path / "store"
    words = [sys.executable, "-c", _PREPARE, str(scans), str(store), json.dumps(to_dict(config))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(store.glob("cases/*/case.json")):
            time.sleep(0.005)
        process.send_signal(number)
        asked = time.time()
        text = process.communicate(timeout=60)[0]
    assert not (store / "index.json").exists(), "it had ended before the signal"
    if number == signal.SIGINT:
        assert process.returncode == 0 and float(text.split()[1]) - asked < 5
        assert not (store / ".prepare-partial").exists()
    else:
        assert process.returncode == -number
    done = {path: path.stat().st_mtime_ns for path in store.glob("cases/*/case.json")}
    assert 1 <= len(done) < 4
    assert len(prepare(scans, store, config, quiet=True).cases) == 4
    assert done.items() <= {path: path.stat().st_mtime_ns for path in store.glob("cases/*/case.json")}.items()
    assert not (store / ".prepare-partial").exists()
