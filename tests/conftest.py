"""Settings of the whole test suite: strict JAX, two faked devices, one compilation cache."""

import os
import pathlib

import pytest
from absl import flags

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

# Grain's workers read absl's flags, which only a command's start parses.
flags.FLAGS.mark_as_parsed()

REAL_DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder with real scans (`lits/`, `chaos_mr/`); the test skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real scans are not on this machine")
    return REAL_DATA


@pytest.fixture(scope="session")
def phantom_scans(tmp_path_factory) -> pathlib.Path:
    """Data set of eight coarse phantoms in nnU-Net's layout; case ids phantom_000 to phantom_007."""
    from liverjax.datasets.phantom import write_dataset

    folder = tmp_path_factory.mktemp("phantoms")
    write_dataset(folder, range(8), shape=(48, 40, 36), spacing=(8.0, 8.0, 8.0))
    return folder


@pytest.fixture(scope="session")
def tiny_config(phantom_scans, tmp_path_factory):
    """Config of a network of two levels that trains in seconds, with a store of the phantoms."""
    from liverjax import options
    from liverjax.data.store import prepare

    config = options.Config(
        name="tiny",
        target=options.Target(labels=("background", "liver", "tumor")),
        store=str(tmp_path_factory.mktemp("tiny") / "store"),
        preprocess=options.Preprocess(spacing=(8.0, 8.0, 8.0)),
        split=options.Split(folds=4, fold=0, validation=2),
        batch=options.Batch(size=4, patch=(48, 48), tumor_share=0.25),
        model=options.Model(features=(4, 8), dropout=0.1, norm_momentum=0.9),
        train=options.Train(
            steps=4, warmup_steps=1, validate_every=2, save_every=2, log_every=1, validation_slices=8
        ),
    )
    prepare(phantom_scans, config.store, config, quiet=True)
    return config


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory) -> pathlib.Path:
    """Folder of a finished run of `tiny_config`, all views, four steps each."""
    from liverjax.training.loop import train

    workdir = tmp_path_factory.mktemp("tiny_run")
    train(tiny_config, workdir, quiet=True)
    return workdir
