"""Settings of the whole test suite: strict JAX, two faked devices, one compilation cache.

Under pytest-xdist (`make test`) each worker is a process with its own state; what takes long to make is made by the
worker that needs it first, and the others read it.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable

import pytest

# Before the first import of jax, for this process and for every command that a test starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than running networks this small: the compiler's own optimisation is off.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

REAL_DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder with real scans (`lits/`, `chaos_mr/`); the test skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real scans are not on this machine")
    return REAL_DATA


@pytest.fixture(scope="session")
def user_environment() -> dict[str, str]:
    """Environment of commands that run as users run them: one CPU device, and programs that XLA optimises."""
    of_tests = ("XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    return {name: value for name, value in os.environ.items() if name not in of_tests}


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[pathlib.Path], None]], pathlib.Path]:
    """Function from a name and a maker to a folder that one process of the session makes and all of them read."""
    base = tmp_path_factory.getbasetemp()
    # A worker's own folder lies in the session's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
        folder, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                # Left by a maker that failed.
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return made


@contextlib.contextmanager
def _read_only(folder: pathlib.Path):
    """Fails where a test has changed what others read: they would depend on the order and on the worker."""
    before = _files(folder)
    yield folder
    assert _files(folder) == before, f"a test has changed {folder}; it must work on a copy"


def _files(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*") if path.is_file()}


@pytest.fixture(scope="session")
def phantom_scans(made_once):
    """Data set of eight coarse phantoms in nnU-Net's layout; case ids phantom_000 to phantom_007."""
    from liverjax.datasets.phantom import write_dataset

    def make(folder):
        write_dataset(folder, range(8), shape=(48, 40, 36), spacing=(8.0, 8.0, 8.0))

    with _read_only(made_once("phantoms", make)) as folder:
        yield folder


@pytest.fixture(scope="session")
def tiny_config(phantom_scans, made_once):
    """Config of a network of two levels that trains in seconds, with a store of the phantoms."""
    from liverjax import options
    from liverjax.data.store import prepare

    config = options.Config(
        name="tiny",
        target=options.Target(labels=("background", "liver", "tumor")),
        preprocess=options.Preprocess(spacing=(8.0, 8.0, 8.0)),
        split=options.Split(folds=4, fold=0, validation=2),
        batch=options.Batch(size=4, patch=(48, 48), tumor_share=0.25),
        model=options.Model(features=(4, 8), dropout=0.1, norm_momentum=0.9),
        train=options.Train(
            steps=4, warmup_steps=1, validate_every=2, save_every=2, log_every=1, validation_slices=8
        ),
    )
    store = made_once("tiny_store", lambda folder: prepare(phantom_scans, folder, config, quiet=True))
    with _read_only(store):
        yield dataclasses.replace(config, store=str(store))


@pytest.fixture(scope="session")
def tiny_run(tiny_config, made_once):
    """Folder of a finished run of `tiny_config`, all views, four steps each."""
    from liverjax.training.loop import train

    with _read_only(made_once("tiny_run", lambda folder: train(tiny_config, folder, quiet=True))) as folder:
        yield folder
