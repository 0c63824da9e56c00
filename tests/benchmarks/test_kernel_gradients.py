"""The gradient of 3x3 kernels, ours beside XLA's, in a process of its own on one thread.

python -m pytest -m slow -s tests/benchmarks/test_kernel_gradients.py
"""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parent / "kernel_gradients.py"


@pytest.mark.slow
def test_kernel_gradients_beside_xla(duel):
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in json.loads(done.stdout.splitlines()[-1]):
        slices, size, _ = row["shape"]
        channels, features = row["channels"]
        assert row["off"] < 1e-4
        duel(
            f"kernel gradient of {slices} slices of {size} x {size}, {channels} to {features} channels",
            "XLA",
            ours=row["rates"][1],
            theirs=row["rates"][0],
            unit="GFLOP per CPU s",
            of="best of 3",
            parity=f"within {row['off']:.0e} of the largest entry",
            more=True,
        )
        # Of wide networks ours is taken, as XLA takes the slices of the batch for channels.
        if features >= 64:
            assert row["rates"][1] > row["rates"][0]
