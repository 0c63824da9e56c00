"""Settings of the whole test suite: strict JAX, two faked devices, one compilation cache."""

import os
import pathlib

import pytest

# Before the first import of jax, for this process and for every command that a test starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

REAL_DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder with real scans (`lits/`, `chaos_mr/`); the test skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real scans are not on this machine")
    return REAL_DATA
