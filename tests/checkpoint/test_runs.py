"""Checkpoints: a round trip, and that no damage goes unseen."""

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


def test_twenty_flipped_bytes_in_array_files_are_all_found(folder, caplog):
    random = np.random.default_rng(0)
    files = [path for path in (folder / "3").rglob("*") if path.is_file() and path.name != "checksums.json"]
    for _ in range(20):
        path = files[random.integers(len(files))]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        caplog.clear()
        assert _restore(folder)[0] == 2
        assert path.name in caplog.text
        path.write_bytes(content)
    assert _restore(folder)[0] == 3


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
