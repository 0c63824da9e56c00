"""The memory estimate against what XLA plans, and the choice of where to add."""

import os
import resource
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from liverjax.inference import FusionPlan
from liverjax.inference.memory import accumulates_on_host, estimate, host_memory
from liverjax.inference.network import apply_within
from liverjax.inference.postprocess import clean
from liverjax.models import UNet
from liverjax.options import Predict


@pytest.mark.parametrize("features", [(16, 32, 64), (16, 24, 32, 48)])
def test_the_estimate_of_a_slab_is_what_xla_plans(features):
    network = UNet(classes=2, features=features, norm="none")
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    slices = jax.ShapeDtypeStruct((8, 64, 96), jnp.float32)
    apply = jax.jit(lambda v, s, e: apply_within(network, v, s, e))
    planned = (
        apply.lower(variables, slices, jax.ShapeDtypeStruct((2,), jnp.int32)).compile().memory_analysis()
    )
    planned = planned.temp_size_in_bytes + planned.argument_size_in_bytes + planned.output_size_in_bytes
    # The largest slice of this grid is one of 64 x 96.
    estimated = estimate((1, 1, 1), (64, 96, 32), FusionPlan(network, bucket=8)).slab
    assert 0.8 < estimated / planned < 1.3


def test_an_accumulator_counts_volume_sum_and_result():
    need = estimate((10, 10, 10), (30, 32, 33), FusionPlan(UNet(classes=3, features=(4, 8)), bucket=32))
    assert need.accumulator == 32 * 32 * 64 * 4 * (1 + 3 + 3)
    assert need.scan == 1000 * 3 + 30 * 32 * 33 * 4


def test_the_clean_up_of_a_scan_full_of_liver_takes_what_is_estimated():
    labels = np.ones((96, 96, 96), np.uint8)
    clean(labels, (1, 1, 1), Predict())
    tracemalloc.start()
    clean(labels, (1, 1, 1), Predict())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = estimate(labels.shape, (32, 32, 32), FusionPlan(UNet(classes=2, features=(4, 8))))
    assert 0.6 < peak / need.clean_up < 1.1


class _Small:
    """A device with a limit, which no machine of the tests has."""

    platform, device_kind = "gpu", "small"

    def __init__(self, limit):
        self._limit = limit

    def memory_stats(self):
        return {"bytes_limit": self._limit}


def test_the_host_adds_where_the_device_is_too_small(caplog):
    network = UNet(classes=2, features=(4, 8))
    need = estimate((0, 0, 0), (64, 64, 64), FusionPlan(network))

    def on_host(device, **changes):
        return accumulates_on_host((64, 64, 64), FusionPlan(network, **changes), device)

    assert not on_host(_Small(need.slab + need.accumulator)) and not caplog.records
    assert on_host(_Small(need.slab + need.accumulator - 1))
    assert "small has" in caplog.text and "summed on the host" in caplog.text
    assert on_host(_Small(2**40), accumulator="host") and not on_host(_Small(1), accumulator="device")
    assert not on_host(jax.local_devices()[0])


_PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        (
            "0::/a/b\n",
            {"a/b/memory.max": "max", "a/memory.max": "1000000"},
            1000000,
        ),  # version 2, the outer group
        ("0::/../a\n", {"memory.max": "3000000\n"}, 3000000),  # a container: its group is the root
        (
            "3:cpu:/x\n5:cpu,memory:/slurm/job\n",
            {"memory/slurm/job/memory.limit_in_bytes": "2000000"},
            2000000,
        ),
        ("5:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": "2000000"}, 2000000),
        (
            "5:memory:/\n",
            {"memory/memory.limit_in_bytes": str(2**63 - 4096)},
            _PHYSICAL,
        ),  # no limit, version 1
        ("3:cpu:/x\n", {"cpu/x/memory.limit_in_bytes": "5"}, _PHYSICAL),
        (None, {"memory.max": "5"}, _PHYSICAL),
    ],
)
def test_memory_is_what_the_control_group_allows(tmp_path, own, files, limit):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert host_memory(tmp_path / "groups", tmp_path / "own") == limit


def test_memory_is_what_ulimit_allows(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_PHYSICAL - 4096, hard))
        assert host_memory(tmp_path, tmp_path / "own") == _PHYSICAL - 4096
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
