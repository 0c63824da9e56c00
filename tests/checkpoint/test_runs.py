"""Checkpoints: a round trip, and that no damage goes unseen."""

import json
import shutil
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.checkpoint.runs import Checkpoints, restore_parameters
from liverjax.errors import CheckpointError

_TREE = {"a": jnp.arange(2000.0).reshape(50, 40), "b": {"c": jnp.int32(7)}}


@pytest.fixture
def folder(tmp_path):
    with Checkpoints(tmp_path / "run", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {**_TREE, "a": _TREE["a"] + step}, {"step is": step})
    return tmp_path / "run"


def _restore(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        return checkpoints.restore(_TREE)


def test_the_newest_is_restored_with_its_facts_and_the_oldest_is_gone(folder):
    step, tree, meta = _restore(folder)
    assert (step, meta) == (3, {"step is": 3})
    np.testing.assert_array_equal(tree["a"], _TREE["a"] + 3)
    assert tree["b"]["c"] == 7 and tree["b"]["c"].dtype == jnp.int32
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


def _flipped(content, random):
    damaged = bytearray(content)
    damaged[random.integers(len(content))] ^= 1 << random.integers(8)
    return bytes(damaged)


def _cut(content, random):
    return content[: random.integers(len(content))]


def _deleted(content, random):
    return None


@pytest.mark.parametrize("damage", [_flipped, _cut, _deleted])
def test_of_twenty_damaged_files_all_are_found_and_the_checkpoint_before_is_used(folder, caplog, damage):
    random = np.random.default_rng(0)
    files = [path for path in (folder / "3").rglob("*") if path.is_file() and path.name != "checksums.json"]
    assert len(files) >= 10
    for _ in range(20):
        path = files[random.integers(len(files))]
        content = path.read_bytes()
        if (changed := damage(content, random)) is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        caplog.clear()
        step, tree, meta = _restore(folder)
        assert (step, meta) == (2, {"step is": 2})
        np.testing.assert_array_equal(tree["a"], _TREE["a"] + 2)
        assert "checkpoint of step 3 is not used" in caplog.text and path.name in caplog.text
        path.write_bytes(content)
    assert _restore(folder)[0] == 3


def test_no_flipped_bit_of_the_checksums_themselves_gives_other_arrays(folder):
    random = np.random.default_rng(1)
    checksums = folder / "3" / "checksums.json"
    content = checksums.read_bytes()
    found = 0
    for _ in range(20):
        checksums.write_bytes(_flipped(content, random))
        step, tree, _ = _restore(folder)
        np.testing.assert_array_equal(tree["a"], _TREE["a"] + step)
        found += step == 2
    assert found >= 15  # the rest hit blanks between the values


@pytest.mark.parametrize("fault", ["empty", "a file less"])
def test_a_list_of_checksums_that_leaves_files_out_counts_for_nothing(folder, caplog, fault):
    checksums = folder / "3" / "checksums.json"
    facts = json.loads(checksums.read_text(encoding="utf-8"))
    unlisted = min(facts)
    del facts[unlisted]
    checksums.write_text("{}" if fault == "empty" else json.dumps(facts), encoding="utf-8")
    # Else this change of the arrays would pass.
    path = folder / "3" / unlisted
    path.write_bytes(_flipped(path.read_bytes(), np.random.default_rng(0)))
    assert _restore(folder)[0] == 2
    assert f"3/checksums.json: damaged (it does not list {unlisted}" in caplog.text


def test_what_a_file_manager_hides_in_a_checkpoint_does_no_harm(folder):
    (folder / "3" / ".DS_Store").write_bytes(b"x")
    (folder / "3" / "tree" / "._manifest.ocdbt").write_bytes(b"x")
    assert _restore(folder)[0] == 3


#: Replaces the one checkpoint of a folder again and again, as a training does with its best.
_REPLACE = """
import sys
import jax.numpy as jnp
from liverjax.checkpoint.runs import Checkpoints
with Checkpoints(sys.argv[1], keep=1) as checkpoints:
    step = 0
    while True:
        step += 1
        checkpoints.save(step, {"a": jnp.full((50, 40), step), "b": {"c": jnp.int32(step)}}, {"step is": step})
"""


def test_a_checkpoint_can_be_read_while_a_training_replaces_it(tmp_path):
    template = {"a": jnp.zeros((50, 40), jnp.int32), "b": {"c": jnp.int32(0)}}
    writer = subprocess.Popen([sys.executable, "-c", _REPLACE, str(tmp_path)])
    try:
        while not list(tmp_path.glob("*/checksums.json")):
            time.sleep(0.05)
            assert writer.poll() is None
        steps = []
        for _ in range(25):
            step, tree, meta = restore_parameters(tmp_path, template)
            assert (
                meta == {"step is": step} and (np.asarray(tree["a"]) == step).all() and tree["b"]["c"] == step
            )
            steps.append(step)
    finally:
        writer.kill()
        writer.wait()
    assert steps == sorted(steps) and steps[-1] > steps[0]


@pytest.mark.parametrize("fault", ["missing file", "no checksums", "cut checksums"])
def test_an_unfinished_checkpoint_is_passed_over(folder, fault):
    checksums = folder / "3" / "checksums.json"
    if fault == "missing file":
        next(path for path in (folder / "3").rglob("*") if path.is_file() and path != checksums).unlink()
    elif fault == "no checksums":
        checksums.unlink()
    else:
        checksums.write_text(checksums.read_text(encoding="utf-8")[:-30])
    assert _restore(folder)[0] == 2


def test_a_damaged_checkpoint_can_be_written_again(folder):
    (folder / "3" / "checksums.json").unlink()
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(3, _TREE, {})
    assert _restore(folder)[0] == 3


def test_the_checkpoint_before_stays_until_the_new_one_is_sealed(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, _TREE, {})
        checkpoints.save(2, _TREE, {})
        deadline = time.monotonic() + 60
        while not (tmp_path / "2").exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # Orbax is done with it, and it has no checksums yet.
        killed = shutil.copytree(tmp_path, tmp_path.with_name("killed"))
        assert _restore(killed)[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_what_kills_left_is_removed_and_counts_for_nothing(folder):
    (folder / "3" / "checksums.json").rename(folder / "moved")  # as if killed before the seal
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(_TREE)[0] == 2
        checkpoints.save(5, _TREE, {})
    assert sorted(path.name for path in folder.iterdir()) == ["2", "5", "moved"]


def test_a_future_that_was_lost_gives_way(folder):
    (folder / "3" / "meta" / "metadata").write_text("damaged")
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.restore(_TREE)
        checkpoints.save(2, {**_TREE, "a": _TREE["a"] - 1}, {})
    step, tree, _ = _restore(folder)
    assert step == 2 and sorted(path.name for path in folder.iterdir()) == ["2"]
    np.testing.assert_array_equal(tree["a"], _TREE["a"] - 1)


def test_a_checkpoint_that_cannot_be_written_is_told_by_name(tmp_path):
    gone = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"run/2: could not be written \(.*; the checkpoints before"):  # noqa: SIM117
        with Checkpoints(gone, keep=2) as checkpoints:
            checkpoints.save(1, _TREE, {})
            checkpoints.finish()
            gone.rename(tmp_path / "elsewhere")
            gone.write_text("a file where the folder was")
            checkpoints.save(2, _TREE, {})
    assert _restore(tmp_path / "elsewhere")[0] == 1


def test_if_all_are_damaged_the_first_fault_is_told(folder):
    for step in (2, 3):
        (folder / str(step) / "checksums.json").write_text("{}[")
    with pytest.raises(CheckpointError, match=r"no sound checkpoint is left; .*3/checksums.json: damaged"):
        _restore(folder)


def test_an_empty_folder_holds_none(tmp_path):
    assert _restore(tmp_path) is None
    with pytest.raises(CheckpointError, match="does not exist; train this view first"):
        restore_parameters(tmp_path / "nowhere", _TREE)
    with pytest.raises(CheckpointError, match="holds no finished checkpoint yet"):
        restore_parameters(tmp_path, _TREE)


def test_another_network_is_refused(folder):
    with pytest.raises(CheckpointError, match="another network than the config describes"):
        restore_parameters(folder, {"a": jnp.zeros((3, 3)), "b": {"c": jnp.int32(0)}})
    with pytest.raises(CheckpointError, match="another network than the config describes"):
        restore_parameters(folder, {"other": jnp.zeros(3)})
