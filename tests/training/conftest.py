"""Runs of one view: as commands, and their final bits."""

import dataclasses
import json
import sys

import numpy as np
import pytest

_CONFIG_FILE = """
import json
from liverjax.config import resolve, to_dict
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict(to_dict(resolve(json.loads('''{config}''')))).lock()
"""


@pytest.fixture(scope="session")
def final_state():
    """Function from config and work folder to step and all arrays of the axial view's newest checkpoint."""
    import jax

    from liverjax.checkpoint.runs import Checkpoints
    from liverjax.training.distributed import data_mesh, replicated
    from liverjax.training.step import init_state, step_spec

    def read(config, workdir):
        sharding = replicated(data_mesh(config.batch.size))
        template = init_state(step_spec(config), config.batch.patch, 0, sharding)
        with Checkpoints(workdir / "axial" / "last", keep=2) as checkpoints:
            step, state, _ = checkpoints.restore(template.arrays())
        return step, [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    return read


@pytest.fixture(scope="session")
def assert_same_bits():
    """Function that compares two results of `final_state`."""

    def compare(a, b):
        assert a[0] == b[0]
        for left, right in zip(a[1], b[1], strict=True):
            np.testing.assert_array_equal(left, right)

    return compare


@pytest.fixture
def train_command(tmp_path):
    """Function from config and work folder to the command that trains it, in words."""

    def command(config, workdir, *flags):
        file = tmp_path / "tiny.py"
        file.write_text(_CONFIG_FILE.format(config=json.dumps(dataclasses.asdict(config))), encoding="utf-8")
        words = [sys.executable, "-m", "liverjax.commands.dispatch", "train", f"--config={file}", "--quiet"]
        return [*words, f"--store={config.store}", f"--workdir={workdir}", *flags]

    return command
