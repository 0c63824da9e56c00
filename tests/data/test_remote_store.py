"""A store at an address: equal to the folder, verified, and within its bound. The file system is fsspec's in memory."""

import dataclasses
import hashlib
import json
import os
import shutil
import time

import numpy as np
import pytest

from liverjax.data import remote_store, stored_case
from liverjax.data.store import open_store
from liverjax.errors import ConfigError, InputError
from liverjax.remote import RemoteFolder
from liverjax.training.logs import read_log
from liverjax.training.loop import train
from liverjax.views import VIEWS

fsspec = pytest.importorskip("fsspec", reason="liverjax[cloud] is not installed")
ADDRESS = "memory://bucket/store"


@pytest.fixture(autouse=True)
def memory(tiny_config, tmp_path, monkeypatch):
    """The file system, which holds the store of the phantoms."""
    monkeypatch.setenv("LIVERJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIVERJAX_CACHE_GB", raising=False)
    system = fsspec.filesystem("memory")
    _empty(system)
    system.put(tiny_config.store, "/bucket/store", recursive=True)
    yield system
    _empty(system)
    stored_case.forget_maps()


def _empty(system):
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def opened(tiny_config):
    """Function that opens the store at the address."""
    return lambda: open_store(ADDRESS, tiny_config.preprocess, tiny_config.target)


def _arrays(tmp_path):
    return {path: path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy")}


def test_an_opened_store_has_facts_and_no_arrays_until_they_are_read(opened, tiny_config, tmp_path):
    here = open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target)
    there = opened()
    assert not _arrays(tmp_path)
    assert [case.id for case in there.cases] == [case.id for case in here.cases]
    for one, two in zip(here.cases, there.cases, strict=True):
        assert one.fingerprint == two.fingerprint and one.window == two.window
    first = there.cases[0]
    image, labels = first.slice("coronal", 3)
    assert {path.name for path in _arrays(tmp_path)} == {"coronal.npy", "coronal_labels.npy"}
    assert np.array_equal(image, here.cases[0].image("coronal")[3])
    assert np.array_equal(labels, here.cases[0].labels("coronal")[3])


def test_an_array_is_copied_once(opened, memory, monkeypatch):
    fetched = []
    fetch = RemoteFolder.fetch
    monkeypatch.setattr(
        RemoteFolder, "fetch", lambda self, name, *a, **k: fetched.append(name) or fetch(self, name, *a, **k)
    )
    for _ in range(3):
        opened().cases[0].image("axial")
    assert fetched == ["axial.npy"]


def test_a_damaged_array_is_refused_until_it_is_copied_there_again(opened, memory):
    place = f"/bucket/store/cases/{opened().cases[0].id}/axial.npy"
    sound = memory.cat_file(place)
    memory.pipe_file(place, sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(
        InputError, match=r"memory://bucket/store/.*axial.npy: not as it was written .*; copy the file"
    ):
        opened().cases[0].image("axial")
    memory.rm_file(place)
    with pytest.raises(InputError, match="axial.npy does not exist"):
        opened().cases[0].image("axial")
    memory.pipe_file(place, sound)
    assert opened().cases[0].image("axial").any()


def test_a_case_that_was_prepared_anew_is_not_read_from_its_old_copy(opened, memory):
    case = opened().cases[0]
    before = case.image("axial").copy()
    folder = f"/bucket/store/cases/{case.id}"
    changed = before.copy()
    changed[0, 0, 0] += 1
    header = memory.cat_file(f"{folder}/axial.npy")[:128]
    data = header + changed.tobytes()
    facts = json.loads(memory.cat_file(f"{folder}/case.json"))
    facts["sha256"]["axial.npy"] = hashlib.sha256(data).hexdigest()
    memory.pipe_file(f"{folder}/axial.npy", data)
    memory.pipe_file(f"{folder}/case.json", json.dumps(facts).encode())
    assert np.array_equal(opened().cases[0].image("axial"), changed)


def test_the_cache_keeps_to_its_bound_and_the_arrays_are_right(
    opened, tiny_config, tmp_path, monkeypatch, caplog
):
    here = open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target)
    one = sum(
        array.nbytes + 128 for case in here.cases[:1] for array in (case.image("axial"), case.labels("axial"))
    )
    bound = 2.5 * one
    monkeypatch.setenv("LIVERJAX_CACHE_GB", f"{bound / 1e9:.9f}")
    there = opened()
    assert "arrays will be copied again and again; set LIVERJAX_CACHE_GB=1, if the disk has it" in caplog.text
    order = np.random.default_rng(0).integers(len(here.cases), size=30)
    for index in order:
        for view in VIEWS[:2]:
            assert np.array_equal(there.cases[index].image(view), here.cases[index].image(view))
            assert np.array_equal(there.cases[index].labels(view), here.cases[index].labels(view))
            assert sum(_arrays(tmp_path).values()) <= bound
    # The remedy.
    monkeypatch.setenv("LIVERJAX_CACHE_GB", "1")
    caplog.clear()
    opened()
    assert caplog.text == ""


def test_what_was_not_used_for_longest_gives_way(opened, tmp_path, monkeypatch):
    there = opened()
    files = []
    for case in there.cases[:3]:
        size = case.image("axial").nbytes + 128
        files.append(case.folder / "axial.npy")
    now = time.time_ns()
    for path, age in zip(files, (100, 300, 200), strict=True):
        os.utime(path, ns=(now - age * 10**9, path.stat().st_mtime_ns))
    there.cases[0].image("axial")  # Used again, so that it is the newest.
    monkeypatch.setenv("LIVERJAX_CACHE_GB", f"{3 * size / 1e9:.9f}")
    there.cases[3].image("axial")
    assert [path.exists() for path in files] == [True, False, True]
    partial = files[0].with_name(".partial-0123456789abcdef.npy")
    partial.touch()
    os.utime(partial, (0, 0))
    there.cases[4].image("axial")
    assert not partial.exists()


def test_an_array_that_another_process_removes_is_copied_again(opened, monkeypatch):
    case = opened().cases[0]
    mapped, calls = stored_case._mapped, []

    def removing(path):
        calls.append(path)
        if len(calls) == 1:
            path.unlink()
        return mapped(path)

    monkeypatch.setattr(stored_case, "_mapped", removing)
    assert case.image("axial").any() and len(calls) == 2


@pytest.mark.parametrize("wrong", ["nan", "0", "-1", "many", "1e3"])
def test_a_bound_that_is_none_is_corrected_as_the_message_says(opened, monkeypatch, wrong):
    monkeypatch.setenv("LIVERJAX_CACHE_GB", wrong)
    with pytest.raises(
        InputError, match=r"LIVERJAX_CACHE_GB is .*, expected gigabytes, a number above 0, such as 100"
    ):
        opened()
    monkeypatch.setenv("LIVERJAX_CACHE_GB", "100")
    assert opened().cases[0].image("axial").any()


def test_a_full_disk_is_told_and_another_folder_serves(opened, tmp_path, monkeypatch):
    case = opened().cases[0]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(RemoteFolder, "fetch", full)
        with pytest.raises(
            InputError, match=r"axial.npy: cannot be written \(No space .*or set LIVERJAX_CACHE to"
        ):
            case.image("axial")
    monkeypatch.setenv("LIVERJAX_CACHE", str(tmp_path / "another"))
    assert opened().cases[0].image("axial").any()


def test_what_is_no_store_is_told(opened, memory, tiny_config):
    other = dataclasses.replace(tiny_config.preprocess, spacing=(4.0, 4.0, 4.0))
    with pytest.raises(ConfigError, match="store memory://bucket/store was prepared with other values"):
        open_store(ADDRESS, other, tiny_config.target)
    with pytest.raises(
        InputError, match="memory://bucket/none/index.json does not exist, .*; verify the names"
    ):
        open_store("memory://bucket/none", tiny_config.preprocess, tiny_config.target)
    facts = json.loads(memory.cat_file("/bucket/store/cases/phantom_000/case.json"))
    for broken in ({**facts, "sha256": {}}, {**facts, "sha256": dict.fromkeys(facts["sha256"], "../x")}):
        memory.pipe_file("/bucket/store/cases/phantom_000/case.json", json.dumps(broken).encode())
        with pytest.raises(InputError, match="sha256 is .*, expected a checksum of each array"):
            opened()
    for names in (["../../x"], [".."], [3], "phantom"):
        index = json.loads(memory.cat_file("/bucket/store/index.json"))
        memory.pipe_file("/bucket/store/index.json", json.dumps({**index, "cases": names}).encode())
        with pytest.raises(InputError, match="cases is .*, expected a list of different case ids"):
            opened()


def test_training_from_an_address_is_training_from_the_folder(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, views=("axial",))
    for name, store in (("here", tiny_config.store), ("there", ADDRESS)):
        train(dataclasses.replace(config, store=store), tmp_path / name, quiet=True)
    losses = [
        [record["loss"] for record in read_log(tmp_path / name / "axial" / "log.jsonl") if "loss" in record]
        for name in ("here", "there")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    shutil.rmtree(tmp_path / "cache")
    train(
        dataclasses.replace(config, store=ADDRESS), tmp_path / "there", quiet=True
    )  # Finished: no array is needed.
    assert not _arrays(tmp_path)


def test_the_bytes_of_a_store_are_those_of_its_arrays(opened, tiny_config):
    here = open_store(tiny_config.store, tiny_config.preprocess, tiny_config.target).cases[0]
    assert remote_store._bytes(opened().cases[0]) == sum(
        here.image(view).nbytes + here.labels(view).nbytes for view in VIEWS
    )
